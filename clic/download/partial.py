"""A file on its way: what has arrived of it, what it is part of, and who fetches it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from clic.locks import Lock, open_lock, take_lock


@dataclass(frozen=True)
class Origin:
    """What a partial file is part of.

    Attributes:
        url: Where it comes from, as `address_id` says it.
        validator: Strong ETag or Last-Modified, by which the server knows the file again.
        total: Bytes of the whole, None where the server did not say.
    """

    url: str
    validator: str | None
    total: int | None


class Partial:
    """`<target>.part`, and its `Origin` in `<target>.part.json`; one process has it at a time.

    Where it cannot be locked, or is another user's, a process has one of its own, which none
    continues.

    Args:
        target: What the file will be once it is whole.
        path: The partial file.
        file: It, open.
        kept: Whether another process may continue what this one leaves.
    """

    def __init__(self, target: Path, path: Path, file: IO[bytes], kept: bool = True) -> None:
        self.target, self.path, self._file, self._kept = target, path, file, kept
        self._note = path.with_name(f"{path.name}.json")

    def size(self) -> int:
        """Return the bytes that have arrived."""
        return self._file.seek(0, os.SEEK_END)

    def origin(self) -> Origin | None:
        """Return what the bytes are part of, None where that is not known."""
        try:
            return Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def start(self, origin: Origin) -> None:
        """Drop what is there and begin a file of `origin`."""
        self.clear()
        self._note.write_text(json.dumps(asdict(origin)), encoding="utf-8")

    def clear(self) -> None:
        """Drop what is there."""
        self._file.truncate(0)

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)

    def flush(self) -> None:
        """Put what was added on disk, so that a reader sees it and a kill keeps it."""
        self._file.flush()

    def finish(self) -> None:
        """Give the whole file its name."""
        self.flush()
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the files where nothing has arrived, or nobody may continue them."""
        if self.path.exists() and not (self._kept and self.path.stat().st_size):
            self.path.unlink()
            self._note.unlink(missing_ok=True)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


@contextmanager
def partial_file(target: Path) -> Iterator[Partial | None]:
    """Open what there is of a file for this process alone, waiting for others that fetch it.

    Yields:
        The partial file, or None where the target is there (by then).
    """
    path = _part(target)
    while not target.exists():
        with open_lock(path) as file:
            known = take_lock(file, path, shared=False, wait=True)
            if target.exists() or not _is_at(file, path):
                continue  # who held it has moved or removed the file meanwhile
            if known is Lock.TAKEN and file.writable():
                yield from _left(Partial(target, path, file))
                return
        own = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with open(own, "ab") as file:
                yield from _left(Partial(target, own, file, kept=False))
        finally:
            with suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()  # it was there to be locked
        return
    yield None


def _left(partial: Partial) -> Iterator[Partial]:
    try:
        yield partial
    finally:
        partial.leave()


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
