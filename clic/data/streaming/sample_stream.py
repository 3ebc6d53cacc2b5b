"""Turns tars into a shuffled stream of samples, with webdataset's pipeline.

A `ShardOrder` decides the order of the shards and which loader process reads each. A `SampleStream`
reads them, and an `OrientationPool` tracks the samples in its shuffle buffer, from which partners
are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import webdataset

from clic import images
from clic.data.packing.readers.base import captions_of as captions_in
from clic.data.packing.readers.text_tables import cell_value
from clic.data.shards.records import captions_of, negatives_of, parse_record, stored_tokens
from clic.data.shards.tar import IMAGE_TYPES
from clic.errors import DataError, UnavailableError
from clic.io.http_connection import shown
from clic.io.stream_reader import StreamReader
from clic.seeding import generator
from clic.types import Fault, Sample, Tally

GIVEN_UP = 3
"""Number of shards in a row without a sample after which the run ends."""
BROKEN_IN_A_ROW = 100
"""Number of unusable samples in a row after which the run ends."""
A_SHARD = -1
"""The number of a fault that concerns a whole shard."""
TYPES = {*(ending.removeprefix(".") for ending in IMAGE_TYPES), "json", "txt"}
"""Endings of the members that are read."""

Raw = dict[str, Any]
"""A sample as webdataset groups it: its members' bytes by ending, `__key__` and `__url__`."""


@dataclass(frozen=True)
class ShardOrder:
    """An endless order of shards, which the loader processes of all ranks share by taking turns.

    It runs through one permutation of the shards after another or, with `replacement`, draws a
    random shard at each place. A place is a single integer, from which any number of ranks and
    workers can continue.

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
        """Yield every `ranks * workers`-th shard from a place on: those of one worker of one rank.

        As in webdataset's splitters, ranks take turns first, then the workers of a rank; since the
        order is endless, all of them get equally many shards in the long run.
        """
        return islice(self.at(start), rank + ranks * worker, None, ranks * workers)


@dataclass(frozen=True)
class StreamSettings:
    """What a loader process needs to know to open its stream.

    Attributes:
        order: The order of the shards.
        buffer: Number of samples in the shuffle buffer.
        timeout: Seconds within which a shard's server has to send something.
        caption_keys: Keys of a sample's JSON whose captions are used, in this order; if there are
            none, captions are found as in indexed shards.
        negatives: Whether to read the false captions that are stored with the samples.
        tags: Number of captions whose stored tags are unpacked; None for all.
        coin: Whether a fair coin decides the orientation of square images, which are otherwise
            landscape.
        pooled: Whether partners are drawn from the buffer.
    """

    order: ShardOrder
    buffer: int
    timeout: float
    caption_keys: tuple[str, ...] = ()
    negatives: bool = False
    tags: int | None = 0
    coin: bool = False
    pooled: bool = False


@dataclass(frozen=True)
class StreamSample:
    """A sample with its running number in its stream, and its image's orientation."""

    number: int
    sample: Sample
    landscape: bool


@dataclass
class StreamCounts:
    """The counts and faults of a stream since they were last taken."""

    tally: Tally = field(default_factory=Tally)
    faults: list[Fault] = field(default_factory=list)

    def take(self) -> tuple[Tally, tuple[Fault, ...]]:
        """Return the counts and the faults, and reset both."""
        taken = self.tally, tuple(self.faults)
        self.tally, self.faults = Tally(), []
        return taken


class OrientationPool:
    """The samples of a shuffle buffer by orientation, from which partners are drawn.

    Adding, removing and drawing take constant time.
    """

    def __init__(self) -> None:
        self._members: dict[bool, list[StreamSample]] = {True: [], False: []}
        self._places: dict[int, int] = {}

    def count(self, landscape: bool) -> int:
        """Return the number of samples of an orientation."""
        return len(self._members[landscape])

    def add(self, sample: StreamSample) -> None:
        """Add a sample."""
        members = self._members[sample.landscape]
        self._places[sample.number] = len(members)
        members.append(sample)

    def remove(self, sample: StreamSample) -> None:
        """Remove a sample; the last of its orientation takes its place."""
        members = self._members[sample.landscape]
        place, last = self._places.pop(sample.number), members.pop()
        if last.number != sample.number:
            members[place] = last
            self._places[last.number] = place

    def draw(self, landscape: bool, count: int, rng: np.random.Generator) -> list[StreamSample]:
        """Return `count` different samples of an orientation, which stay in the pool."""
        members = self._members[landscape]
        return [members[place] for place in rng.choice(len(members), count, replace=False).tolist()]


class SampleStream:
    """The endless stream of samples of one loader process.

    Args:
        settings: What to read, and how.
        start: The place in the order of shards to begin at.
        lane: Rank, ranks, worker and workers.

    Attributes:
        counts: Broken samples and shards, and the shards that were read.
        pool: The samples in the shuffle buffer, if partners are drawn from it.
    """

    def __init__(
        self, settings: StreamSettings, start: int, lane: tuple[int, int, int, int]
    ) -> None:
        self.settings, self.counts = settings, StreamCounts()
        self.pool: OrientationPool = OrientationPool()
        rank, ranks, worker, _ = lane
        self._rng = generator(settings.order.seed, "stream/buffer", start, rank + ranks * worker)
        self._numbers, self._in_a_row = 0, 0
        stages: list[Callable[..., Any]] = [self._read, self._convert]
        shuffled = webdataset.shuffle(
            settings.buffer,
            initial=max(1, settings.buffer // 4),
            rng=random.Random(int(self._rng.integers(2**63))),
        )
        stages += [self._enter, shuffled, self._leave] if settings.pooled else [shuffled]
        shards = settings.order.lane(start, *lane)
        self._samples = iter(webdataset.DataPipeline(lambda: shards, *stages))

    def __iter__(self) -> Iterator[StreamSample]:
        return self._samples

    def __next__(self) -> StreamSample:
        """Return the next sample.

        Raises:
            UnavailableError: Several shards in a row yielded no sample.
            DataError: Too many samples in a row are broken.
        """
        return next(self._samples)

    # --- the pipeline's stages ---

    def _read(self, shards: Iterable[str]) -> Iterator[Raw]:
        """Yield the samples of one shard after another, and count the shards that fail."""
        without = 0
        for shard in shards:
            reason, found = "it holds no sample", False
            try:
                for raw in self._samples_of(shard):
                    yield raw
                    found = True
                failed = False
            except EndlessFaultsError:
                raise
            except UnavailableError as error:
                reason, failed = _words(error), True
            except Exception as error:  # noqa: BLE001, a broken tar can raise anything; count it
                reason, failed = f"{shown_shard(shard)}: {_words(error)}", True
            if failed:
                self.counts.faults.append(Fault(A_SHARD, f"shard given up: {reason}"))
            self.counts.tally += Tally(shards=1, broken_shards=failed)
            without = 0 if found else without + 1
            if without == GIVEN_UP:
                raise UnavailableError(
                    f"{GIVEN_UP} shards in a row gave no sample, the last of them: {reason}; look "
                    "at the server, or raise data.timeout; the same command then continues from "
                    "the last checkpoint"
                )

    def _samples_of(self, shard: str) -> Iterator[Raw]:
        stream = open_shard(shard, self.settings.timeout)
        files = webdataset.tariterators.tar_file_expander(
            [{"url": shard, "stream": stream}],
            handler=webdataset.reraise_exception,
            select_files=lambda name: name.rpartition(".")[2].lower() in TYPES,
        )
        try:
            yield from webdataset.tariterators.group_by_keys(
                files, suffixes=TYPES, handler=self._twice
            )
        finally:
            stream.close()

    def _twice(self, error: Exception) -> bool:
        """Count a member whose name its sample already has, and continue."""
        self._broken(_words(error))
        return True

    def _convert(self, raws: Iterable[Raw]) -> Iterator[StreamSample]:
        """Yield the usable samples and count the others."""
        for raw in raws:
            where = f"{shown_shard(raw['__url__'])}: {raw['__key__']}"
            try:
                sample = self._sample(raw)
                width, height = images.dimensions(sample.image)
            except DataError as error:
                self._broken(f"{where}: {error}")
                continue
            self._in_a_row = 0
            self._numbers += 1
            coin = self.settings.coin and width == height
            landscape = bool(self._rng.random() < 0.5) if coin else width >= height
            yield StreamSample(self._numbers, sample, landscape)

    def _broken(self, reason: str) -> None:
        self.counts.tally += Tally(samples=1, broken=1)
        self.counts.faults.append(Fault(self._numbers, " ".join(reason.split())))
        self._in_a_row += 1
        if self._in_a_row == BROKEN_IN_A_ROW:
            raise EndlessFaultsError(
                f"{BROKEN_IN_A_ROW} samples in a row cannot be used, the last of them: {reason}"
            )

    def _sample(self, raw: Raw) -> Sample:
        """Return a sample; raises `DataError` if it lacks an image or a caption."""
        settings, key = self.settings, raw["__key__"]
        image = next((raw[e[1:]] for e in IMAGE_TYPES if e[1:] in raw), None)
        if image is None:
            raise DataError("it has no image")
        record = parse_record(raw["json"]) if raw.get("json") else {}
        if settings.caption_keys:
            captions = captions_by_key(record, settings.caption_keys)
        else:
            captions = captions_of(record, raw.get("txt", b""))
        if not captions:
            raise DataError("it has no caption")
        tags = None
        if settings.tags != 0 and "caption_hash" in record:
            tags = stored_tokens(record, captions, settings.tags) or ()
        negatives = negatives_of(record) if settings.negatives else ()
        return Sample(key, image, captions, tags, negatives)

    def _enter(self, samples: Iterable[StreamSample]) -> Iterator[StreamSample]:
        for sample in samples:
            self.pool.add(sample)
            yield sample

    def _leave(self, samples: Iterable[StreamSample]) -> Iterator[StreamSample]:
        for sample in samples:
            self.pool.remove(sample)
            yield sample


class EndlessFaultsError(DataError):
    """So many samples in a row are unusable that it cannot be chance."""


def open_shard(shard: str, timeout: float) -> BinaryIO | StreamReader:
    """Open a shard on disk, or a remote one that a thread fetches ahead."""
    return StreamReader(shard, timeout) if "://" in shard else open(shard, "rb")


def shown_shard(shard: str) -> str:
    """Return a shard's address without secrets, or its path."""
    return shown(shard) if "://" in shard else shard


def captions_by_key(record: dict[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """Return the captions under some keys of a sample's JSON, each once, in the order of the keys.

    A value is a text, a list of texts or of objects with captions, or a list written as a text, as
    in tables.

    Raises:
        DataError: The JSON has none of the keys.
    """
    names = list(keys)
    if not any(name in record for name in names):
        raise DataError(
            f"its JSON has none of data.caption_key={','.join(names)} "
            f"(keys: {', '.join(list(record)[:12]) or 'none'})"
        )
    values = [record.get(name) for name in names]
    cells = [cell_value(value) if isinstance(value, str) else value for value in values]
    found = dict.fromkeys(text.strip() for cell in cells for text in captions_in(cell))
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:  # JSON may contain half a surrogate pair
        raise DataError(f"a caption is not valid Unicode: {error}") from error
    return tuple(found)


def _words(error: Exception) -> str:
    """Return an exception's first words, without the objects that webdataset adds."""
    said = getattr(error, "strerror", None) or (error.args[0] if error.args else "")
    return " ".join(str(said).split()) or type(error).__name__
