"""Batches from a stream: samples are used as they arrive; all else is as with indexed shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from torch.utils.data import get_worker_info

from clic import images
from clic.config.train_settings import Config
from clic.data.batches.captioner import Captioner, CaptionTokenizer, uses_tags
from clic.data.batches.faults import MOST_IN_A_ROW
from clic.data.batches.loader import BatchBuilder, LoadedSample
from clic.data.sampling.sampler import BatchPlan, BatchRow, Sampler
from clic.data.shards.locating import locate_shards
from clic.data.streaming.sample_stream import (
    SampleStream,
    ShardOrder,
    StreamSample,
    StreamSettings,
)
from clic.errors import DataError
from clic.images import Orientation
from clic.io.stream_reader import within
from clic.models import ClipModel
from clic.seeding import generator
from clic.types import KINDS, Batch, Fault, Kind, Tally

BUFFERS = 10
"""Number of buffers of samples that are searched for a partner."""
TRIES = 20
"""Random draws for each partner after which the buffer counts as too small."""


class StreamSampler(Sampler):
    """Plans the kind of each step and this rank's rows; their samples are the next in the stream.

    The number of samples is unknown, so the settings specify how many make an epoch:
    floor(N / (W * B)) steps, on every rank alike.

    Args:
        kinds: `alternate` (composite first), `composite` or `single`.
        batch_size: Rows B on each rank.
        samples: Samples N of an epoch.
        shards: The shards' paths and addresses.
        rank: This rank.
        world_size: Number of ranks W.

    Raises:
        DataError: An epoch is smaller than one batch.
    """

    def __init__(
        self,
        kinds: str,
        batch_size: int,
        samples: int,
        shards: tuple[str, ...],
        rank: int,
        world_size: int,
    ) -> None:
        self.schedule: tuple[Kind, ...] = KINDS if kinds == "alternate" else (kinds,)  # type: ignore[assignment]
        self.rank, self.world_size = rank, world_size
        self._batch_size, self._samples, self.shards = batch_size, samples, shards
        if not self.steps_per_epoch():
            raise DataError(
                f"data.samples={samples} are fewer than one batch of {batch_size * world_size} "
                "(train.batch_size times the number of ranks); raise it, or use a smaller batch"
            )

    def steps_per_epoch(self) -> int:
        """Return floor(N / (W * B))."""
        return self._samples // (self._batch_size * self.world_size)

    def total(self) -> int:
        """Return the number of samples of an epoch."""
        return self._samples

    def summary(self) -> str:
        """Return a short description of the data."""
        return f"a stream of {len(self.shards):,} shards, epochs of {self._samples:,} samples"

    def plan(self, step: int) -> BatchPlan:
        """Return the kind of a step and the slots of this rank's rows."""
        first = self.rank * self._batch_size
        slots = range(first, first + self._batch_size)
        # Neither the samples nor their orientations are known yet.
        return BatchPlan(step, self.kind(step), tuple(BatchRow((), "landscape", s) for s in slots))


@dataclass(eq=False)
class StreamBuilder(BatchBuilder):
    """Turns a stream of samples into batches; each loader process has its own stream.

    A composite's first image is the next in the stream, and its partners are drawn from the images
    of its orientation in the shuffle buffer, where they stay.

    Attributes:
        stream: Which shards to read, and how.
        start: The place in the order of shards where the stream begins.
    """

    stream: StreamSettings = field(kw_only=True)
    start: int = 0

    def __post_init__(self) -> None:
        self._opened: SampleStream | None = None
        self._waiting: deque[StreamSample] = deque()

    def resume(self, total: Tally) -> str:
        """Begin the stream after the shards that were read; return what the user should know."""
        self.start = total.shards
        epoch, place = divmod(self.start, len(self.stream.order.shards))
        return (
            f"the stream goes on at shard {place} of its pass {epoch}, which is not exact: shards "
            "that were being read begin anew, and samples that had been read ahead are left out"
        )

    def build(self, step: int) -> Batch:
        """Return the batch of a step, from the next samples; steps must be requested in order.

        Raises:
            DataError: Too much of the data is broken or unreachable.
        """
        batch = super().build(step)
        tally, faults = self._samples().counts.take()
        return replace(batch, tally=batch.tally + tally, faults=batch.faults + faults)

    def _samples(self) -> SampleStream:
        """Return this process's stream, opened on first use."""
        if self._opened is None:
            info, sampler = get_worker_info(), self.sampler
            worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
            assert isinstance(sampler, StreamSampler)
            lane = (sampler.rank, sampler.world_size, worker, workers)
            self._opened = SampleStream(self.stream, self.start, lane)
        return self._opened

    def _draw(
        self, plan: BatchPlan, row: BatchRow
    ) -> tuple[Orientation, list[LoadedSample], list[Fault]]:
        faults: list[Fault] = []
        count = images.images_of(self.compose.layout) - 1 if plan.kind == "composite" else 0
        rng = generator(self.seed, "partners", plan.step, row.slot)
        first, primary = self._first_usable(plan.kind, self._primaries(), faults)
        orientation: Orientation = "landscape" if first.landscape else "portrait"
        loaded = [primary]
        if count:
            partners = self._partners(first.landscape, rng)
            while len(loaded) <= count:
                _, partner = self._first_usable(plan.kind, partners, faults)
                if not any(_same_picture(partner, other) for other in loaded):
                    loaded.append(partner)
        return orientation, loaded, faults

    def _first_usable(
        self, kind: Kind, candidates: Iterator[StreamSample], faults: list[Fault]
    ) -> tuple[StreamSample, LoadedSample]:
        """Return the first candidate that can be decoded; add those before it to `faults`."""
        for _ in range(MOST_IN_A_ROW):
            found = next(candidates)
            orientation: Orientation = "landscape" if found.landscape else "portrait"
            try:
                return found, self.decoded(kind, orientation, found.number, found.sample)
            except DataError as error:
                faults.append(Fault(found.number, " ".join(str(error).split())))
        raise DataError(
            f"{MOST_IN_A_ROW} samples in a row are broken, the last of them: {faults[-1].reason}; "
            "mend the data"
        )

    def _primaries(self) -> Iterator[StreamSample]:
        """Yield the next samples, beginning with those that were read only to find partners."""
        while True:
            yield self._waiting.popleft() if self._waiting else next(self._samples())

    def _partners(self, landscape: bool, rng: np.random.Generator) -> Iterator[StreamSample]:
        """Yield samples of an orientation from the buffer; read on while it has too few."""
        pool, least = self._samples().pool, images.images_of(self.compose.layout) - 1
        read = drawn = 0
        while True:
            while pool.count(landscape) < least or drawn > TRIES * least:
                if read == BUFFERS * self.stream.buffer:
                    which = "landscape" if landscape else "portrait"
                    raise DataError(
                        f"the buffer of data.buffer={self.stream.buffer} samples has too few "
                        f"different {which} images to join, nor have the next {read}; raise it, "
                        "drop the images of that orientation, or use sampling.kinds=single"
                    )
                self._waiting.append(next(self._samples()))
                read, drawn = read + 1, 0
            drawn += 1
            yield pool.draw(landscape, 1, rng)[0]


def _same_picture(one: LoadedSample, other: LoadedSample) -> bool:
    """Return whether two samples are the same; a buffer larger than the data contains repeats."""
    same = one.sample.key == other.sample.key and one.sample.image == other.sample.image
    return one.number == other.number or same


def make_stream_sampler(config: Config, rank: int, world_size: int) -> StreamSampler:
    """Return the sampler that plans this rank's steps.

    Raises:
        DataError: An epoch is smaller than one batch, or the shards cannot be listed.
    """
    assert config.data.samples is not None  # checked by `validate`
    shards = stream_shards(config)
    kinds, size = config.sampling.kinds, config.train.batch_size
    return StreamSampler(kinds, size, config.data.samples, shards, rank, world_size)


def make_stream_builder(config: Config, clip: ClipModel, sampler: StreamSampler) -> StreamBuilder:
    """Return the builder of this rank's batches, for the shards that its sampler has listed."""
    data, captions = config.data, config.captions
    keys = [data.caption_key] if isinstance(data.caption_key, str) else data.caption_key or []
    tags: int | None = None if captions.single_caption == "random" else 1
    if captions.tagger != "stored" or not any(uses_tags(captions, kind) for kind in KINDS):
        tags = 0
    joined = images.images_of(config.compose.layout)
    settings = StreamSettings(
        order=ShardOrder(sampler.shards, config.seed, config.sampling.replacement),
        buffer=data.buffer,
        timeout=data.timeout,
        caption_keys=tuple(keys),
        negatives=captions.single_negative == "stored",
        tags=tags,
        coin=config.sampling.square == "either",
        # Images that are never joined need no partners, so a pool would only waste memory.
        pooled=config.sampling.kinds != "single" and joined > 1,
    )
    tokens = CaptionTokenizer(clip.tokenizer)
    budget = tokens.budget() if joined > 2 else None
    captioner = Captioner(captions, budget)
    return StreamBuilder(
        {}, sampler, captioner, tokens, clip.preprocess, config.compose, config.seed,
        data.decode, stream=settings,
    )  # fmt: skip


def stream_shards(config: Config) -> tuple[str, ...]:
    """Return the paths and addresses of the shards that `data.shards` names.

    Raises:
        DataError: Something that it names is missing, or a store does not answer in time.
    """
    found = within(
        config.data.timeout,
        f"data.shards={config.data.shards}",
        lambda: locate_shards(config.data.shards, "data.shards"),
    )
    return tuple(map(str, found))
