"""Reads a file from beginning to end while the next part is being fetched.

A thread fetches the file over as many connections as it takes, each continuing where the last one
broke. Only the reader measures time, so a server that sends nothing, or next to nothing, causes an
error whatever the underlying library is waiting for.
"""

from __future__ import annotations

import http.client
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from clic.errors import ClicError, DataError, UnavailableError
from clic.io.download import Origin, continues, open_store, origin_of
from clic.io.http_connection import PassingError, RefusedError, connect, shown

T = TypeVar("T")

CHUNK = 256 << 10
"""Bytes that must arrive within the reader's patience."""
AHEAD = 16
"""Chunks that are fetched ahead."""
BACKOFF, LONGEST_WAIT = 0.2, 5.0
"""Seconds before the next connection: the first wait, doubled up to the longest."""
ATTEMPTS_WITHIN = 3
"""Connections to a silent server that are tried within the reader's patience."""


class StreamReader:
    """A file at an address, read once from its beginning and fetched ahead of its reader.

    Args:
        url: An http or https address, or one that fsspec reads (s3, gs, hf).
        patience: Seconds within which a chunk must arrive.

    Attributes:
        url: The address.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.url, self.patience = url, patience
        self._parts: queue.Queue[bytes | Exception] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._trouble = ""  # why the last connection ended, if it did
        self._rest, self._ended = memoryview(b""), False
        threading.Thread(target=self._fetch, daemon=True, name=f"fetch {shown(url)}").start()

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, or fewer at the end; if negative, all that is left.

        Raises:
            UnavailableError: Nothing arrived for too long.
            DataError: The file cannot be fetched.
        """
        found: list[bytes] = []
        missing = size
        while missing and (self._rest or self._more()):
            part = self._rest if size < 0 else self._rest[:missing]
            self._rest = self._rest[len(part) :]
            missing -= len(part) if size >= 0 else 0
            found.append(bytes(part))
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        """Stop fetching."""
        self._closed.set()

    def _more(self) -> bool:
        """Wait for the next part; return whether there is one."""
        if self._ended:
            return False
        try:
            part = self._parts.get(timeout=self.patience)
        except queue.Empty:
            self.close()
            trouble = f"; the last connection: {self._trouble}" if self._trouble else ""
            raise UnavailableError(
                f"{shown(self.url)}: less than {CHUNK >> 10} KiB arrived in {self.patience:g} "
                f"seconds{trouble}"
            ) from None
        if isinstance(part, Exception):
            self.close()
            raise part
        self._rest, self._ended = memoryview(part), not part
        return not self._ended

    # --- the thread ---

    def _fetch(self) -> None:
        try:
            for part in self._chunks():
                self._put(part)
            self._put(b"")
        except ClicError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001, whatever it is, the reader raises it
            self._put(DataError(f"{shown(self.url)} cannot be read ({error!r})"))

    def _put(self, part: bytes | Exception) -> None:
        while not self._closed.is_set():
            try:
                return self._parts.put(part, timeout=0.5)
            except queue.Full:
                continue

    def _chunks(self) -> Iterator[bytes]:
        """Yield the file in chunks, over as many connections as it takes."""
        source: _Http | _Store = _Store(self.url)
        if self.url.lower().startswith("http"):
            source = _Http(self.url, self.patience / ATTEMPTS_WITHIN)
        have, wait, held = 0, BACKOFF, bytearray()
        while not self._closed.is_set():
            try:
                for piece in source.pieces(have):
                    have, wait = have + len(piece), BACKOFF
                    held += piece
                    if len(held) >= CHUNK:
                        yield bytes(held)
                        held.clear()
                    if self._closed.is_set():
                        return
                yield bytes(held)
                return
            except PassingError as error:
                self._trouble = " ".join(str(error).split())
                self._closed.wait(max(wait, min(error.wait, self.patience)))
                wait = min(wait * 2, LONGEST_WAIT)


class _Http:
    """A file on a web server."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.origin: Origin | None = None

    def pieces(self, have: int) -> Iterator[bytes]:
        """Yield the bytes after the first `have`; raises `PassingError` if that breaks off."""
        headers = {}
        if have and self.origin is not None and self.origin.validator is not None:
            headers = {"Range": f"bytes={have}-", "If-Range": self.origin.validator}
        with connect(self.url, headers, self.timeout) as response:
            found, skip = origin_of(response, self.url), have
            self.origin = self.origin or found
            if response.status == 206:
                if not continues(response, self.origin, found, have):
                    raise self._changed()
                skip = 0
            elif found != self.origin:
                raise self._changed()
            total, come = found.total, have - skip
            while piece := _receive(response):
                come += len(piece)
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))
            if total is not None and come != total:
                raise PassingError(f"it ended after {come} of {total} bytes")

    def _changed(self) -> DataError:
        return DataError(f"{shown(self.url)} changed while it was read")


class _Store:
    """A file in an object store, or on the Hub, through fsspec."""

    def __init__(self, url: str) -> None:
        self.url = url

    def pieces(self, have: int) -> Iterator[bytes]:
        """Yield the bytes after the first `have`; raises `PassingError` if that breaks off."""
        system, path = open_store(self.url)
        try:
            with system.open(path, "rb") as file:
                file.seek(have)
                while piece := file.read(CHUNK):
                    yield piece
        except (FileNotFoundError, PermissionError) as error:
            raise RefusedError(f"{shown(self.url)} cannot be read ({error}); check it") from error
        except Exception as error:  # the stores' packages raise their own errors
            raise PassingError(repr(error)) from error


def _receive(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise PassingError(f"it broke: {error}") from error


def within(seconds: float, what: str, work: Callable[[], T]) -> T:
    """Return the result of `work` if it takes at most `seconds`; messages call it `what`.

    Raises:
        UnavailableError: It took longer.
    """
    outcome: queue.Queue[Any] = queue.Queue(1)

    def run() -> None:
        try:
            outcome.put((work(), None))
        except Exception as error:  # noqa: BLE001, the caller raises it
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        found, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise UnavailableError(f"{what}: no answer within {seconds:g} seconds") from None
    if error is not None:
        raise error
    return found
