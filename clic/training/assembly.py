"""Makes the parts of a training step from the settings: optimizer, rates, objectives, pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW

from clic.config.train_settings import Config
from clic.errors import pick
from clic.losses import OBJECTIVES, Distilled, Objective
from clic.models import LossModule
from clic.training import optim
from clic.training.frozen_base import FrozenBase
from clic.training.passes import CachedPass, Pass, WholePass, check_no_batch_norm
from clic.training.strategy import DataParallel
from clic.types import KINDS, Kind


@dataclass(frozen=True)
class Rates:
    """The optimizer and its learning rates.

    Attributes:
        optimizer: AdamW over the trained parameters.
        at: The rate at a step, before the factors.
        factors: Each parameter's factor on that rate, by name.
    """

    optimizer: AdamW
    at: optim.Schedule
    factors: dict[str, float]


def make_rates(config: Config, model: nn.Module, steps: int) -> Rates:
    """Return the optimizer of a model on its device, and its learning rates over `steps` steps.

    Raises:
        ConfigError: Nothing trains, or a learning-rate setting cannot work.
    """
    settings = config.optim
    ratio = 1.0 if settings.lr_vision is None else settings.lr_vision / settings.lr
    factors = optim.rate_factors(model, settings.layer_decay, ratio)
    optimizer = optim.adamw(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.eps,
        factors=factors,
    )
    warmup_steps = settings.warmup_steps or 0
    if settings.warmup_fraction is not None:
        warmup_steps = math.floor(settings.warmup_fraction * steps)
    schedule = optim.make_schedule(
        settings.schedule,
        lr=settings.lr,
        steps=steps,
        warmup_steps=warmup_steps,
        lr_start=settings.lr_start,
        lr_end=settings.lr_end,
    )
    return Rates(optimizer, schedule, factors)


def make_objectives(config: Config) -> dict[Kind, Objective]:
    """Return the objective of each kind of batch, with self-distillation if it has a weight."""
    names: dict[Kind, str] = {kind: getattr(config.loss, kind) for kind in KINDS}
    found: dict[Kind, Objective] = {
        kind: pick(OBJECTIVES, name, f"loss.{kind}").of(config.loss) for kind, name in names.items()
    }
    weight = config.train.distill_weight
    return {kind: Distilled(own, weight) for kind, own in found.items()} if weight else found


def make_pass(
    config: Config,
    losses: LossModule,
    strategy: DataParallel,
    base: FrozenBase | None,
    find_unused: bool,
) -> Pass:
    """Return the pass that computes a batch's gradient, whole or in chunks.

    Raises:
        ConfigError: The model cannot be trained in chunks.
    """
    size = config.train.micro_batch
    if size is None:
        return WholePass(losses, strategy, base, find_unused)
    check_no_batch_norm(losses.features.model, size)
    return CachedPass(losses, strategy, size, base, find_unused)
