"""The samples of a shuffle buffer by orientation, from which partners are drawn."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import numpy as np


class Oriented(Protocol):
    """Anything with an orientation and a number of its own."""

    @property
    def number(self) -> int:
        """Its number, which no other has."""

    @property
    def landscape(self) -> bool:
        """Whether it is landscape; otherwise it is portrait."""


T = TypeVar("T", bound=Oriented)


class OrientationPool(Generic[T]):
    """Adds, removes and draws in constant time."""

    def __init__(self) -> None:
        self._members: dict[bool, list[T]] = {True: [], False: []}
        self._places: dict[int, int] = {}

    def count(self, landscape: bool) -> int:
        """Return the number of samples of an orientation."""
        return len(self._members[landscape])

    def add(self, sample: T) -> None:
        """Add a sample."""
        members = self._members[sample.landscape]
        self._places[sample.number] = len(members)
        members.append(sample)

    def remove(self, sample: T) -> None:
        """Remove a sample; the last of its orientation takes its place."""
        members = self._members[sample.landscape]
        place, last = self._places.pop(sample.number), members.pop()
        if last.number != sample.number:
            members[place] = last
            self._places[last.number] = place

    def draw(self, landscape: bool, count: int, rng: np.random.Generator) -> list[T]:
        """Return `count` different samples of an orientation, which stay in the pool."""
        members = self._members[landscape]
        return [members[place] for place in rng.choice(len(members), count, replace=False).tolist()]
