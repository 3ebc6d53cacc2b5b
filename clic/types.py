"""The records passed between layers, with their tensor shapes, and the words for relations.

Letters: B images on a rank, W ranks, P positives, K hard negatives, D embedding width, L tokens,
S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Kind = Literal["composite", "single"]
KINDS: tuple[Kind, ...] = ("composite", "single")

Relation = Literal["left", "right", "above", "below"]
INVERSE: dict[Relation, Relation] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}
RELATION_PHRASES: dict[Relation, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
"""The phrases of each relation, which are synonyms."""
INVERSE_PHRASE = {
    phrase: RELATION_PHRASES[inverse][min(number, len(RELATION_PHRASES[inverse]) - 1)]
    for relation, inverse in INVERSE.items()
    for number, phrase in enumerate(RELATION_PHRASES[relation])
}
"""The phrase at the same position of the inverse relation, or its last: "over" gives "under"."""


class Token(NamedTuple):
    """One word of a caption: `text == caption[start:end]`, with its universal POS tag and lemma."""

    text: str
    start: int
    end: int
    pos: str
    lemma: str


class Edit(NamedTuple):
    """A replacement: `old` was at `span` (start and end character) of caption `caption`.

    Caption 0 is the only caption, or the first positive of a composite. When words are swapped
    between images, `caption` is the number of the image.
    """

    caption: int
    span: tuple[int, int]
    old: str
    new: str


@dataclass(frozen=True)
class HardNegative:
    """A false caption, and the edits that made it from a true one."""

    text: str
    kind: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class RowCaptions:
    """The P true captions of one row, and a false one of each kind, or None if none could be made.

    `retagged` counts captions that were tagged because their stored tags were missing, and
    `shortened` the true captions that leave images out because the context is too short.
    """

    positives: tuple[str, ...]
    negatives: tuple[HardNegative | None, ...]
    retagged: int = 0
    shortened: int = 0


@dataclass(frozen=True)
class Sample:
    """One image with its true captions, as read from a source.

    Attributes:
        key: Unique name within the source, used in messages and to look up neighbours.
        image: Encoded image bytes (JPEG, PNG, ...) or decoded pixels, uint8 [H, W, 3] RGB.
        captions: True sentences; plain CLIP training uses the first.
        tags: The stored tokens of each caption, or of the first of them; None if none are stored,
            an empty tuple if the stored ones belong to other captions.
        negatives: Stored false captions, if the source reads them.
    """

    key: str
    image: bytes | np.ndarray
    captions: tuple[str, ...]
    tags: tuple[tuple[Token, ...], ...] | None = None
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Counts gathered while batches are built; they may be summed over steps and ranks.

    Attributes:
        samples: Samples read, substitutes included.
        broken: Samples that could not be used.
        captions: True and false captions.
        cut: Captions truncated to the text tower's context.
        no_negative: Rows without a false caption.
        retagged: Captions tagged again because their stored tags were missing or did not match.
        joined: True captions of composites.
        shortened: Joined captions that leave out images because the context is too short.
        foreign: Rows without a false caption whose true caption is not in Latin script.
        shards: Shards of a stream that were read to the end or abandoned.
        broken_shards: Shards that were abandoned.
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
    shards: int = 0
    broken_shards: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Return the sums."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Fault(NamedTuple):
    """An unusable sample, by its number in the source; `reason` names its key.

    A negative number stands for a shard of a stream, which yields no more samples.
    """

    number: int
    reason: str


@dataclass(frozen=True)
class TextPlan:
    """How a text tower encodes N texts with less work; made on the CPU, used on the device."""

    def to(self, device: torch.device) -> TextPlan:
        """Return the plan on `device`, without blocking if it is in pinned memory."""
        return replace(
            self, **{k: v.to(device, non_blocking=True) for k, v in _tensors(self).items()}
        )

    def pin_memory(self) -> TextPlan:
        """Return the plan in page-locked memory."""
        return replace(self, **{k: v.pin_memory() for k, v in _tensors(self).items()})


@dataclass(frozen=True)
class TextPacks(TextPlan):
    """Texts as trees of tokens: texts that begin alike share the nodes of their beginning.

    A pack contains one tree after another, each in depth-first order, so that the places that
    attend to a node are a contiguous range starting at its own.

    Attributes:
        tokens: int64 [T], the token ids of all nodes, without padding.
        positions: int64 [T], the position of each node in its text.
        grid: int64 [packs, S], the node at each place of a pack; node 0 where there is none.
        until: int64 [packs, S], the last place of its pack that attends to each place.
        places: int64 [T], the index of each node in the flattened grid.
        ends: int64 [N], the node at which each text's feature is read.
        readers: int64 [packs, Q], the texts that are read in a pack; text 0 where there is none.
        read_at: int64 [packs, Q], the places in the pack at which they are read.
        reads: int64 [N], the index of each text in the flattened readers.
    """

    tokens: Tensor
    positions: Tensor
    grid: Tensor
    until: Tensor
    places: Tensor
    ends: Tensor
    readers: Tensor
    read_at: Tensor
    reads: Tensor

    def mask(self) -> Tensor:
        """Return whether the first place of a pack attends to the second, bool [packs, S, S]."""
        place = torch.arange(self.until.shape[1], device=self.until.device)
        return (place[:, None] >= place) & (place[:, None] <= self.until[:, None])


@dataclass(frozen=True)
class TextGroups(TextPlan):
    """Texts in groups of similar length, each truncated to its longest text.

    Attributes:
        order: int64 [N], the texts from the shortest to the longest.
        back: int64 [N], the index of each text in this order.
        sizes: The number of texts of each group, and their length in tokens.
    """

    order: Tensor
    back: Tensor
    sizes: tuple[tuple[int, int], ...]


def _tensors(record: Any) -> dict[str, Tensor]:
    return {name: value for name, value in vars(record).items() if isinstance(value, Tensor)}


@dataclass
class Batch:
    """The data that a rank trains on in one step.

    Attributes:
        images: uint8 [B, S, S, 3], RGB, before `clic.images.normalise`.
        mean: Mean of each channel for normalisation, for pixel values from 0 to 1.
        std: Standard deviation of each channel.
        positives: int64 [B, P, L] token ids of the true captions.
        negatives: int64 [B, K, L] token ids of the false captions, None if K = 0.
        negative_mask: bool [B, K], True where there is a negative, None if K = 0.
        kind: Whether the images are composites or single images.
        step: Global step, from 0.
        keys: The keys of each row's samples.
        tally: Counts gathered while the batch was built.
        faults: The samples that were replaced.
        negative_kinds: The kind of each of the K negatives, by slot, such as `("cross_swap",
            "layout")`; empty if the slots have no names.
        examples: The captions of the first rows as text, for display.
        text_plans: How the text tower encodes the captions, [B, P + K] row by row, with less work:
            a plan for each chunk of rows that is encoded at once. Empty to encode them as they are.
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
    examples: tuple[RowCaptions, ...] = ()
    text_plans: tuple[TextPlan, ...] = ()

    @property
    def texts(self) -> Tensor:
        """All captions, true and false, int64 [B, P + K, L]."""
        if self.negatives is None:
            return self.positives
        return torch.cat([self.positives, self.negatives], dim=1)

    @property
    def text_plan(self) -> TextPlan | None:
        """The plan of a batch that is encoded at once."""
        if not self.text_plans:
            return None
        (plan,) = self.text_plans
        return plan

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, without those that are None."""
        return _tensors(self)

    def rows(self, start: int, stop: int) -> Batch:
        """Return a batch of some of the rows, without a plan."""
        cut = {name: value[start:stop] for name, value in self.tensors().items()}
        return replace(self, keys=self.keys[start:stop], text_plans=(), **cut)  # type: ignore[arg-type]

    def chunks(self, size: int) -> list[Batch]:
        """Return batches of `size` rows, the last of which may have fewer, each with its plan."""
        starts = range(0, self.images.shape[0], size)
        parts = [self.rows(start, start + size) for start in starts]
        if not self.text_plans:
            return parts
        pairs = zip(parts, self.text_plans, strict=True)
        return [replace(part, text_plans=(plan,)) for part, plan in pairs]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`, without blocking if it is in pinned memory."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors().items()}
        plans = tuple(plan.to(device) for plan in self.text_plans)
        return replace(self, text_plans=plans, **moved)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; torch's DataLoader calls this."""
        pinned = {k: v.pin_memory() for k, v in self.tensors().items()}
        plans = tuple(plan.pin_memory() for plan in self.text_plans)
        return replace(self, text_plans=plans, **pinned)  # type: ignore[arg-type]


@dataclass
class Features:
    """A model's features of a batch, local to the rank.

    Attributes:
        image_features: [B, D], unit norm.
        positive_features: [B, P, D], unit norm.
        logit_scale: Scalar, already exponentiated.
        negative_features: [B, K, D], unit norm, None if K = 0.
        negative_mask: bool [B, K], True where there is a negative; None means all are valid.
        logit_bias: Scalar of sigmoid models (SigLIP), otherwise None.
        negative_kinds: The kind of each of the K negatives, by slot, the same on every rank; empty
            if the slots have no names.
        base_images: [B, D], the frozen base model's features of the images, unit norm and without
            gradient; None if they are not needed or the vision tower does not train.
        base_positives: [B, P, D], the same for the true captions.
    """

    image_features: Tensor
    positive_features: Tensor
    logit_scale: Tensor
    negative_features: Tensor | None = None
    negative_mask: Tensor | None = None
    logit_bias: Tensor | None = None
    negative_kinds: tuple[str, ...] = ()
    base_images: Tensor | None = None
    base_positives: Tensor | None = None


@dataclass
class LossOutput:
    """A scalar to minimise and its named parts.

    Attributes:
        total: Scalar with gradient; its mean over ranks is the loss of the whole batch.
        terms: The terms that were computed: detached scalars by name, unweighted.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
