"""Which parts of a model the losses of a run train, checked before and after it is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

import torch
from torch import Tensor

from clic import distributed, models, runs
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.io.terminal import say
from clic.losses import OBJECTIVES
from clic.losses.registry import NEGATIVES, SECOND_POSITIVE, SIGMOID, SOFTMAX, choices
from clic.models import ClipModel, LossModule, Tower
from clic.parts import TOWERS, parse
from clic.types import KINDS, Kind


def check_trainable(config: Config, ranks: int) -> None:
    """Refuse steps that could not train anything, as far as the validated settings alone show.

    Raises:
        ConfigError: The loss of a kind of batch would be constant in everything that trains.
    """
    for kind in _kinds(config):
        objective = getattr(config.loss, kind)
        entry = OBJECTIVES[objective]
        contrastive = entry.is_contrastive(config.loss)
        false_captions = bool(config.captions.negative_kinds(kind))
        hard = entry.needs_now(NEGATIVES, config.loss) and false_captions
        unimodal = entry.needs_now(SECOND_POSITIVE, config.loss)
        if entry.needs_now(SOFTMAX, config.loss) and _is_sigmoid(config):
            able = [name for name in choices(kind) if SOFTMAX not in OBJECTIVES[name].needs]
            raise ConfigError(
                f"loss.{kind}={objective} needs a softmax; {config.model.name} has a logit_bias "
                f"(sigmoid loss); set loss.{kind} to {' or '.join(able)}"
            )
        if entry.needs_now(SIGMOID, config.loss) and not _is_sigmoid(config):
            able = [name for name in choices(kind) if SIGMOID not in OBJECTIVES[name].needs]
            raise ConfigError(
                f"loss.{kind}={objective} needs a logit_bias (sigmoid loss), and "
                f"{config.model.name} has none; set loss.{kind} to {' or '.join(able)}"
            )
        if not parse(config.model.train).text and not (contrastive or hard):
            raise ConfigError(
                f"model.train={config.model.train} with loss.{kind}={objective} of the unimodal "
                "term alone (loss.contrastive_weight=0, loss.hard_negative_weight=0) trains "
                "nothing, because that term depends on captions only; use model.train=text, or "
                "give one of the others a weight"
            )
        alone = config.train.batch_size * ranks == 1
        if alone and not (hard or unimodal) and not _is_sigmoid(config):
            raise ConfigError(
                f"train.batch_size=1 on {ranks} rank trains nothing: loss.{kind}={objective} "
                "compares each image with the others of its batch, and the loss of one image "
                "alone is always 0; use train.batch_size=2 or more"
            )


def freeze_unreached(losses: LossModule, clip: ClipModel, config: Config) -> bool:
    """Freeze and print what no loss reaches; return whether some kind of batch reaches less.

    An optimizer made earlier keeps these parameters without changing them, so its state has the
    same form in every run of the model. `losses` is not yet wrapped for data-parallel training,
    and has no activation checkpointing, which would hide parts of the graph.

    Raises:
        ConfigError: The loss of a kind of batch reaches no parameter that trains.
    """
    found = {kind: _reached(losses, clip, config, kind) for kind in _kinds(config)}
    for kind, names in found.items():
        if not names:
            raise ConfigError(
                f"model.train={config.model.train}: the loss of {kind} batches (loss.{kind}="
                f"{getattr(config.loss, kind)} and its weights) reaches nothing that trains; "
                "train another part, or give the loss another term"
            )
    union: set[str] = set().union(*found.values())
    rest = {n for n, p in clip.model.named_parameters() if p.requires_grad} - union
    frozen = models.freeze(clip.model, rest)
    if frozen and distributed.is_main():
        say(f"frozen, since no loss of this run reaches them: {', '.join(frozen)}")
    return any(names != union for names in found.values())


def table(clip: ClipModel, factors: Mapping[str, float], lr: float) -> str:
    """Return a table of each part's parameters: how many there are, how many train, peak rates.

    Consecutive layers of a tower that train alike share a row.

    Args:
        clip: The model, with parameters that do not train already frozen.
        factors: The factor on the learning rate of each parameter that the optimizer has.
        lr: Peak learning rate.
    """
    own = dict(clip.model.named_parameters())
    rows: list[tuple[str, list[str]]] = []
    placed: set[str] = set()
    for name in TOWERS:
        tower = models.towers_of(clip.model)[name]
        placed |= tower.depths.keys()
        for first, last, names in _runs(tower, own):
            what = {0: "before the layers", tower.layers + 1: "after the layers"}.get(first)
            layers = f"layer {first}" if first == last else f"layers {first} to {last}"
            if not tower.layers:
                what = "all"
            rows.append((f"{name}, {what or layers}", names))
    rows += [(name, [name]) for name in own if name not in placed]
    lines: list[tuple[str, ...]] = [("part", "parameters", "trained", "peak lr")]
    for part, names in [*rows, ("all", list(own))]:
        trained = [name for name in names if own[name].requires_grad]
        rates = sorted({lr * factors[name] for name in trained})
        shown = " to ".join(f"{rate:.3g}" for rate in dict.fromkeys(rates[:1] + rates[-1:]))
        counts = (sum(own[n].numel() for n in found) for found in (names, trained))
        lines.append((part, *(f"{count:,}" for count in counts), shown or "frozen"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{part:<{widths[0]}}  {count:>{widths[1]}}  {trained:>{widths[2]}}  {rate}"
        for part, count, trained, rate in lines
    )


def _runs(tower: Tower, own: Mapping[str, Tensor]) -> Iterator[tuple[int, int, list[str]]]:
    """Yield first and last depth, and the parameters, of consecutive layers that train alike."""
    by_depth: dict[int, list[str]] = {}
    for name, depth in tower.depths.items():
        by_depth.setdefault(depth, []).append(name)

    def kind(depth: int) -> tuple[object, ...]:
        inner = 1 <= depth <= tower.layers
        return inner or depth, {own[name].requires_grad for name in by_depth[depth]}

    for _, group in groupby(sorted(by_depth), key=kind):
        depths = list(group)
        yield depths[0], depths[-1], [name for d in depths for name in by_depth[d]]


def _is_sigmoid(config: Config) -> bool:
    """Return whether the model has a logit_bias, which gives even a single pair a loss."""
    source = models.resolve(runs.source_of(config.model.name), config.model.pretrained)
    return source.architecture.get("init_logit_bias") is not None


def _kinds(config: Config) -> list[Kind]:
    return [kind for kind in KINDS if config.sampling.kinds in ("alternate", kind)]


def _reached(losses: LossModule, clip: ClipModel, config: Config, kind: Kind) -> set[str]:
    """Return the parameters that the loss of a kind of batch reaches, by trying one image."""
    size, device = clip.preprocess.size, clip.device
    slots = config.captions.positives(kind)
    names = config.captions.negative_kinds(kind)
    if names and config.loss.negative_weights:
        names = tuple(config.loss.negative_weights)
    text = clip.tokenizer(["a"]).to(device)
    negatives = mask = None
    if names:
        negatives = text.expand(1, len(names), -1)
        mask = torch.ones(1, len(names), dtype=torch.bool, device=device)
    pixels = torch.zeros(1, 3, size, size, device=device)
    # In evaluation mode no statistics change and no random numbers are drawn.
    with models.evaluation_mode(losses), torch.enable_grad():
        output = losses(pixels, text.expand(1, slots, -1), negatives, mask, kind, names)
    return models.reached(clip.model, output.total)
