"""Losses, one a file, and the objectives that sum them: `Features` to `LossOutput`."""

from clic.losses.contrastive import image_to_text, text_to_image
from clic.losses.hard_negative import hard_negative_loss
from clic.losses.objectives import (
    OBJECTIVES,
    ClicObjective,
    ClipObjective,
    Objective,
    SoftmaxNegativesObjective,
)
from clic.losses.sigmoid import sigmoid_loss
from clic.losses.softmax_negatives import image_to_text_with_negatives
from clic.losses.unimodal import unimodal_loss

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
