"""Losses: `clic.types.Features` in, `clic.types.LossOutput` out.

Read `terms`, then `objectives`, which sums them; `registry` lists what each
objective needs, and `distillation` adds a term to any of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clic.losses.registry import OBJECTIVES

if TYPE_CHECKING:
    from clic.losses.distillation import Distilled, distillation_loss
    from clic.losses.objectives import (
        ClicObjective,
        ClipObjective,
        Objective,
        ParaphraseObjective,
        SoftmaxNegativesObjective,
    )
    from clic.losses.sigmoid_negatives import SigmoidNegativesObjective, sigmoid_negatives_loss
    from clic.losses.terms import (
        hard_negative_loss,
        image_to_text,
        image_to_text_with_negatives,
        sigmoid_loss,
        text_to_image,
        unimodal_loss,
    )

__all__ = [
    "OBJECTIVES",
    "ClicObjective",
    "ClipObjective",
    "Distilled",
    "Objective",
    "ParaphraseObjective",
    "SigmoidNegativesObjective",
    "SoftmaxNegativesObjective",
    "distillation_loss",
    "hard_negative_loss",
    "image_to_text",
    "image_to_text_with_negatives",
    "sigmoid_loss",
    "sigmoid_negatives_loss",
    "text_to_image",
    "unimodal_loss",
]

_ELSEWHERE = {
    "Distilled": "distillation",
    "distillation_loss": "distillation",
    "SigmoidNegativesObjective": "sigmoid_negatives",
    "sigmoid_negatives_loss": "sigmoid_negatives",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that settings can be checked against `OBJECTIVES` without torch."""
    if name not in __all__:
        raise AttributeError(f"module 'clic.losses' has no attribute {name!r}")
    home = _ELSEWHERE.get(name, "objectives")
    return getattr(import_module(f"clic.losses.{home}"), name)
