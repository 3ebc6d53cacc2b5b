"""From a batch to unit-norm features: the forward pass of training."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clic.models.towers import OpenClip, TextEncoder, Trained, frozen
from clic.types import Batch, Features


class FeatureExtractor(nn.Module):
    """The module that data-parallel training wraps: images and captions in, `Features` out.

    Args:
        model: open_clip's module.
        trained: Which of its towers train; a frozen one runs without gradient.
    """

    def __init__(self, model: OpenClip, trained: Trained) -> None:
        super().__init__()
        self.encode_text = TextEncoder(model)
        self.trained = trained

    @property
    def model(self) -> OpenClip:
        """open_clip's module."""
        return self.encode_text.model

    def trim(self, batch: Batch) -> Batch:
        """Return a batch on the CPU without padding behind its longest caption, where exact.

        Before the batch goes to a GPU, because finding the length there would wait for it.
        """
        if batch.negatives is None:
            return replace(batch, positives=self.encode_text.trim(batch.positives))
        texts = self.encode_text.trim(torch.cat([batch.positives, batch.negatives], dim=1))
        slots = batch.positives.shape[1]
        return replace(batch, positives=texts[:, :slots], negatives=texts[:, slots:])

    def forward(
        self,
        images: Tensor,
        positives: Tensor,
        negatives: Tensor | None = None,
        negative_mask: Tensor | None = None,
    ) -> Features:
        """Encode both sides.

        Args:
            images: [B, 3, S, S], normalised.
            positives: int64 [B, P, L].
            negatives: int64 [B, K, L] or None.
            negative_mask: bool [B, K] or None.

        Returns:
            Features of this rank, unit norm in at least fp32.
        """
        with frozen(not self.trained.vision):
            image_features = _unit(self.model.encode_image(images))
        count, slots = positives.shape[:2]
        captions = positives if negatives is None else torch.cat([positives, negatives], dim=1)
        with frozen(not self.trained.text):
            text_features = _unit(self.encode_text(captions.flatten(0, 1)))
        text_features = text_features.unflatten(0, (count, captions.shape[1]))
        logit_bias = getattr(self.model, "logit_bias", None)
        return Features(
            image_features=image_features,
            positive_features=text_features[:, :slots],
            logit_scale=self.model.logit_scale.exp(),
            negative_features=None if negatives is None else text_features[:, slots:],
            negative_mask=negative_mask,
            logit_bias=logit_bias,
        )


def _unit(features: Tensor) -> Tensor:
    # Half-precision norms lose the third digit of a cosine, so normalise in fp32.
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return F.normalize(features, dim=-1)
