"""Drawing one of many candidates, in an order that only the generator decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


def below(count: int, rng: np.random.Generator) -> int:
    """Return a number from 0 to `count` - 1, each equally likely.

    A third of the time of ``rng.integers``; the bias is below `count` / 2**53.
    """
    return int(rng.random() * count)


class Candidates(Protocol[T_co]):
    """What has a length and elements by number: a list, or `Pairs`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


class Pairs(Generic[A, B]):
    """All pairs of an element of `left` and one of `right`, made when they are asked for."""

    def __init__(self, left: Sequence[A], right: Sequence[B]) -> None:
        self.left, self.right = left, right

    def __len__(self) -> int:
        return len(self.left) * len(self.right)

    def __getitem__(self, index: int, /) -> tuple[A, B]:
        row, column = divmod(index, len(self.right))
        return self.left[row], self.right[column]


def shuffled(groups: Sequence[Candidates[T]], rng: np.random.Generator) -> Iterator[T]:
    """Yield every candidate once: each time a group with candidates left, then one of them."""
    left = [group for group in groups if len(group)]
    drawn: list[set[int]] = [set() for _ in left]
    while left:
        g = below(len(left), rng)
        group, seen = left[g], drawn[g]
        i = below(len(group), rng)
        while i in seen:
            i = (i + 1) % len(group)
        seen.add(i)
        if len(seen) == len(group):
            del left[g], drawn[g]
        yield group[i]


def first_valid(
    groups: Sequence[Candidates[T]], build: Callable[[T], R | None], rng: np.random.Generator
) -> R | None:
    """Return what `build` makes of the first drawn candidate that it accepts, or None."""
    left = [group for group in groups if len(group)]
    if not left:
        return None
    # Most first draws are good, so that nothing need be remembered of them.
    group = left[below(len(left), rng)]
    made = build(group[below(len(group), rng)])
    if made is not None:
        return made
    for candidate in shuffled(left, rng):
        made = build(candidate)
        if made is not None:
            return made
    return None
