"""One index for all shards of a source: mapped from disk if it is large, written by one process.

Shards without an index are indexed first, each by whichever process gets to it first.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clic.data.shards.index import (
    COLUMNS,
    ColumnsError,
    Put,
    Specs,
    index_counts,
    load_index,
    read_columns,
    remedy,
    write_columns,
    write_index,
)
from clic.data.shards.tar import Span
from clic.errors import DataError
from clic.io.locks import Lock, open_lock, take_lock
from clic.io.terminal import progress_bar

FORMAT, VERSION = "merged index", 1
IN_MEMORY = 8 << 20
"""Indexes of up to this many bytes in total are read into memory."""
BLOCK = 512
_MERGED = ("blocks", "lengths", "crcs", "sizes", "key_ends")


class SampleLocation(NamedTuple):
    """Where a sample is: its shard and row, its key, and the spans of image, JSON and text.

    `crc` is the CRC-32 of the three together; `broken` means that it was broken when indexed.
    """

    shard: int
    row: int
    key: str
    spans: tuple[Span, ...]
    crc: int
    broken: bool


class MergedIndex:
    """The samples of all shards, in order.

    Args:
        columns: `starts` [S + 1] and `key_starts` [S + 1] of each shard's samples and keys,
            `shard_bytes` [S], `aspects` [N] (the sign of width - height), `keys`, and the columns
            of the shards' indexes.
        origin: The file that the columns are mapped from and its identity; None if in memory.
    """

    def __init__(
        self, columns: dict[str, np.ndarray], origin: tuple[Path, str] | None = None
    ) -> None:
        self._columns, self._origin = columns, origin
        self.starts, self.shard_bytes = columns["starts"], columns["shard_bytes"]
        self.sizes, self.aspects = columns["sizes"], columns["aspects"]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        # A spawned process maps the file itself instead of receiving a copy.
        return (_open_mapped, self._origin) if self._origin else (MergedIndex, (self._columns,))

    def locate(self, index: int) -> SampleLocation:
        """Return where sample `index` is."""
        columns = self._columns
        shard = int(self.starts.searchsorted(index, side="right")) - 1
        row = index - self.starts.item(shard)
        base, ends = columns["key_starts"].item(shard), columns["key_ends"]
        start = ends.item(index - 1) if row else 0
        key = columns["keys"][base + start : base + ends.item(index)].tobytes()
        blocks, lengths = columns["blocks"][index].tolist(), columns["lengths"][index].tolist()
        places = zip(blocks, lengths, strict=True)
        return SampleLocation(
            shard,
            row,
            key.decode("utf-8", errors="surrogateescape"),
            tuple([Span(block * BLOCK, length) for block, length in places]),
            columns["crcs"].item(index),
            not any(self.sizes[index].tolist()),
        )


def merge(indexes: Sequence[Path], folder: Path) -> MergedIndex:
    """Merge the indexes of shards.

    A large result is written into `folder`, in the user's cache, and written again when one of the
    indexes has changed (another path, size or time). Of several processes that need it, one writes
    it and the others wait.

    Raises:
        DataError: An index is broken or of another version, or the folder cannot be written to.
    """
    stats = [(str(path), _stat(path)) for path in indexes]
    if sum(stat.st_size for _, stat in stats) <= IN_MEMORY:
        return MergedIndex(_read(indexes))
    names = hashlib.blake2b("\0".join(name for name, _ in stats).encode(), digest_size=12)
    parts = (f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0" for name, stat in stats)
    identity = hashlib.blake2b("".join(parts).encode(), digest_size=16).hexdigest()
    path = folder / f"{names.hexdigest()}.merged"
    try:
        if _mapped(path, identity) is None:
            folder.mkdir(parents=True, exist_ok=True)
            with open_lock(path.with_suffix(".lock")) as file:
                take_lock(file, folder, shared=False, wait=True)
                if _mapped(path, identity) is None:
                    _write(path, identity, indexes)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); choose another data.cache_dir "
            "or CLIC_CACHE"
        ) from error
    return _open_mapped(path, identity)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run: {remedy(path)}") from error


def _mapped(path: Path, identity: str) -> dict[str, np.ndarray] | None:
    """Return the mapped columns of a merged index, or None if there is none of this identity."""
    try:
        header, columns = read_columns(path, FORMAT, VERSION, mapped=True)
    except (OSError, ColumnsError):
        return None
    return columns if header.get("identity") == identity else None


def _open_mapped(path: Path, identity: str) -> MergedIndex:
    columns = _mapped(path, identity)
    if columns is None:
        raise DataError(f"{path} was replaced in the meantime; start again")
    return MergedIndex(columns, (path, identity))


def _read(indexes: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return the merged columns in memory."""
    counts = [index_counts(index) for index in indexes]
    columns = {name: np.zeros(shape, dtype) for name, (dtype, shape) in _specs(counts).items()}

    def put(name: str, rows: np.ndarray, start: int = 0) -> None:
        columns[name][start : start + len(rows)] = rows

    _fill(put, indexes, counts)
    return columns


def _write(path: Path, identity: str, indexes: Sequence[Path]) -> None:
    counts = [index_counts(index) for index in indexes]
    header = {"identity": identity}
    with write_columns(path, FORMAT, VERSION, header, _specs(counts)) as put:
        _fill(put, indexes, counts)


Counts = Sequence[tuple[int, int, int]]
"""For each shard the number of samples, the bytes of keys and the bytes of the tar."""


def _specs(counts: Counts) -> Specs:
    shards, n = len(counts), sum(samples for samples, _, _ in counts)
    specs: dict[str, tuple[str, tuple[int, ...]]] = {
        "starts": ("<i8", (shards + 1,)),
        "key_starts": ("<i8", (shards + 1,)),
        "shard_bytes": ("<i8", (shards,)),
        "aspects": ("|i1", (n,)),
        "keys": ("|u1", (sum(keys for _, keys, _ in counts),)),
    }
    for name in _MERGED:
        dtype, width = COLUMNS[name]
        specs[name] = (dtype, (n, width) if width else (n,))
    return specs


def _fill(put: Put, indexes: Sequence[Path], counts: Counts) -> None:
    """Write the merged columns, with one shard's index in memory at a time."""
    starts, key_starts = (np.cumsum([0, *(count[i] for count in counts)]) for i in (0, 1))
    put("starts", starts)
    put("key_starts", key_starts)
    put("shard_bytes", np.array([count[2] for count in counts], dtype=np.int64))
    for number, index in enumerate(indexes):
        columns = load_index(index).columns
        if (len(columns["crcs"]), len(columns["keys"])) != counts[number][:2]:
            raise DataError(f"{index} was changed in the meantime; start again")
        start, (width, height) = int(starts[number]), columns["sizes"].T
        for name in _MERGED:
            put(name, columns[name], start)
        put("keys", columns["keys"], int(key_starts[number]))
        put("aspects", np.sign(width - height), start)


def index_missing(missing: Sequence[tuple[Path, Path]]) -> None:
    """Index shards, given as tar and index path; wait at the end for those that others index."""
    if not missing:
        return
    # Ranks that start at the same time begin with different shards.
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    turn = rank * len(missing) // ranks
    if rank == 0:
        print(
            f"shards without an index: {len(missing)}; they are indexed now (clic-data index does "
            "it with several processes)",
            file=sys.stderr,
        )
    busy = []

    def index(pair: tuple[Path, Path]) -> None:
        if not ensure_index(*pair, wait=False):
            busy.append(pair)

    with_progress("index", [*missing[turn:], *missing[:turn]], index)
    for pair in busy:
        ensure_index(*pair, wait=True)


def ensure_index(shard: Path, target: Path, wait: bool) -> bool:
    """Index a shard that has no index; return whether there is one now.

    If another process is indexing it, `wait` waits for that process, and takes over if it dies.
    The kernel releases a lock with its process, so a killed process leaves no lock.

    Raises:
        DataError: As `write_index`, or the index cannot be written.
    """
    if target.exists():
        return True
    reason = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK):
            reason = "no permission"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise DataError(
            f"the index of {shard} can be written neither beside it nor into the cache, "
            f"{target.parent} ({reason}); set data.cache_dir or CLIC_CACHE to a folder that "
            "can be written"
        )
    try:
        with open(shard, "rb") as file:
            if take_lock(file, shard, shared=False, wait=wait) is Lock.HELD:
                return False
            if not target.exists():  # the process that held the lock may have written it
                write_index(shard, target)
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}); fix or remove it") from error
    return True


def with_progress(
    title: str,
    items: Sequence[Any],
    work: Callable[[Any], object],
    threads: int = 1,
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Call `work` on each item, in several `threads`, with a progress bar on a terminal.

    After Ctrl-C or a failure, `stop` is called to end the work of the other threads.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        done = pool.map(work, items) if threads > 1 else map(work, items)
        with progress_bar(title, len(items)) as advance:
            for _ in done:
                advance(1)
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
