"""Self-distillation: an objective that also keeps features near those of the frozen base."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clic.errors import ConfigError
from clic.losses.objectives import Objective, Terms
from clic.types import Features

DISTILLATION = "distillation"


def distillation_loss(features: Tensor, base: Tensor) -> Tensor:
    """Return how far features have moved from those of the frozen base model.

    L = 1/N sum_n ( 1 - cos(v_n, v0_n) ), half the mean squared distance of the unit vectors (ours:
    the CLIC paper has no such term). Nothing is gathered; as N is equal on all ranks, the mean
    of their losses is the mean over all rows.

    Args:
        features: [..., D], unit norm.
        base: [..., D] of the base model for the same inputs, unit norm, without gradient.

    Returns:
        Scalar, 0 to 2, the mean over all leading dimensions.
    """
    return (1 - (features * base).sum(-1)).mean()


@dataclass(frozen=True)
class Distilled(Objective):
    """An objective plus the distance from the frozen base's features.

    total = objective + weight * distillation (a further term), where distillation is the mean over
    the true captions plus the mean over the images, each only if the features include the base's,
    that is, if its tower trains.

    Args:
        objective: The objective that it is added to.
        weight: Weight of the distillation, above 0.

    Raises:
        ConfigError: The weight is not a positive number.
    """

    objective: Objective
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ConfigError(f"train.distill_weight={self.weight} must be a positive number")

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        total, terms = self.objective._compute(features)
        pairs = (
            (features.positive_features, features.base_positives),
            (features.image_features, features.base_images),
        )
        parts = [distillation_loss(own, base) for own, base in pairs if base is not None]
        if not parts:
            return total, terms
        distillation = torch.stack(parts).sum()
        return total + self.weight * distillation, {**terms, DISTILLATION: distillation}
