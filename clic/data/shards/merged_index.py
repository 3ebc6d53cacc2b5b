"""One index of all shards of a source; a large one lies on disk and is mapped, not copied.

Shards without an index: indexed once, whichever processes start together.
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
    ShardIndex,
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
"""Bytes of indexes up to which they are simply read into memory."""
BLOCK = 512
_MERGED = ("blocks", "lengths", "crcs", "sizes", "key_ends")


class SampleLocation(NamedTuple):
    """Where a sample lies.

    Attributes:
        shard: Number of its shard.
        row: Its place in the shard.
        image, meta, text: Bytes of the tar.
        crc: CRC-32 of the three together.
        broken: Whether it was so when it was indexed.
    """

    shard: int
    row: int
    image: Span
    meta: Span
    text: Span
    crc: int
    broken: bool


class MergedIndex:
    """The samples of all shards, in order.

    Args:
        columns: `starts` [S + 1] and `key_starts` [S + 1] of each shard's samples and keys,
            `shard_bytes` [S], `aspects` [N] (1 wide, 0 square, -1 upright), `keys`, and the columns
            of the shards' indexes.
        origin: File that the columns are mapped from and its identity, None where it is memory.
    """

    def __init__(
        self, columns: dict[str, np.ndarray], origin: tuple[Path, str] | None = None
    ) -> None:
        self._columns, self._origin = columns, origin
        self.starts, self.shard_bytes = columns["starts"], columns["shard_bytes"]
        self.sizes, self.aspects = columns["sizes"], columns["aspects"]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> Any:
        # A process that is not forked maps the file itself instead of getting a copy.
        return self._origin or self._columns

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__init__(state)  # type: ignore[misc]
            return
        columns = _mapped(*state)
        if columns is None:
            raise DataError(f"{state[0]} was replaced meanwhile; start the run again")
        self.__init__(columns, state)  # type: ignore[misc]

    def place(self, index: int) -> SampleLocation:
        """Return where sample `index` lies."""
        columns = self._columns
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        image, meta, text = (
            Span(int(block) * BLOCK, int(length))
            for block, length in zip(
                columns["blocks"][index], columns["lengths"][index], strict=True
            )
        )
        row = index - int(self.starts[shard])
        broken = not columns["sizes"][index].any()
        return SampleLocation(shard, row, image, meta, text, int(columns["crcs"][index]), broken)

    def key(self, index: int) -> str:
        """Return the key of sample `index`."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        ends = self._columns["key_ends"]
        start = int(ends[index - 1]) if index > self.starts[shard] else 0
        base = int(self._columns["key_starts"][shard])
        raw = self._columns["keys"][base + start : base + int(ends[index])].tobytes()
        return raw.decode("utf-8", errors="surrogateescape")


def merge(indexes: Sequence[Path], folder: Path) -> MergedIndex:
    """Return the index of all shards.

    A large one is made once, in `folder`, and again when one of the shards' indexes has changed
    (another path, size or time). Processes that need it at once make it once: the others wait.

    Args:
        indexes: The shards' indexes.
        folder: Of the user's cache.

    Raises:
        DataError: An index is broken or of another version, or the folder cannot be written.
    """
    stats = [(str(path), _stat(path)) for path in indexes]
    if sum(stat.st_size for _, stat in stats) <= IN_MEMORY:
        return MergedIndex(_columns_of([load_index(path) for path in indexes]))
    names = hashlib.blake2b("\0".join(name for name, _ in stats).encode(), digest_size=12)
    parts = (f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0" for name, stat in stats)
    identity = hashlib.blake2b("".join(parts).encode(), digest_size=16).hexdigest()
    path = folder / f"{names.hexdigest()}.merged"
    columns = _mapped(path, identity)
    try:
        if columns is None:
            folder.mkdir(parents=True, exist_ok=True)
            with open_lock(path.with_suffix(".lock")) as file:
                take_lock(file, folder, shared=False, wait=True)
                columns = _mapped(path, identity)
                if columns is None:
                    _write(path, identity, indexes)
                    columns = _mapped(path, identity)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); choose another data.cache_dir "
            "or CLIC_CACHE"
        ) from error
    if columns is None:
        raise DataError(f"{path} was replaced meanwhile; start again")
    return MergedIndex(columns, (path, identity))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run: {remedy(path)}") from error


def _mapped(path: Path, identity: str) -> dict[str, np.ndarray] | None:
    """Return the mapped columns of a merged index, None where there is none of this identity."""
    try:
        header, columns = read_columns(path, FORMAT, VERSION, mapped=True)
    except (OSError, ColumnsError):
        return None
    return columns if header.get("identity") == identity else None


def _aspects(sizes: np.ndarray) -> np.ndarray:
    return np.sign(sizes[:, 0] - sizes[:, 1]).astype(np.int8)


def _starts(counts: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _columns_of(shards: Sequence[ShardIndex]) -> dict[str, np.ndarray]:
    names = (*_MERGED, "keys")
    columns = {name: np.concatenate([s.columns[name] for s in shards]) for name in names}
    columns["aspects"] = _aspects(columns["sizes"])
    columns["starts"] = _starts([s.samples for s in shards])
    columns["key_starts"] = _starts([len(s.columns["keys"]) for s in shards])
    columns["shard_bytes"] = np.array([s.shard_bytes for s in shards], dtype=np.int64)
    return columns


def _write(path: Path, identity: str, indexes: Sequence[Path]) -> None:
    """Write the merged index, with one shard's index in memory at a time."""
    counts = [index_counts(index) for index in indexes]
    starts, key_starts = (_starts([count[i] for count in counts]) for i in (0, 1))
    n, shards = int(starts[-1]), len(indexes)
    specs: dict[str, tuple[str, tuple[int, ...]]] = {
        "starts": ("<i8", (shards + 1,)),
        "key_starts": ("<i8", (shards + 1,)),
        "shard_bytes": ("<i8", (shards,)),
        "aspects": ("|i1", (n,)),
        "keys": ("|u1", (int(key_starts[-1]),)),
    }
    for name in _MERGED:
        dtype, width = COLUMNS[name]
        specs[name] = (dtype, (n, width) if width else (n,))
    with write_columns(path, FORMAT, VERSION, {"identity": identity}, specs) as writer:
        writer.put("starts", starts)
        writer.put("key_starts", key_starts)
        writer.put("shard_bytes", np.array([count[2] for count in counts]))
        for number, index in enumerate(indexes):
            columns = load_index(index).columns
            if (len(columns["crcs"]), len(columns["keys"])) != counts[number][:2]:
                raise DataError(f"{index} was changed meanwhile; start again")
            for name in _MERGED:
                writer.put(name, columns[name], int(starts[number]))
            writer.put("keys", columns["keys"], int(key_starts[number]))
            writer.put("aspects", _aspects(columns["sizes"]), int(starts[number]))


def index_missing(missing: Sequence[tuple[Path, Path]]) -> None:
    """Index shards, each a tar and its index to be; those that other processes are at come last."""
    if not missing:
        return
    # Ranks that start together begin at different shards.
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
    """Index a shard that has no index, unless another process is doing so.

    The kernel drops a process's claim with the process, so a killed one leaves none behind.

    Args:
        shard: The tar.
        target: Its index.
        wait: Whether to wait for the other process (and do its work, if it dies).

    Returns:
        Whether there is an index now.

    Raises:
        DataError: As `write_index`.
    """
    if target.exists():
        return True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _nowhere(shard, target, error) from error
    if not os.access(target.parent, os.W_OK):
        raise _nowhere(shard, target, PermissionError(None, "it may not be written"))
    try:
        with open(shard, "rb") as file:
            if take_lock(file, shard, shared=False, wait=wait) is Lock.HELD:
                return False
            if not target.exists():  # who had the claim may have written it
                write_index(shard, target)
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}); mend or remove it") from error
    return True


def _nowhere(shard: Path, target: Path, error: OSError) -> DataError:
    return DataError(
        f"there is no place for the index of {shard}: neither beside it nor in the cache, "
        f"{target.parent} ({error.strerror}); set data.cache_dir or CLIC_CACHE to a folder that "
        "can be written"
    )


def with_progress(
    title: str,
    items: Sequence[Any],
    work: Callable[[Any], object],
    threads: int = 1,
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Do some work for each item, with a bar on a terminal.

    Args:
        title: What is done.
        items: What it is done for.
        work: Does it.
        threads: How many at a time.
        stop: Called at Ctrl-C or a failure, to end what the other threads are at.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        results = pool.map(work, items) if threads > 1 else map(work, items)
        with progress_bar(title, len(items)) as advance:
            for _ in results:
                advance(1)
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
