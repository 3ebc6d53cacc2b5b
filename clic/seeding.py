"""The generators behind every random choice of the library.

A generator is a pure function of the run's seed and of *what* is being drawn, never of how many
numbers were drawn before. A batch therefore depends on (seed, step) alone, whatever the number of
loader workers and wherever the run was resumed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence


def generator(seed: int, purpose: str, step: int = 0, slot: int = 0) -> np.random.Generator:
    """Return the counter-based (Philox) generator of one random decision.

    It is the same in any process and for any ``PYTHONHASHSEED``.

    Args:
        seed: The run's seed.
        purpose: What is drawn, e.g. ``"permutation"``; each purpose has its own stream.
        step: Global step or epoch, whatever the purpose counts.
        slot: Position within the step, e.g. the row of a batch over all ranks.
    """
    # Philox's state is a 128-bit key and a 256-bit counter. Step and slot fill the counter's
    # upper words, so streams cannot overlap before 2**128 draws.
    counter = np.array((0, 0, slot, step), dtype=np.uint64)
    key: Any = _key(seed, purpose)  # numpy's type hints allow only its own SeedSequence
    return np.random.Generator(np.random.Philox(key, counter=counter))


class _Key(ISeedSequence):
    """Gives Philox its key unchanged.

    The argument `key` does the same but takes four times as long, because Philox then also asks the
    operating system for a seed that it does not use.
    """

    def __init__(self, digest: bytes) -> None:
        self._words = np.frombuffer(digest, dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint64) -> np.ndarray:
        """Return the two words, which Philox copies; it asks for no others."""
        assert (n_words, dtype) == (len(self._words), np.uint64)
        return self._words


@lru_cache(maxsize=1024)
def _key(seed: int, purpose: str) -> _Key:
    """Return the key of a purpose's streams."""
    return _Key(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest())


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, which weight initialisation and dropout draw from."""
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one training step, so that dropout needs no stored state to resume."""
    seed_torch(int(generator(seed, "dropout", step, rank).integers(2**63)))
