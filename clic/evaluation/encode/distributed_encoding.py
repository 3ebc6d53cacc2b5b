"""Encodes items in batches: each item once, on one rank, unless an earlier run cached it."""

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
class EncodedBatch:
    """The result of a batch: its items, their features [N, D], and why other items are broken."""

    items: np.ndarray
    features: Tensor | None
    broken: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """The features of all items; with several ranks, only rank 0 has those from the cache.

    Attributes:
        features: float32 [U, D]; broken items have rows of zeros.
        broken: The fault of each broken item.
        cached: Number of items whose features were read from the cache.
        seconds: Wall-clock time.
    """

    features: Tensor
    broken: dict[int, str]
    cached: int
    seconds: float


Encode = Callable[[Sequence[np.ndarray]], Iterator[EncodedBatch]]
Key = Callable[[int], "bytes | None"]


@dataclass(frozen=True)
class EncodingOptions:
    """How items are encoded.

    Attributes:
        batch_size: Items at a time.
        workers: Threads that decode images.
        progress: Whether progress bars are shown if stderr is a terminal.
        all_ranks: Whether every rank of the process group takes part.
        cache: Where features are kept, or None.
    """

    batch_size: int
    workers: int = 1
    progress: bool = False
    all_ranks: bool = False
    cache: FeatureCache | None = None

    def encode_all(
        self,
        title: str,
        tower: Hashable | None,
        order: np.ndarray,
        encode: Encode,
        key: Key,
        batch_size: int,
    ) -> Encoded:
        """Return the features of all items, each read from the cache or encoded on one rank.

        Batches do not depend on the number of ranks, so features are the same, bit for bit.

        Args:
            title: Name of the items, for messages.
            tower: Everything other than the item that the features depend on; None if unknown.
            order: int64 [U], the items in the order in which they form batches.
            encode: Yields the result of each batch of items in turn.
            key: Returns an item's key in the cache, None for an item that is not kept.
            batch_size: Items of a batch.

        Raises:
            ClicError: Encoding failed on this rank or on another one.
        """
        started = time.perf_counter()
        store = None if self.cache is None or tower is None else self.cache.tower(tower)
        found, kept = np.zeros(len(order), dtype=bool), None
        if store is not None and self._rank == 0:
            found, kept = store.read([key(i) for i in range(len(order))])
        if self._world > 1:
            found = distributed.broadcast_object(found)
        missing = order[~found[order]]
        batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        parts, failure = self._encode(title, encode, batches[self._rank :: self._world], key, store)
        features, broken = self._join(title, len(order), parts, failure, kept)
        if kept is not None and found.any():
            features[torch.from_numpy(found)] = kept
        return Encoded(features, broken, int(found.sum()), time.perf_counter() - started)

    @property
    def _rank(self) -> int:
        return distributed.rank() if self.all_ranks else 0

    @property
    def _world(self) -> int:
        return distributed.world_size() if self.all_ranks else 1

    def _encode(
        self,
        title: str,
        encode: Encode,
        batches: Sequence[np.ndarray],
        key: Key,
        store: TowerCache | None,
    ) -> tuple[list[EncodedBatch], ClicError | None]:
        """Return the results of this rank's batches, and the error that cut them short, if any."""
        shows = self.progress and distributed.is_main()
        parts: list[EncodedBatch] = []
        # Keys are computed before the files are read, so a file that changes in between is stored
        # under the key of its old content, which no later run looks up.
        keys = {} if store is None else {i: key(i) for batch in batches for i in batch.tolist()}
        try:
            with (
                store or nullcontext(),
                progress_bar(title, sum(map(len, batches)), show=shows) as advance,
            ):
                for part in encode(batches):
                    parts.append(part)
                    if store is not None and part.features is not None:
                        store.add([keys[i] for i in part.items.tolist()], part.features)
                    advance(len(part.items) + len(part.broken))
        except ClicError as error:
            return parts, error
        return parts, None

    def _join(
        self,
        title: str,
        count: int,
        parts: list[EncodedBatch],
        failure: ClicError | None,
        kept: Tensor | None,
    ) -> tuple[Tensor, dict[int, str]]:
        """Return the features that all ranks encoded, each in the row of its item."""
        widths = {part.features.shape[1] for part in parts if part.features is not None}
        if kept is not None and len(kept):
            widths.add(kept.shape[1])
        broken = {item: reason for part in parts for item, reason in part.broken.items()}
        reports = [(None if failure is None else str(failure), widths, broken)]
        if self._world > 1:
            reports = distributed.gather_objects(reports[0])
        for rank, (reason, _, _) in enumerate(reports):
            if reason is not None:
                raise failure or DataError(f"{reason} (rank {rank})")
        widths = set().union(*(own for _, own, _ in reports))
        if len(widths) > 1:
            raise ModelError(
                f"the model returned {title} features of several widths: {sorted(widths)}"
            )
        features = torch.zeros(count, next(iter(widths), 0))
        for part in parts:
            if part.features is not None:
                features[torch.from_numpy(part.items)] = part.features
        if self._world > 1 and features.numel():
            device = distributed.collective_device()
            features = distributed.all_reduce_sum(features.to(device)).cpu()
        return features, {item: reason for _, _, own in reports for item, reason in own.items()}
