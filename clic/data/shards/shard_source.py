"""Samples of WebDataset shards, on disk or remote, each read by its position."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clic.data.sampling.sample_sources import SampleSource
from clic.data.shards.index import index_path, load_index
from clic.data.shards.locating import locate_shards
from clic.data.shards.merged_index import (
    MergedIndex,
    SampleLocation,
    index_missing,
    merge,
    with_progress,
)
from clic.data.shards.records import captions_of, negatives_of, parse_record, stored_tokens
from clic.data.shards.shard_cache import GB, ShardCache, cache_folder
from clic.data.shards.tar import Span, cut_short
from clic.errors import DataError
from clic.types import Sample

CONNECTIONS = 8


class ShardSource(SampleSource):
    """Samples of WebDataset tars (img2dataset's layout), each read by its position.

    A tar without an index is indexed first, once. Remote shards are cached on disk.

    Args:
        shards: A folder, a brace pattern, an address, or a list of them.
        setting: Name of the setting, for messages.
        cache_dir: Setting `data.cache_dir`, for remote shards and large indexes.
        cache_gb: Setting `data.cache_gb`, the GB of remote shards that are kept.
        negatives: Whether to read the false captions that are stored with the samples.
        tags: Number of captions of a sample, from the first on, whose stored tags are unpacked;
            None unpacks all of them.

    Raises:
        DataError: A shard is missing, broken, or differs from its index.
    """

    def __init__(
        self,
        shards: Any,
        setting: str = "data.shards",
        cache_dir: str | None = None,
        cache_gb: float = 100.0,
        negatives: bool = False,
        tags: int | None = None,
    ) -> None:
        self._negatives, self._tags = negatives, tags
        folder = cache_folder(cache_dir)
        self._cache = ShardCache(folder, int(cache_gb * GB))
        self._locations = locate_shards(shards, setting)
        self.paths = [self._cache.path(p) if isinstance(p, str) else p for p in self._locations]
        self._indexes = [
            index_path(path) if isinstance(place, str) else _index_place(path, folder / "indexes")
            for place, path in zip(self._locations, self.paths, strict=True)
        ]
        self._make_indexes()
        self.index: MergedIndex = merge(self._indexes, folder / "indexes")
        self._check_shards(setting)

    def _make_indexes(self) -> None:
        places = zip(self._locations, self.paths, self._indexes, strict=True)
        missing = [place for place in places if not place[2].exists()]
        index_missing([(path, index) for place, path, index in missing if place is path])
        urls = [place for place, _, _ in missing if isinstance(place, str)]
        with_progress("fetch", urls, self._cache.ensure_index, CONNECTIONS, self._cache.stopped.set)

    def _check_shards(self, setting: str) -> None:
        sizes, remote, limit = self.index.shard_bytes.tolist(), 0, self._cache.limit
        for place, size in zip(self._locations, sizes, strict=True):
            if isinstance(place, str):
                remote += size
            elif _size(place) != size:
                raise _changed(place)
        if remote > limit:
            print(
                f"WARNING: {setting}: the remote shards have {remote / GB:.3g} GB, more than "
                f"data.cache_gb={limit / GB:.3g}, so shards are fetched again and again; raise it, "
                "or train on fewer",
                file=sys.stderr,
            )
        if not len(self):
            raise DataError(f"{setting}: the {len(sizes)} shard(s) named hold no sample")

    def __len__(self) -> int:
        return len(self.index)

    def shard_counts(self) -> list[tuple[str, int]]:
        """Return name and number of samples of each shard."""
        counts = np.diff(self.index.starts).tolist()
        return [(path.name, count) for path, count in zip(self.paths, counts, strict=True)]

    def sizes(self) -> np.ndarray:
        return self.index.sizes

    def aspects(self) -> np.ndarray:
        return self.index.aspects

    def read(self, index: int) -> Sample:
        """Return sample `index`.

        Raises:
            DataError: It is broken, or its shard has changed, vanished or cannot be fetched again.
        """
        place = self.index.locate(index)
        shard, key = self.paths[place.shard], place.key
        if place.broken:
            broken = load_index(self._indexes[place.shard]).broken
            why = broken.get(place.row, "broken when it was indexed")
            raise DataError(f"{shard}: {key}: {why}")
        image, meta, text = self._bytes(place, shard)
        if zlib.crc32(text, zlib.crc32(meta, zlib.crc32(image))) != place.crc:
            raise DataError(f"{key}: {_changed(shard)}")
        try:
            record = parse_record(meta) if meta else {}
            captions = captions_of(record, text, checked=True)  # when indexed, and for each batch
            tags = None
            if self._tags != 0 and "caption_hash" in record:
                # An empty tuple if the stored tags belong to other captions.
                tags = stored_tokens(record, captions, self._tags) or ()
            negatives = negatives_of(record) if self._negatives else ()
        except DataError as error:
            raise DataError(f"{shard}: {key}: {error}") from error
        return Sample(key, image, captions, tags, negatives)

    def _bytes(self, place: SampleLocation, shard: Path) -> list[bytes]:
        where = self._locations[place.shard]
        try:
            if isinstance(where, str):
                with self._cache.open(where) as file:
                    return _read_spans(file.fileno(), place.spans, shard)
            # A file object would take twice as long.
            descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _read_spans(descriptor, place.spans, shard)
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            raise DataError(f"{shard} is no longer there; put it back") from error
        except OSError as error:
            raise DataError(f"{shard} cannot be read ({error.strerror}); fix that") from error


def _read_spans(file: int, spans: Sequence[Span], shard: Path) -> list[bytes]:
    """Return the bytes of each span of a tar, given its open file descriptor."""
    end = os.fstat(file).st_size
    found = []
    for offset, length in spans:
        data = os.pread(file, length, offset) if length and offset + length <= end else b""
        while 0 < len(data) < length:  # the kernel may return less at once
            more = os.pread(file, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        if len(data) != length:
            raise cut_short(shard, offset + length)
        found.append(data)
    return found


def _size(shard: Path) -> int:
    try:
        return shard.stat().st_size
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}); put it back") from error


def _changed(shard: Path) -> DataError:
    return DataError(
        f"{shard} has changed since it was indexed; put it back, or run: "
        f"clic-data index --force {shard}"
    )


def _index_place(shard: Path, folder: Path) -> Path:
    """Return the path of a shard's index: beside it if that is writable, else in the cache."""
    beside = index_path(shard)
    if beside.exists() or os.access(shard.parent, os.W_OK):
        return beside
    name = hashlib.blake2b(str(shard.resolve()).encode(), digest_size=8).hexdigest()
    return folder / f"{name}-{beside.name}"
