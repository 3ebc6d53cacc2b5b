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
        g = int(rng.integers(len(left)))
        group, seen = left[g], drawn[g]
        i = int(rng.integers(len(group)))
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
    return next((made for c in shuffled(groups, rng) if (made := build(c)) is not None), None)
