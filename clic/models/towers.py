"""The two towers of a CLIP-like model in training: from a batch to its features and its loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clic.errors import ConfigError
from clic.models.depths import VISION_PREFIX, layer_modules
from clic.models.pooled_towers import PooledImages, PooledTexts, images_layout
from clic.models.text_encoder import OpenClip, TextPlanner
from clic.parts import Trained
from clic.types import Features, Kind, LossOutput, TextPlan

if TYPE_CHECKING:
    from clic.losses import Objective


def enable_grad_checkpointing(model: OpenClip) -> None:
    """Recompute activations in the backward pass; `ConfigError` if a tower does not support it."""
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, NotImplementedError, AttributeError) as error:
        raise ConfigError(
            "model.grad_checkpointing=true: a tower of this model does not support it; set false"
        ) from error


def _grad_if(trains: bool) -> torch.autograd.grad_mode.set_grad_enabled:
    """Return a context in which a frozen tower stores nothing for the backward pass."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and trains)


class FeatureExtractor(nn.Module):
    """Turns images and captions into `Features`; a frozen tower runs without gradient.

    A frozen vision tower computes the last block for the pooled token only.

    Attributes:
        trained: Which towers train.
        encode_text: The text tower, for captions without a plan.
    """

    def __init__(self, model: OpenClip, trained: Trained) -> None:
        super().__init__()
        self._images, self._texts = PooledImages(model), PooledTexts(model)
        self.encode_text, self.trained = self._texts.whole, trained
        self._layout = images_layout(model)

    @property
    def model(self) -> OpenClip:
        """open_clip's module."""
        return self.encode_text.model

    def planner(self, rows: int | None = None, plans: bool = True) -> TextPlanner:
        """Return the planner of captions, of which `rows` rows are encoded at once (None: all)."""
        return TextPlanner(self.encode_text.rule, self._texts.packed, rows, plans)

    def compile_layers(self, **compiler: Any) -> None:
        """Compile the towers' layers in place, each kind of layer once, at its first call.

        Parameter names do not change. Captions have new shapes at every step, images always the
        same. `compiler` has further arguments for `torch.compile`.
        """
        self._texts.block = torch.compile(self._texts.block, dynamic=True, **compiler)
        self._images.block = torch.compile(self._images.block, **compiler)
        for name, layer in layer_modules(self.model).items():
            image = f"{name}.".startswith(VISION_PREFIX)
            layer.compile(dynamic=None if image else True, **compiler)

    def of_images(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of normalised images [B, 3, S, S], unit norm."""
        if not self.trained.vision:
            with torch.no_grad():
                return _unit(self._images(images))
        # With channels last, torch 2.14's backward pass on a CPU writes out of bounds for some
        # networks (MobileCLIP's FastViT), and the process crashes.
        on_cpu = images.device.type == "cpu"
        layout = torch.contiguous_format if on_cpu else self._layout
        return _unit(self.model.encode_image(images.contiguous(memory_format=layout)))

    def of_texts(self, texts: Tensor, plan: TextPlan | None = None) -> Tensor:
        """Return the features [B, N, D] of token ids [B, N, L], unit norm, encoded by a plan."""
        tokens = texts.flatten(0, 1)
        with _grad_if(self.trained.text):
            own = self.encode_text(tokens) if plan is None else self._texts.planned(tokens, plan)
            features = _unit(own)
        return features.unflatten(0, (texts.shape[0], texts.shape[1]))

    def forward(
        self,
        images: Tensor,
        positives: Tensor,
        negatives: Tensor | None = None,
        negative_mask: Tensor | None = None,
        negative_kinds: tuple[str, ...] = (),
        plan: TextPlan | None = None,
    ) -> Features:
        """Encode images [B, 3, S, S] (normalised) and captions, int64 [B, P, L] and [B, K, L].

        `negative_mask` is bool [B, K]; `negative_kinds` has the kind of each of the K negatives, or
        is empty; `plan` says how to encode all captions. The features are those of this rank, with
        unit norm in at least fp32.
        """
        slots = positives.shape[1]
        captions = positives if negatives is None else torch.cat([positives, negatives], dim=1)
        image_features, text_features = self.of_images(images), self.of_texts(captions, plan)
        return Features(
            image_features=image_features,
            positive_features=text_features[:, :slots],
            logit_scale=self.model.logit_scale.exp(),
            negative_features=None if negatives is None else text_features[:, slots:],
            negative_mask=negative_mask,
            logit_bias=getattr(self.model, "logit_bias", None),
            negative_kinds=negative_kinds,
        )


class LossModule(nn.Module):
    """The module that data-parallel training wraps: from a batch's tensors to its loss.

    It includes the objective of each kind of batch, so that the wrapper sees which features a loss
    does not use.
    """

    def __init__(self, features: FeatureExtractor, objectives: dict[Kind, Objective]) -> None:
        super().__init__()
        self.features, self.objectives = features, objectives

    def forward(
        self,
        images: Tensor,
        positives: Tensor,
        negatives: Tensor | None,
        negative_mask: Tensor | None,
        kind: Kind,
        negative_kinds: tuple[str, ...],
        base_images: Tensor | None = None,
        base_positives: Tensor | None = None,
        plan: TextPlan | None = None,
    ) -> LossOutput:
        """Return the loss of a batch; see `FeatureExtractor.forward`, `Batch` and `Features`."""
        features = self.features(images, positives, negatives, negative_mask, negative_kinds, plan)
        features = replace(features, base_images=base_images, base_positives=base_positives)
        return self.objectives[kind](features)


def _unit(features: Tensor) -> Tensor:
    # Norms in half precision would cost the third digit of a cosine.
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return F.normalize(features, dim=-1)
