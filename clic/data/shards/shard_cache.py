"""A cache of whole remote shards on the local disk, of limited size."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from clic.data.shards.index import INDEX_SUFFIX, index_path, load_index, write_index
from clic.errors import DataError, UnavailableError
from clic.io.download import MISSING, beside, download
from clic.io.http_connection import BLOCK, RefusedError, WrongFileError, is_tar
from clic.io.locks import Lock, open_lock, take_lock

GB = 10**9
PATIENCE = 600.0
"""Seconds to wait for other processes to finish reading or downloading shards."""
STALE = 3600.0
"""Seconds after which a partial file on a disk without locks counts as abandoned."""
_THREADS = threading.Lock()
"""Keeps this process's threads from freeing space at the same time; file locks may not."""
POLL = 0.05
LOCKLESS = "*.tar.*.part"
"""Partial files of downloads that could not be locked."""
UNKNOWN = 16 << 20
"""Bytes after which space is freed again for a file whose length the server does not state."""


def cache_folder(setting: str | None) -> Path:
    """Return the folder for files that can be made or downloaded again.

    It is `data.cache_dir`, else the environment's CLIC_CACHE, else `clic` in XDG_CACHE_HOME, else
    `~/.cache/clic`.
    """
    if setting is None:
        setting = os.environ.get("CLIC_CACHE") or None
    if setting is not None:
        return Path(setting).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clic"


class ShardCache:
    """Remote shards on the local disk, shared by all processes of the machine.

    A shard is locked while it is read; the kernel releases the lock with the process. To free
    space, the least recently used shards are removed, but never a locked one. Indexes stay.

    Args:
        folder: The user's cache folder.
        limit: Bytes that the shards may occupy.

    Attributes:
        stopped: Set to end the downloads of other threads, which can be continued later.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder / "shards", limit
        self.stopped = threading.Event()

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, stopped=threading.Event())

    def path(self, url: str) -> Path:
        """Return the path of a shard in the cache, whether it is there or not."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(url.partition("?")[0]).stem)[-60:]
        digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        return self.folder / f"{digest}-{name}.tar"

    @contextmanager
    def open(self, url: str) -> Iterator[BinaryIO]:
        """Open a shard; download it first if it is not in the cache.

        Raises:
            UnavailableError: It cannot be fetched, or there is no space for it.
        """
        path = self.path(url)
        file = self._open_cached(path)
        while file is None:
            try:
                download(url, path, progress=_SpaceReservation(self, path))
            except DataError as error:
                raise UnavailableError(str(error)) from error
            finally:
                with suppress(OSError):  # left by another user's killed download
                    _grant(path).unlink(missing_ok=True)
            file = self._open_cached(path)  # None if another process has just removed it
        with file:
            yield file

    def _open_cached(self, path: Path) -> BinaryIO | None:
        try:
            file = open(path, "rb")  # noqa: SIM115, the caller closes it
            take_lock(file, path, shared=True, wait=True)
            mine = os.fstat(file.fileno())
            if not is_tar(os.pread(file.fileno(), BLOCK, 0)):
                path.unlink(missing_ok=True)  # a web page, cached before responses were checked
            elif os.path.samestat(mine, path.stat()):
                with suppress(OSError):  # it may be another user's, or the disk read-only
                    os.utime(path, ns=(time.time_ns(), mine.st_mtime_ns))
                return file
            file.close()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error) from error
        return None

    def ensure_index(self, url: str) -> Path:
        """Return the path of a shard's index, fetched from beside it or made from the shard.

        Raises:
            DataError: The shard cannot be fetched, or is broken.
        """
        target = index_path(self.path(url))
        if target.exists():
            return target
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock_path = target.with_name(f"{target.name}.lock")
            lock = open_lock(lock_path)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        with lock:
            take_lock(lock, lock_path, shared=False, wait=True)
            if not target.exists() and not _fetch_index(url, target):
                self._write_index(url, target)
            with suppress(PermissionError):  # another user's
                lock_path.unlink(missing_ok=True)
        return target

    def _write_index(self, url: str, target: Path) -> None:
        """Index a shard; download it again if, without locks, it was removed before it was read."""
        while True:
            try:
                with self.open(url):
                    write_index(self.path(url), target)
                return
            except DataError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise

    def reserve(self, need: int, path: Path) -> None:
        """Remove shards until `need` bytes are free, and reserve these for the file at a path.

        Raises:
            DataError: There is not enough space.
        """
        if need > self.limit:
            raise DataError(
                f"{path.name} has {need / GB:.3g} GB, more than data.cache_gb="
                f"{self.limit / GB:.3g}; raise it"
            )
        deadline = time.monotonic() + PATIENCE
        idle = False
        while missing := self._try_reserve(need, path):
            # The remaining shards are in use by others, and may be removed later. If none remain,
            # the last one may just have been removed, so check once more.
            was_idle, idle = idle, not any(map(_reserved, self._others(path)))
            if time.monotonic() > deadline or (idle and was_idle):
                raise DataError(missing)
            time.sleep(POLL)

    def _try_reserve(self, need: int, path: Path) -> str:
        """Remove unused shards until the bytes fit; return why they do not, or ''."""
        with _THREADS, open_lock(self.folder / ".lock") as lock:
            take_lock(lock, self.folder / ".lock", shared=False, wait=True)
            while missing := self._missing(need, path):
                if not any(_remove_unused(other) for other in self._others(path)):
                    return missing
            with suppress(PermissionError):  # left by another user's killed download
                _grant(path).write_text(str(need), encoding="utf-8")
        return ""

    def _missing(self, need: int, path: Path) -> str:
        """Return why `need` more bytes do not fit, or '' if they do."""
        taken: dict[Path, int] = {}  # by shard: one whose download just ended is listed twice
        for file in self._others(path):
            shard = _shard_of(file)
            taken[shard] = max(taken.get(shard, 0), _reserved(file))
        if sum(taken.values()) + need > self.limit:
            limit = f"data.cache_gb={self.limit / GB:.3g}"
            return f"the shards in use fill {limit} in {self.folder}; raise it"
        arrived = 0  # also if the disk has no locks, and the partial file has another name
        with suppress(FileNotFoundError):
            arrived = path.with_name(f"{path.name}.part").stat().st_size
        free = shutil.disk_usage(self.folder).free
        if free < need - arrived:
            return (
                f"{self.folder} has {free / GB:.3g} GB free and {path.name} needs "
                f"{need / GB:.3g}: the disk is full; make room, or choose another data.cache_dir"
            )
        return ""

    def _others(self, path: Path) -> list[Path]:
        """Return the other shards, the least recently used first, partial files included."""
        ages = []
        # Partial files first, so that one that is being renamed is seen twice rather than missed.
        for pattern in (LOCKLESS, "*.tar.part", "*.tar"):
            for file in self.folder.glob(pattern):
                if pattern == LOCKLESS and _is_stale(file):
                    with suppress(OSError):
                        file.unlink()
                elif _shard_of(file) != path:
                    with suppress(FileNotFoundError):
                        ages.append((file.stat().st_atime_ns, file))
        return [file for _, file in sorted(ages)]


def _fetch_index(url: str, target: Path) -> bool:
    """Fetch the index beside a remote shard; return whether there is a usable one."""
    fetched = target.with_name(f"{target.name}.fetched")
    try:
        download(beside(url, INDEX_SUFFIX), fetched)
    except RefusedError as error:
        if error.status not in MISSING:
            raise
        return False
    except WrongFileError:
        return False
    try:
        load_index(fetched)
    except DataError:  # another version, or another file of that name
        fetched.unlink()
        return False
    os.replace(fetched, target)
    return True


class _SpaceReservation:
    """Frees space for a file once its length is known: the progress callback of a download."""

    def __init__(self, cache: ShardCache, path: Path) -> None:
        self.cache, self.path, self._next = cache, path, 0

    def __call__(self, done: int, total: int | None) -> None:
        if self.cache.stopped.is_set():
            raise DataError(f"{self.path.name}: its download was stopped; start again")
        if done >= self._next:
            self.cache.reserve(done if total is None else total, self.path)
            self._next = done + UNKNOWN


def _grant(path: Path) -> Path:
    """Return the file that states how many bytes are reserved for a download."""
    return path.with_name(f"{path.name}.room")


def _shard_of(path: Path) -> Path:
    """Return the shard that a partial file becomes: `a.tar` of `a.tar.part` and `a.tar.x.part`."""
    while path.suffix not in ("", ".tar"):
        path = path.with_suffix("")
    return path


def _remove_unused(path: Path) -> bool:
    shard, partial = _shard_of(path), path.suffix == ".part"
    try:
        with open(path, "rb") as file:
            found = take_lock(file, path, shared=False, wait=False)
            # Without locks, shards in use cannot be recognised, but readers keep their open file.
            lockless = found is Lock.UNSUPPORTED or path.name != f"{shard.name}.part"
            if found is Lock.HELD or (lockless and partial and not _is_stale(path)):
                return False
            path.unlink()
            if partial:
                _grant(shard).unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # another user's
    return True


def _is_stale(path: Path) -> bool:
    """Return whether a partial file has not been written to for a long time."""
    try:
        return path.stat().st_mtime < time.time() - STALE
    except FileNotFoundError:
        return True


def _reserved(path: Path) -> int:
    """Return the bytes that a file has, or that are reserved for it."""
    shard = _shard_of(path)
    # The download may have ended, and its file been renamed, since the listing.
    for file in (path, shard):
        with suppress(FileNotFoundError):
            size = file.stat().st_size
            if file.suffix == ".part":
                with suppress(FileNotFoundError, ValueError):
                    return max(size, int(_grant(shard).read_text(encoding="utf-8")))
            return size
    return 0


def _unusable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be used ({error.strerror}); fix that, or choose another data.cache_dir"
    )
