"""Which shard comes when, and which loader process reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from clic.seeding import generator


@dataclass(frozen=True)
class ShardOrder:
    """An endless order of shards, which the loader processes of all ranks take by turns.

    It runs through one permutation of the shards after another; or with `replacement` each place
    draws one of them. A place in it is one integer, from which it can be continued by any number of
    ranks and workers.

    Attributes:
        shards: Their addresses.
        seed: The run's seed.
        replacement: Draw with replacement.
    """

    shards: tuple[str, ...]
    seed: int
    replacement: bool = False

    def at(self, start: int) -> Iterator[str]:
        """Yield the shards from a place on."""
        epoch, first = divmod(start, len(self.shards))
        while True:
            places = self._epoch(epoch)
            yield from (self.shards[place] for place in places[first:])
            epoch, first = epoch + 1, 0

    def _epoch(self, epoch: int) -> Sequence[int]:
        count, rng = len(self.shards), generator(self.seed, "stream/shards", epoch)
        if self.replacement:
            return rng.integers(count, size=count).tolist()
        return rng.permutation(count).tolist()

    def lane(self, start: int, rank: int, ranks: int, worker: int, workers: int) -> Iterator[str]:
        """Yield every `ranks * workers`-th shard from a place on: those of a worker of a rank.

        As webdataset's splitters do, ranks take turns first and workers of a rank then; the order
        being endless, none of them gets more shards than another in the long run.
        """
        return islice(self.at(start), rank + ranks * worker, None, ranks * workers)
