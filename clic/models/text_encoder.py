"""From token ids to text features: how much of a text a tower needs, and how to do less work.

A `ReadingRule` says where a tower reads its feature and how much of a text it needs; `TextEncoder`
drops the padding after that. `TextPlanner` goes further: it packs texts as trees, or puts them into
groups of similar length. Plans are made on the CPU, in the loader's workers, and travel
with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from clic.types import Batch, TextGroups, TextPacks, TextPlan

OpenClip = Any
"""An open_clip module; open_clip does not declare the types of its attributes."""
NODES = 128
"""Places of a pack, more only if a text is longer: larger packs would only widen attention."""
GROUPS = 4
"""Groups of texts of similar length; more would save little."""


@dataclass(frozen=True)
class ReadingRule:
    """How far a text tower reads a row of token ids; it has no weights, so any process can use it.

    Attributes:
        pool: open_clip's name for the token at which the feature is read.
        end: The id of the end-of-text token, for a tower that looks for it.
        padding: The id of the padding, for a tower that masks it.
        can_trim: Whether the tokens after the end of a text may be dropped.
    """

    pool: str | None
    end: int | None
    padding: int | None
    can_trim: bool

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the index of each text's end-of-text token, int64 [...], as the tower finds it.

        Counting the tokens that are not padding would be wrong: in CLIP's vocabulary, the
        padding's id 0 is also the id of "!".
        """
        if self.pool == "argmax" or self.end is None:
            return tokens.argmax(dim=-1)
        return tokens.eq(self.end).int().argmax(dim=-1)

    def lengths(self, tokens: Tensor) -> Tensor:
        """Return how many tokens of each text the tower needs, int64 [...], at least 1."""
        length = tokens.shape[-1]
        if not self.can_trim:
            return tokens.new_full(tokens.shape[:-1], length)
        if self.padding is None:
            return self.ends(tokens) + 1
        behind = tokens.ne(self.padding).flip(-1).int()  # the first 1 is the last token
        used = length - behind.argmax(-1)
        return used.masked_fill(~behind.any(-1), 1)

    def texts(self, tokens: Tensor) -> list[tuple[int, ...]]:
        """Return the token ids that the tower needs from each text of int64 [N, L]."""
        pairs = zip(tokens.tolist(), self.lengths(tokens).tolist(), strict=True)
        return [tuple(row[:length]) for row, length in pairs]

    def trim(self, tokens: Tensor) -> Tensor:
        """Return token ids [..., L] cut after the end of the longest text, if that is exact."""
        return tokens[..., : int(self.lengths(tokens).max())] if self.can_trim else tokens


def reading_rule(model: OpenClip) -> ReadingRule:
    """Return how far a model's text tower reads."""
    tower: OpenClip = getattr(model, "text", model)
    pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
    padding = tower.config.pad_token_id if _is_hugging_face(tower) else None
    causal = (
        getattr(tower, "attn_mask", None) is not None
        and pool in ("argmax", "eos")
        and getattr(tower, "cls_emb", None) is None
        and not getattr(tower, "use_pad_mask", False)
    )
    end = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
    return ReadingRule(pool, end, padding, padding is not None or causal)


def _is_hugging_face(tower: nn.Module) -> bool:
    """Return whether a text tower is open_clip's wrapper around one of transformers."""
    from open_clip.hf_model import HFTextEncoder

    return isinstance(tower, HFTextEncoder)


class TextEncoder(nn.Module):
    """Encodes token ids without the padding after the longest text, if that is exact.

    With a causal mask a token does not depend on later ones, so if the feature is read at the
    end-of-text token, everything after the end of the longest text can be dropped. A Hugging Face
    tower masks its padding in attention and pooling alike, so padding common to all texts can be
    dropped too. Other towers (bidirectional, or pooled elsewhere) get the full context.
    """

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model
        tower: OpenClip = getattr(model, "text", model)
        self._prefix = "model.text." if tower is not model else "model."
        self._tower: list[OpenClip] = [tower]  # a list, so that it is not registered twice
        self.rule = reading_rule(model)

    @property
    def can_trim(self) -> bool:
        """Whether the tokens after the end of the longest text are dropped."""
        return self.rule.can_trim

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the text features [N, D], not normalised, of token ids [N, L], whole or trimmed.

        Tokens on a GPU keep their width, because finding the longest text there would wait for
        the GPU: trim them first.
        """
        if tokens.device.type == "cpu":
            tokens = self.rule.trim(tokens)
        length, tower = tokens.shape[-1], self._tower[0]
        if self.rule.padding is not None or not self.can_trim:
            return self.model.encode_text(tokens)
        if length == len(tower.positional_embedding):
            return self.model.encode_text(tokens)
        trimmed = {
            f"{self._prefix}positional_embedding": tower.positional_embedding[:length],
            f"{self._prefix}attn_mask": tower.attn_mask[:length, :length],
        }
        return functional_call(_Encode(self.model), trimmed, (tokens,))


class _Encode(nn.Module):
    """`encode_text` as the `forward` that `functional_call` needs."""

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


@dataclass(frozen=True)
class TextPlanner:
    """Trims the padding of a batch's captions and plans how to encode them; it can be pickled.

    Attributes:
        rule: How far the text tower reads.
        packs: Whether the tower can read packs.
        rows: Rows of a batch to encode at once; None means all of them.
        plans: Whether to make plans at all.
    """

    rule: ReadingRule
    packs: bool
    rows: int | None = None
    plans: bool = True

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch on the CPU with plans, without the padding after its longest caption."""
        if batch.text_plans or not self.rule.can_trim:
            return batch
        texts, slots = self.rule.trim(batch.texts), batch.positives.shape[1]
        batch = replace(batch, positives=texts[:, :slots].contiguous())
        if batch.negatives is not None:
            batch = replace(batch, negatives=texts[:, slots:].contiguous())
        if not self.plans:
            return batch
        parts = texts.split(self.rows or len(texts))
        return replace(batch, text_plans=tuple(self.plan(part.flatten(0, 1)) for part in parts))

    def plan(self, tokens: Tensor) -> TextPlan:
        """Return the plan for token ids, int64 [N, L]."""
        return pack(self.rule.texts(tokens)) if self.packs else group(self.rule.lengths(tokens))


def group(lengths: Tensor, groups: int = GROUPS) -> TextGroups:
    """Split texts of lengths int64 [N] evenly by length; groups of the same length are merged."""
    ordered, order = lengths.sort(stable=True)
    sizes: dict[int, int] = {}  # number of texts by the length they are cut to
    for part in ordered.tensor_split(min(groups, len(ordered))):
        longest = int(part[-1])
        sizes[longest] = sizes.get(longest, 0) + len(part)
    return TextGroups(order, order.argsort(), tuple((n, length) for length, n in sizes.items()))


def pack(texts: Sequence[tuple[int, ...]], size: int = NODES) -> TextPacks:
    """Put texts into packs of `size` places, so that texts with a common prefix are together.

    Each text has its token ids up to the token at which its feature is read. A text that is
    longer than `size` makes all packs as long as itself.

    Raises:
        ValueError: There are no texts, or one is empty.
    """
    ((_, packs),) = pack_groups(texts, len(texts), size)
    return packs


def pack_groups(
    texts: Sequence[tuple[int, ...]], at_once: int, size: int = NODES
) -> Iterator[tuple[list[int], TextPacks]]:
    """Yield packs, `at_once` at a time, with the numbers of the texts in them, sorted; see `pack`.

    Raises:
        ValueError: There are no texts, or one is empty.
    """
    if not texts or not all(texts):
        raise ValueError("there must be texts, each of at least one token")
    packs = _place(texts, max(size, *map(len, texts)))
    for start in range(0, len(packs), at_once):
        yield _packed(texts, packs[start : start + at_once])


_Placed = tuple[int, np.ndarray, int]
"""A text in a pack: its number, its places, and how many of them it shares with earlier texts."""


def _place(texts: Sequence[tuple[int, ...]], size: int) -> list[list[_Placed]]:
    """Return the texts of each pack, sorted by their tokens."""
    packs: list[list[_Placed]] = []
    used, before = 0, texts[0]
    for row in sorted(range(len(texts)), key=texts.__getitem__):
        text = texts[row]
        pairs = enumerate(zip(before, text, strict=False))
        shared = next((at for at, (a, b) in pairs if a != b), min(len(before), len(text)))
        if not packs or used + len(text) - shared > size:
            packs.append([])
            used = shared = 0
        path = packs[-1][-1][1][:shared] if shared else np.empty(0, np.int64)
        places = np.append(path, np.arange(used, used + len(text) - shared))
        packs[-1].append((row, places, shared))
        used, before = used + len(text) - shared, text
    return packs


def _packed(
    texts: Sequence[tuple[int, ...]], packs: Sequence[Sequence[_Placed]]
) -> tuple[list[int], TextPacks]:
    """Return the numbers of the texts in some packs, sorted, and these packs."""
    rows = sorted(row for placed in packs for row, _, _ in placed)
    numbers = {row: number for number, row in enumerate(rows)}
    used = [sum(len(places) - shared for _, places, shared in placed) for placed in packs]
    count, size, most = len(packs), max(used), max(map(len, packs))
    tokens: list[int] = []
    positions: list[int] = []
    grid, until = np.zeros((count, size), np.int64), np.tile(np.arange(size), (count, 1))
    readers, read_at = np.zeros((count, most), np.int64), np.zeros((count, most), np.int64)
    ends, reads = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for pack_number, placed in enumerate(packs):
        first = len(tokens)
        for column, (row, places, shared) in enumerate(placed):
            tokens += texts[row][shared:]
            positions += range(shared, len(places))
            until[pack_number, places] = places[-1]  # the deepest so far, as trees are depth first
            readers[pack_number, column] = numbers[row]
            read_at[pack_number, column] = places[-1]
            ends[numbers[row]] = first + places[-1]
            reads[numbers[row]] = pack_number * most + column
        grid[pack_number, : used[pack_number]] = np.arange(first, len(tokens))
    filled = [p * size + at for p, length in enumerate(used) for at in range(length)]
    flat = {"tokens": tokens, "positions": positions, "places": filled}
    arrays = {name: torch.tensor(values) for name, values in flat.items()}
    whole = {"grid": grid, "until": until, "readers": readers, "read_at": read_at}
    whole |= {"ends": ends, "reads": reads}
    arrays |= {name: torch.from_numpy(array) for name, array in whole.items()}
    return rows, TextPacks(**arrays)
