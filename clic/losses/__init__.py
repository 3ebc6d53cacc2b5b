"""Losses, one a file, and the objectives that sum them: `Features` to `LossOutput`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clic.losses.registry import OBJECTIVES

if TYPE_CHECKING:
    from clic.losses.contrastive import image_to_text, text_to_image
    from clic.losses.hard_negative import hard_negative_loss
    from clic.losses.objectives import (
        ClicObjective,
        ClipObjective,
        Objective,
        SoftmaxNegativesObjective,
    )
    from clic.losses.sigmoid import sigmoid_loss
    from clic.losses.softmax_negatives import image_to_text_with_negatives
    from clic.losses.unimodal import unimodal_loss

# Imported when first asked for, so that settings are checked against `OBJECTIVES` without torch.
_HOMES = {
    "ClicObjective": "objectives",
    "ClipObjective": "objectives",
    "Objective": "objectives",
    "SoftmaxNegativesObjective": "objectives",
    "hard_negative_loss": "hard_negative",
    "image_to_text": "contrastive",
    "image_to_text_with_negatives": "softmax_negatives",
    "sigmoid_loss": "sigmoid",
    "text_to_image": "contrastive",
    "unimodal_loss": "unimodal",
}

__all__ = [
    "OBJECTIVES",
    "ClicObjective",
    "ClipObjective",
    "Objective",
    "SoftmaxNegativesObjective",
    "hard_negative_loss",
    "image_to_text",
    "image_to_text_with_negatives",
    "sigmoid_loss",
    "text_to_image",
    "unimodal_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clic.losses' has no attribute {name!r}")
    return getattr(import_module(f"clic.losses.{_HOMES[name]}"), name)
