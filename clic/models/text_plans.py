"""How texts are read with less work: packed as trees, or in groups of similar length.

The plans are made on the CPU, in the loader's workers, and travel with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clic.models.text_encoder import ReadingRule
from clic.types import Batch, TextGroups, TextPacks, TextPlan

NODES = 128
"""Places of a pack, or as many as the longest text has: more would only widen attention."""
GROUPS = 4
"""Groups of texts of similar length; more would save little."""


@dataclass(frozen=True)
class TextPlanner:
    """Cuts the padding of a batch's captions and plans how they are read; it can be pickled.

    Attributes:
        rule: How far the text tower reads.
        packs: Whether the tower can read packs.
        rows: Rows of a batch that are encoded at once; None is all of them.
        plans: Whether to make plans at all.
    """

    rule: ReadingRule
    packs: bool
    rows: int | None = None
    plans: bool = True

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch on the CPU with plans, and without the padding behind all its captions."""
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
    """Return texts of the given lengths, int64 [N], in groups of equal numbers or lengths."""
    ordered, order = lengths.sort(stable=True)
    sizes: dict[int, int] = {}  # of each length that texts are cut to, their number
    for part in ordered.tensor_split(min(groups, len(ordered))):
        longest = int(part[-1])
        sizes[longest] = sizes.get(longest, 0) + len(part)
    return TextGroups(order, order.argsort(), tuple((n, length) for length, n in sizes.items()))


def pack(texts: Sequence[tuple[int, ...]], size: int = NODES) -> TextPacks:
    """Put texts into packs of `size` places, so that texts that begin alike are together.

    Each text has its token ids up to the token at which its feature is read. A text that is
    longer than `size` makes all packs as long.

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
"""A text in a pack: its number, its places, and how many of them earlier texts have taken."""


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
