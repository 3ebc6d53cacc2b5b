"""Which sample stands at which position of an epoch.

An epoch is drawn from one source or a mixture, with or without replacement, by permutations that
are a pure function of the seed: short ones are drawn, long ones computed position by position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clic.seeding import generator

_KEPT = 2  # permutations of each source, for steps on either side of an epoch's end


@dataclass(frozen=True)
class EpochPart:
    """One source of a mixture.

    Attributes:
        count: Number of its samples.
        weight: Its proportion of an epoch, relative to the other weights.
    """

    count: int
    weight: float = 1.0


class Order(Protocol):
    """The sample at any position of any epoch."""

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return sample numbers, int64 [n], for positions 0 to `samples` - 1 of an epoch."""


class Shuffled:
    """Without replacement: a source repeats no sample before all of its samples have been used.

    Each epoch holds a fixed number of samples from each source, proportional to its weight and
    rounded, in random order. A source runs through one seeded permutation after another, regardless
    of where epochs end.

    Args:
        parts: The sources; samples are numbered consecutively in this order.
        samples: Length of an epoch.
        seed: The run's seed.
    """

    def __init__(self, parts: Sequence[EpochPart], samples: int, seed: int) -> None:
        self.parts, self.samples, self.seed = tuple(parts), samples, seed
        self._first = np.cumsum([0, *(part.count for part in parts)])
        self.quotas = quotas([part.weight for part in parts], samples)
        self._ends = np.cumsum(self.quotas)
        self._permutations: dict[tuple[int, str, int], Permutation] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_permutations": {}}

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return sample numbers, int64 [n], for positions 0 to `samples` - 1 of an epoch."""
        if len(self.parts) == 1:
            return self._stream(0, epoch * self.samples + positions)
        mixed = self._permutation(self.samples, "mix", epoch).at(positions)
        owners = np.searchsorted(self._ends, mixed, side="right")
        found = np.empty(len(positions), dtype=np.int64)
        for number in np.unique(owners):
            mine = owners == number
            quota = self.quotas[number]
            within = mixed[mine] - (int(self._ends[number]) - quota)
            found[mine] = self._stream(int(number), epoch * quota + within)
        return found

    def _stream(self, number: int, positions: np.ndarray) -> np.ndarray:
        """Return the samples at positions of a source's endless order."""
        passes, positions = np.divmod(positions, self.parts[number].count)
        purpose = "epoch" if len(self.parts) == 1 else f"epoch/{number}"
        found = np.empty(len(positions), dtype=np.int64)
        for one in np.unique(passes):
            mine = passes == one
            permutation = self._permutation(self.parts[number].count, purpose, int(one))
            found[mine] = permutation.at(positions[mine])
        return found + self._first[number]

    def _permutation(self, count: int, purpose: str, number: int) -> Permutation:
        key = (count, purpose, number)
        if key not in self._permutations:
            while len(self._permutations) >= _KEPT * (len(self.parts) + 1):
                del self._permutations[next(iter(self._permutations))]
            self._permutations[key] = Permutation(count, self.seed, purpose, number)
        return self._permutations[key]


class Resampled:
    """With replacement: each position draws a source by weight, then one of its samples.

    Args:
        parts: The sources; samples are numbered consecutively in this order.
        seed: The run's seed.
    """

    def __init__(self, parts: Sequence[EpochPart], seed: int) -> None:
        self.seed = seed
        self._counts = np.array([part.count for part in parts], dtype=np.int64)
        self._first = np.cumsum([0, *self._counts])[:-1]
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        self._ends = np.cumsum(weights / weights.sum())[:-1]

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return sample numbers, int64 [n], for positions of an epoch."""
        keys = generator(self.seed, "resample", step=epoch).integers(2**64, size=2, dtype=np.uint64)
        first, second = (_uniform(mix64(positions.astype(np.uint64), key)) for key in keys)
        owners = np.searchsorted(self._ends, first, side="right")
        return self._first[owners] + (second * self._counts[owners]).astype(np.int64)


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for each 64 random bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def quotas(weights: Sequence[float], samples: int) -> list[int]:
    """Divide samples in proportion to weights; the largest remainders are rounded up."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * samples
    whole = np.floor(exact).astype(int)
    missing = samples - int(whole.sum())
    for number in np.argsort(whole - exact, kind="stable")[:missing]:
        whole[number] += 1
    return whole.tolist()


TABLE = 1 << 20
"""Longest permutation that is drawn as a table, 8 MB."""
ROUNDS = 8


class Permutation:
    """A permutation of 0 to `count` - 1, a pure function of its arguments.

    Beyond `TABLE` numbers it is a keyed Feistel network on Z_a x Z_b with a * b >= count, iterated
    until the result is below `count` (the generalised Feistel cipher with cycle walking of Black
    and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002), so that ten million samples
    cost the loader's processes neither time nor memory.

    Args:
        count: Length.
        seed: The run's seed.
        purpose: What it orders.
        number: Which one, e.g. the epoch.
    """

    def __init__(self, count: int, seed: int, purpose: str, number: int) -> None:
        self.count = count
        rng = generator(seed, purpose, step=number)
        self._table = rng.permutation(count) if count <= TABLE else None
        self._keys = rng.integers(2**64, size=ROUNDS, dtype=np.uint64)
        self._a = math.isqrt(count - 1) + 1 if count else 1
        self._b = -(-count // self._a)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers, int64 [n], at positions 0 to `count` - 1, int64 [n]."""
        if self._table is not None:
            return self._table[positions]
        found = self._cipher(positions.astype(np.uint64))
        while (outside := found >= self.count).any():
            found[outside] = self._cipher(found[outside])
        return found.astype(np.int64)

    def _cipher(self, numbers: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = numbers // b, numbers % b
        for round, key in enumerate(self._keys):
            if round % 2:
                right = (right + mix64(left, key) % b) % b
            else:
                left = (left + mix64(right, key) % a) % a
        return left * b + right


def mix64(numbers: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hash each number with a key to 64 bits (SplitMix64's finaliser)."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
