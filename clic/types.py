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
    """One changed part: `old` stood at `span` (start, end characters) of caption `caption`.

    Caption 0 is the only one, or the first positive of a composite; where words of several images
    swap, it is the image's number.
    """

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
        tags: For each caption, or the first of them, the tokens that were stored with it; None
            where none were, and empty where those that were belong to other captions.
        negatives: False captions that were stored with it, where the source reads them.
    """

    key: str
    image: bytes | np.ndarray
    captions: tuple[str, ...]
    tags: tuple[tuple[Token, ...], ...] | None = None
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tally:
    """What was met while batches were built; sums over steps and ranks have a meaning.

    Attributes:
        samples: Samples that were read, substitutes included.
        broken: Of these, those that could not be used.
        captions: True and false captions.
        cut: Of these, those that the text tower's context cuts.
        no_negative: Rows without any false caption.
        retagged: Captions that were to have stored tags, had none of their own, and were tagged.
        joined: True captions of composites.
        shortened: Of these, those that leave images out, for want of context.
        foreign: Rows without any false caption whose true one is not in Latin script.
    """

    samples: int = 0
    broken: int = 0
    captions: int = 0
    cut: int = 0
    no_negative: int = 0
    retagged: int = 0
    joined: int = 0
    shortened: int = 0
    foreign: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Return the sums."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Fault(NamedTuple):
    """A sample that could not be used, by its number in the source; `reason` names its key."""

    number: int
    reason: str


@dataclass
class Batch:
    """What a rank trains on in one step.

    Attributes:
        images: uint8 [B, S, S, 3], RGB; `clic.images.normalise` makes them the tower's input.
        mean: Of each channel, of pixels in 0 to 1, to normalise with.
        std: Likewise the standard deviation.
        positives: int64 [B, P, L] token ids of the true captions.
        negatives: int64 [B, K, L] token ids of the false captions, None where K = 0.
        negative_mask: bool [B, K], True where there is a negative, None where K = 0.
        kind: How the images were made.
        step: Global step, from 0.
        keys: For each row the keys of the samples it was made from.
        tally: What was met while it was built.
        faults: The samples that were replaced.
        negative_kinds: The kind of each of the K negatives, by slot, such as `("cross_swap",
            "layout")`; empty where the slots have no names.
    """

    images: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    positives: Tensor
    negatives: Tensor | None
    negative_mask: Tensor | None
    kind: Kind
    step: int
    keys: list[tuple[str, ...]] = field(default_factory=list)
    tally: Tally = Tally()
    faults: tuple[Fault, ...] = ()
    negative_kinds: tuple[str, ...] = ()

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
        negative_kinds: The kind of each of the K negatives, by slot, the same on every rank; empty
            where the slots have no names.
    """

    image_features: Tensor
    positive_features: Tensor
    logit_scale: Tensor
    negative_features: Tensor | None = None
    negative_mask: Tensor | None = None
    logit_bias: Tensor | None = None
    negative_kinds: tuple[str, ...] = ()


@dataclass
class LossOutput:
    """A scalar to minimise and its named parts.

    Attributes:
        total: Scalar with gradient; its mean over ranks is the loss of the whole batch.
        terms: Detached scalars by name, unweighted; a term that was not computed is absent.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
