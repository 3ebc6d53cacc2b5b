"""The model that a run starts from, kept frozen beside it for self-distillation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from clic.models import ClipModel, FeatureExtractor, Trained
from clic.types import TextPlan


class FrozenBase:
    """Computes the features of a model as it is now, however it is trained later.

    Only buffers and trained parameters are copied; frozen ones are shared with the model. It is in
    no checkpoint: a resumed run makes it again from its base, before loading the checkpoint.

    Args:
        clip: The base model, on its device, with parameters that do not train already frozen.
        trained: Which of its towers train; the features of the others cannot move.

    Attributes:
        features: Its feature extractor.
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
        """Return the features of images and captions, unit norm, from the towers that train.

        Args:
            images: [B, 3, S, S], normalised.
            texts: Token ids, int64 [B, N, L].
            plan: How they are encoded.

        Returns:
            [B, D] and [B, N, D], each None if its tower does not train.
        """
        return (
            self.features.of_images(images) if self.trained.vision else None,
            self.features.of_texts(texts, plan) if self.trained.text else None,
        )
