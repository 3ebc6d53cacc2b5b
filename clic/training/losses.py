"""From a batch's tensors to its loss, and what of a model the losses of a run reach."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from clic import distributed, models, runs
from clic.config.train_settings import Config, LossConfig
from clic.errors import ConfigError, pick
from clic.io.terminal import say
from clic.losses import OBJECTIVES, Objective
from clic.losses.registry import SOFTMAX, choices
from clic.models import ClipModel
from clic.types import KINDS, Features, Kind, LossOutput


def make_objectives(loss: LossConfig) -> dict[Kind, Objective]:
    """Return the objective of each kind of batch."""
    return {kind: pick(OBJECTIVES, getattr(loss, kind), f"loss.{kind}").of(loss) for kind in KINDS}


def check_effect(config: Config, ranks: int) -> None:
    """Refuse steps that could train nothing, as far as that is known before the model is built.

    Args:
        config: All settings, validated.
        ranks: Number of ranks W.

    Raises:
        ConfigError: The loss of a kind of batch would be a constant for all that trains.
    """
    loss, images = config.loss, config.train.batch_size * ranks
    for kind in _kinds(config):
        objective = getattr(loss, kind)
        false_captions = bool(config.captions.negative_kinds(kind))
        contrastive, hard, unimodal = True, objective == "softmax_negatives", False
        if objective == "clic":
            contrastive = loss.contrastive_weight > 0
            hard = loss.hard_negative_weight > 0
            unimodal = loss.unimodal_weight > 0
        hard = hard and false_captions
        if OBJECTIVES[objective].needs_now(SOFTMAX, loss) and _is_sigmoid(config):
            able = [name for name in choices(kind) if SOFTMAX not in OBJECTIVES[name].needs]
            raise ConfigError(
                f"loss.{kind}={objective} needs a softmax; {config.model.name} has a logit_bias "
                f"(sigmoid loss); set loss.{kind} to {' or '.join(able)}"
            )
        if config.model.train == "vision" and not (contrastive or hard):
            raise ConfigError(
                f"model.train=vision with loss.{kind}={objective} of the unimodal term alone "
                "(loss.contrastive_weight=0, loss.hard_negative_weight=0) trains nothing, as that "
                "term looks at captions only; use model.train=text, or give one of the others a "
                "weight"
            )
        if images == 1 and not (hard or unimodal) and not _is_sigmoid(config):
            raise ConfigError(
                f"train.batch_size=1 on {ranks} rank trains nothing: loss.{kind}={objective} "
                "compares each image with the others of its batch, and the loss of one image "
                "alone is always 0; use train.batch_size=2 or more"
            )


def _is_sigmoid(config: Config) -> bool:
    """Return whether the model has a logit_bias, with which a single pair has a loss too."""
    source = models.resolve(runs.source_of(config.model.name), config.model.pretrained)
    return source.architecture.get("init_logit_bias") is not None


def _kinds(config: Config) -> list[Kind]:
    """Return the kinds of batch that a run has."""
    return [kind for kind in KINDS if config.sampling.kinds in ("alternate", kind)]


class Losses(nn.Module):
    """What data-parallel training wraps: features and objectives, from a batch to its loss.

    The objectives are part of it so that data-parallel training sees what a loss leaves out.

    Args:
        features: Makes the features.
        objectives: The objective of each kind of batch.
    """

    def __init__(
        self, features: models.FeatureExtractor, objectives: dict[Kind, Objective]
    ) -> None:
        super().__init__()
        self.features, self.objectives = features, objectives

    def forward(
        self,
        pixels: Tensor,
        positives: Tensor,
        negatives: Tensor | None,
        negative_mask: Tensor | None,
        kind: Kind,
        negative_kinds: tuple[str, ...],
    ) -> LossOutput:
        """Return the loss of a batch's tensors, the images normalised."""
        features: Features = self.features(pixels, positives, negatives, negative_mask)
        if negative_kinds:
            features = replace(features, negative_kinds=negative_kinds)
        return self.objectives[kind](features)


def freeze_unreached(losses: Losses, clip: ClipModel, config: Config) -> bool:
    """Freeze what no loss of a run reaches, and say so.

    An optimizer that was made before keeps these parameters and leaves them alone, so that its
    state is that of any other run of the model.

    Args:
        losses: The run's, before data-parallel training wraps them and before activations are
            recomputed, which would hide parts of the graph.
        clip: The model.
        config: All settings.

    Returns:
        Whether some kind of batch reaches less than the others do.

    Raises:
        ConfigError: The loss of a kind of batch reaches nothing that trains.
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


def _reached(losses: Losses, clip: ClipModel, config: Config, kind: Kind) -> set[str]:
    """Return the names of what the loss of a kind of batch reaches, by trying one image."""
    size, device = clip.preprocess.size, clip.device
    slots = config.captions.composite_positives if kind == "composite" else 1
    names = config.captions.negative_kinds(kind)
    if names and config.loss.negative_weights:
        names = tuple(config.loss.negative_weights)
    text = clip.tokenizer(["a"]).to(device)
    negatives = mask = None
    if names:
        negatives = text.expand(1, len(names), -1)
        mask = torch.ones(1, len(names), dtype=torch.bool, device=device)
    modes = {module: module.training for module in losses.modules()}
    losses.eval()  # so that no statistics move, and no random number is drawn
    try:
        pixels = torch.zeros(1, 3, size, size, device=device)
        with torch.enable_grad():
            output = losses(pixels, text.expand(1, slots, -1), negatives, mask, kind, names)
    finally:
        for module, training in modes.items():
            module.training = training
    return models.reached(clip.model, output.total)
