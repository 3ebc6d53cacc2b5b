"""Seeded permutations: small ones drawn, large ones computed place by place without any table."""

from __future__ import annotations

import math

import numpy as np

from clic.seeding import generator

TABLE = 1 << 20
"""Numbers up to which a permutation is drawn uniformly from all; 8 MB."""
ROUNDS = 8


class Permutation:
    """A permutation of 0 to `count` - 1, a pure function of its arguments.

    Beyond `TABLE` numbers it is a keyed Feistel network on Z_a x Z_b with a * b >= count, walked
    until the result is below `count` (the generalised Feistel cipher with cycle walking of Black
    and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002), so that ten million samples
    take neither time nor memory in each of the loader's processes.

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

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return what stands at some places.

        Args:
            places: int64 [n], each from 0 to `count` - 1.

        Returns:
            int64 [n].
        """
        if self._table is not None:
            return self._table[places]
        found = self._cipher(places.astype(np.uint64))
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
    """Return 64 mixed bits of each number and a key (SplitMix64's finaliser)."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
