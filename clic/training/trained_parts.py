"""Which parts of a model the losses of a run train, checked before and after it is built."""

from __future__ import annotations

import torch

from clic import distributed, models, runs
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.io.terminal import say
from clic.losses import OBJECTIVES
from clic.losses.registry import NEGATIVES, SECOND_POSITIVE, SOFTMAX, choices
from clic.models import ClipModel, LossModule
from clic.types import KINDS, Kind


def check_trainable(config: Config, ranks: int) -> None:
    """Refuse steps that could not train anything, as far as the validated settings alone tell.

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
        if config.model.train == "vision" and not (contrastive or hard):
            raise ConfigError(
                f"model.train=vision with loss.{kind}={objective} of the unimodal term alone "
                "(loss.contrastive_weight=0, loss.hard_negative_weight=0) trains nothing, because "
                "that term depends on captions only; use model.train=text, or give one of the "
                "others a weight"
            )
        alone = config.train.batch_size * ranks == 1
        if alone and not (hard or unimodal) and not _is_sigmoid(config):
            raise ConfigError(
                f"train.batch_size=1 on {ranks} rank trains nothing: loss.{kind}={objective} "
                "compares each image with the others of its batch, and the loss of one image "
                "alone is always 0; use train.batch_size=2 or more"
            )


def freeze_unreached(losses: LossModule, clip: ClipModel, config: Config) -> bool:
    """Freeze and print what no loss reaches; return whether one kind of batch reaches less.

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
    # In evaluation mode no statistics move and no random numbers are drawn.
    with models.evaluation_mode(losses), torch.enable_grad():
        output = losses(pixels, text.expand(1, slots, -1), negatives, mask, kind, names)
    return models.reached(clip.model, output.total)
