"""The images of either orientation, in a bit each: which they are, how many, the k-th."""

from __future__ import annotations

import numpy as np

BLOCK = 512
"""Images whose number is counted together."""


class SampleSet:
    """A set of samples among 0 to N - 1, of which any member is found by its place in the set.

    It takes N / 8 bytes: ten million samples fit each of the loader's processes many times over.

    Args:
        members: bool [N].
    """

    def __init__(self, members: np.ndarray) -> None:
        self._bits = np.packbits(members)
        counts = [int(members[i : i + BLOCK].sum()) for i in range(0, len(members), BLOCK)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.total = len(members)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __contains__(self, sample: int) -> bool:
        return bool(self._bits[sample >> 3] >> (7 - (sample & 7)) & 1)

    def nth(self, place: int) -> int:
        """Return the member at `place` of the set in ascending order."""
        block = int(np.searchsorted(self._starts, place, side="right")) - 1
        inside = np.flatnonzero(self._block(block))[place - int(self._starts[block])]
        return block * BLOCK + int(inside)

    def place(self, sample: int) -> int:
        """Return how many members are below `sample`."""
        block, rest = divmod(sample, BLOCK)
        if block >= len(self._starts) - 1:
            return len(self)
        return int(self._starts[block]) + int(self._block(block)[:rest].sum())

    def _block(self, block: int) -> np.ndarray:
        step = BLOCK // 8
        return np.unpackbits(self._bits[block * step : (block + 1) * step]).view(bool)
