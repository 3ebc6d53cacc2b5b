"""A rank's share of what is to be encoded: each item once, over all ranks and over all runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clic import distributed
from clic.errors import ClicError, DataError, ModelError
from clic.evaluation.encode.feature_cache import FeatureCache, TowerCache
from clic.io.terminal import progress_bar


@dataclass(frozen=True)
class RankPart:
    """What came of a batch: items, their features [N, D], and what is wrong with the others."""

    items: np.ndarray
    features: Tensor | None
    broken: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """Features of all items; under several ranks whole on rank 0 alone.

    Attributes:
        features: float32 [U, D]; broken items have rows of zeros.
        broken: What is wrong with each broken item.
        cached: Number of items whose features were read from the cache.
        seconds: Wall-clock time.
    """

    features: Tensor
    broken: dict[int, str]
    cached: int
    seconds: float


@dataclass(frozen=True)
class Share:
    """How items are encoded.

    Attributes:
        title: What progress bars call them.
        batch_size: Items at a time.
        progress: Whether bars are shown, where stderr is a terminal.
        all_ranks: Whether every rank of the process group takes part.
        cache: Where features are kept, None for nowhere.
        tower: All that the features depend on beside the item, None where it is not known.
    """

    title: str
    batch_size: int
    progress: bool = False
    all_ranks: bool = False
    cache: FeatureCache | None = None
    tower: Hashable | None = None

    def complete(
        self,
        order: np.ndarray,
        encode: Callable[[Sequence[np.ndarray]], Iterator[RankPart]],
        key: Callable[[int], bytes | None],
        batch_size: int,
    ) -> Encoded:
        """Return the features of all items, each read from the cache or encoded on one rank.

        Batches are the same however many ranks there are, and so are the features, bit for bit.

        Args:
            order: int64 [U], the items in the order in which they make batches.
            encode: Batches of items -> what came of each, in turn.
            key: An item -> what the cache knows it by, None for one that is not kept.
            batch_size: Items of a batch.

        Raises:
            ClicError: This rank's, or another's.
        """
        started = time.perf_counter()
        rank, world = self._place()
        store = None if self.cache is None or self.tower is None else self.cache.tower(self.tower)
        found, kept = np.zeros(len(order), dtype=bool), None
        if store is not None and rank == 0:
            found, kept = store.read([key(i) for i in range(len(order))])
        if world > 1:
            found = distributed.broadcast_object(found)
        missing = order[~found[order]]
        batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        parts, failure = self._encode(encode, batches[rank::world], key, store)
        features, broken = self._join(len(order), parts, failure, kept)
        if kept is not None and found.any():
            features[torch.from_numpy(found)] = kept
        return Encoded(features, broken, int(found.sum()), time.perf_counter() - started)

    def _place(self) -> tuple[int, int]:
        return (distributed.rank(), distributed.world_size()) if self.all_ranks else (0, 1)

    def _encode(
        self,
        encode: Callable[[Sequence[np.ndarray]], Iterator[RankPart]],
        batches: Sequence[np.ndarray],
        key: Callable[[int], bytes | None],
        store: TowerCache | None,
    ) -> tuple[list[RankPart], ClicError | None]:
        """Return what came of this rank's batches, and what stopped it."""
        total = sum(map(len, batches))
        parts: list[RankPart] = []
        # Before they are read: a file that changes meanwhile is then known by what it was.
        keys = {} if store is None else {i: key(i) for batch in batches for i in batch.tolist()}
        try:
            with (
                store or nullcontext(),
                progress_bar(self.title, total, show=self._shows) as advance,
            ):
                for part in encode(batches):
                    parts.append(part)
                    if store is not None and part.features is not None:
                        store.add([keys[i] for i in part.items.tolist()], part.features)
                    advance(len(part.items) + len(part.broken))
        except ClicError as error:
            return parts, error
        return parts, None

    @property
    def _shows(self) -> bool:
        return self.progress and distributed.is_main()

    def _join(
        self, count: int, parts: list[RankPart], failure: ClicError | None, kept: Tensor | None
    ) -> tuple[Tensor, dict[int, str]]:
        """Return the features that were encoded, on all ranks, in the rows of their items."""
        widths = {part.features.shape[1] for part in parts if part.features is not None}
        if kept is not None and len(kept):
            widths.add(kept.shape[1])
        broken = {item: reason for part in parts for item, reason in part.broken.items()}
        told = [(None if failure is None else str(failure), widths, broken)]
        if self._place()[1] > 1:
            told = distributed.gather_objects(told[0])
        for rank, (reason, _, _) in enumerate(told):
            if reason is not None:
                raise failure or DataError(f"{reason} (rank {rank})")
        widths = set().union(*(widths for _, widths, _ in told))
        if len(widths) > 1:
            raise ModelError(
                f"the model returned {self.title} features of several widths: {sorted(widths)}"
            )
        features = torch.zeros(count, next(iter(widths), 0))
        for part in parts:
            if part.features is not None:
                features[torch.from_numpy(part.items)] = part.features
        if self._place()[1] > 1 and features.numel():
            device = distributed.collective_device()
            features = distributed.all_reduce_sum(features.to(device)).cpu()
        return features, {item: reason for _, _, own in told for item, reason in own.items()}
