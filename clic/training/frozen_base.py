"""The model that a run starts from, kept frozen beside it for self-distillation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from clic.models import ClipModel, FeatureExtractor, Trained
from clic.types import TextPlan


class FrozenBase:
    """The features of a model as it is now, whatever is trained of it later.

    Only the parameters that train are copied, and the buffers; frozen ones are shared with the
    model. It belongs to no checkpoint: a resumed run makes it again from its base, before the
    checkpoint's weights are loaded.

    Args:
        clip: The base model, on its device, with what does not train already frozen.
        trained: Which of its towers train; the features of the others cannot move.

    Attributes:
        features: What makes its features.
    """

    def __init__(self, clip: ClipModel, trained: Trained) -> None:
        frozen = {id(p): p for p in clip.model.parameters() if not p.requires_grad}
        model = copy.deepcopy(clip.model, frozen).requires_grad_(False).eval()
        self.trained = trained
        self.features = FeatureExtractor(model, Trained(vision=False, text=False))

    @torch.no_grad()
    def __call__(
        self, images: Tensor, texts: Tensor, plan: TextPlan | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the features of images and of captions, unit norm, of what trains.

        Args:
            images: [B, 3, S, S], normalised.
            texts: Token ids, int64 [B, N, L].
            plan: How they are read.

        Returns:
            [B, D] and [B, N, D], each None where its tower does not train.
        """
        return (
            self.features.of_images(images) if self.trained.vision else None,
            self.features.of_texts(texts, plan) if self.trained.text else None,
        )
