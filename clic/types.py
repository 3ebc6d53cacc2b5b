"""The records that travel between the layers, with their shapes stated once.

Letters: B images on a rank, W ranks, P positives, K hard negatives, D embedding width, L tokens,
S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Kind = Literal["composite", "single"]
KINDS: tuple[Kind, ...] = ("composite", "single")


class Token(NamedTuple):
    """One word of a caption: `text == caption[start:end]`, with its universal POS tag and lemma."""

    text: str
    start: int
    end: int
    pos: str
    lemma: str


class Edit(NamedTuple):
    """One changed part: `old` stood at `span` (start, end characters) of caption `caption`."""

    caption: int
    span: tuple[int, int]
    old: str
    new: str


@dataclass(frozen=True)
class HardNegative:
    """A false caption close to a true one, and what was changed to make it."""

    text: str
    kind: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Sample:
    """One image with its true captions, as a source gives it.

    Attributes:
        key: Name that is unique within the source, for messages and for `neighbours`.
        image: Encoded image bytes (JPEG, PNG, ...) or decoded pixels, uint8 [H, W, 3] RGB.
        captions: True sentences, the first one being the caption of plain CLIP training.
        tags: For each caption the tokens that were stored with it, or None where none were.
    """

    key: str
    image: bytes | np.ndarray
    captions: tuple[str, ...]
    tags: tuple[tuple[Token, ...], ...] | None = None


@dataclass
class Batch:
    """What a rank trains on in one step.

    Attributes:
        images: float32 [B, 3, S, S], normalised.
        positives: int64 [B, P, L] token ids of the true captions.
        negatives: int64 [B, K, L] token ids of the false captions, None where K = 0.
        negative_mask: bool [B, K], True where there is a negative, None where K = 0.
        kind: How the images were made.
        step: Global step, from 0.
        keys: For each row the keys of the samples it was made from.
    """

    images: Tensor
    positives: Tensor
    negatives: Tensor | None
    negative_mask: Tensor | None
    kind: Kind
    step: int
    keys: list[tuple[str, ...]] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those that are None left out."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in pairs if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; from pinned memory the copy does not block."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (the name that torch's DataLoader looks for)."""
        return replace(self, **{k: v.pin_memory() for k, v in self.tensors().items()})  # type: ignore[arg-type]


@dataclass
class Features:
    """What a model makes of a batch, local to the rank.

    Attributes:
        image_features: [B, D], unit norm.
        positive_features: [B, P, D], unit norm.
        logit_scale: Scalar, already exponentiated.
        negative_features: [B, K, D], unit norm, None where K = 0.
        negative_mask: bool [B, K], True where there is a negative; None means all are valid.
        logit_bias: Scalar of sigmoid models (SigLIP), else None.
    """

    image_features: Tensor
    positive_features: Tensor
    logit_scale: Tensor
    negative_features: Tensor | None = None
    negative_mask: Tensor | None = None
    logit_bias: Tensor | None = None


@dataclass
class LossOutput:
    """A scalar to minimise and its named parts.

    Attributes:
        total: Scalar with gradient; its mean over ranks is the loss of the whole batch.
        terms: Detached scalars by name, unweighted; a term that was not computed is absent.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
