"""Texts behind a causal mask, packed so that a beginning which several of them share runs once.

A token behind a causal mask depends on nothing but the tokens before it, so texts that begin alike
have equal states up to where they part: together they are a tree. A pack is a row of a fixed number
of tree nodes, of which each attends to its ancestors and itself. Nothing is padded but a pack's
end, and of SugarCrepe++'s tokens every fourth need not be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NODES = 128


@dataclass(frozen=True)
class Packs:
    """Texts as trees, the fullest pack first.

    Attributes:
        tokens: int64 [packs, S], token ids of the nodes.
        positions: int64 [packs, S], where in its text a node stands.
        mask: bool [packs, S, S], whether the first node attends to the second.
        ends: int64 [packs, Q], the nodes at which features are read, filled up with 0.
        rows: int64 [packs, Q], the text that each end belongs to, -1 where filled up.
        used: For each pack its number of nodes; those behind are padding.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor
    rows: Tensor
    used: list[int]


@dataclass(frozen=True)
class _Placed:
    """A text in a pack: its row, its nodes in the pack, and how many of them others made."""

    row: int
    nodes: np.ndarray
    shared: int


def pack(texts: Sequence[tuple[int, ...]], size: int = NODES) -> Packs:
    """Put texts into packs, those that begin alike beside each other.

    Args:
        texts: Token ids of each text up to and including the one at which its feature is read.
        size: Nodes S of a pack, at least the length of the longest text.

    Raises:
        ValueError: There are no texts, or one is empty or longer than a pack.
    """
    if not texts or not all(0 < len(text) <= size for text in texts):
        raise ValueError(f"there must be texts, each of 1 to {size} tokens")
    packs = _place(texts, size)
    packs.sort(key=lambda placed: -_used(placed))
    count = len(packs)
    tokens, positions = np.zeros((count, size), np.int64), np.zeros((count, size), np.int64)
    mask = np.zeros((count, size, size), dtype=bool)
    mask[:, range(size), range(size)] = True  # a node without any key would become NaN
    ends = np.zeros((count, max(map(len, packs))), np.int64)
    rows = np.full_like(ends, -1)
    causal, steps = np.tri(size, dtype=bool), np.arange(size)
    for number, placed in enumerate(packs):
        for column, text in enumerate(placed):
            length, new = len(text.nodes), text.nodes[text.shared :]
            tokens[number, new] = texts[text.row][text.shared :]
            positions[number, new] = steps[text.shared : length]
            mask[number, new[:, None], text.nodes] = causal[text.shared : length, :length]
            ends[number, column], rows[number, column] = text.nodes[-1], text.row
    return Packs(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        mask=torch.from_numpy(mask),
        ends=torch.from_numpy(ends),
        rows=torch.from_numpy(rows),
        used=[_used(placed) for placed in packs],
    )


def _place(texts: Sequence[tuple[int, ...]], size: int) -> list[list[_Placed]]:
    """Return the texts of each pack, in the order of their tokens."""
    packs: list[list[_Placed]] = []
    used, before = 0, texts[0]
    for row in sorted(range(len(texts)), key=texts.__getitem__):
        text = texts[row]
        shared = _common(before, text)
        if not packs or used + len(text) - shared > size:
            packs.append([])
            used = shared = 0
        path = packs[-1][-1].nodes[:shared] if shared else np.empty(0, np.int64)
        nodes = np.append(path, np.arange(used, used + len(text) - shared))
        packs[-1].append(_Placed(row, nodes, shared))
        used, before = used + len(text) - shared, text
    return packs


def _used(placed: Sequence[_Placed]) -> int:
    return sum(len(text.nodes) - text.shared for text in placed)


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Return the number of tokens at the beginning that two texts share."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))
