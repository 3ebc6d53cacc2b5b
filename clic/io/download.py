"""Downloads one file over http(s), or from an object store, over as many connections as it takes.

fsspec, huggingface_hub and pooch were considered in place of this module and `http_connection`, but
none does all that is needed. fsspec's http file system neither resumes nor checks hashes; pooch
checks them, but starts a file anew after each failure; huggingface_hub resumes, but only files of
the Hub, whose ETag is the hash. None of them validates by ETag that the rest of a file belongs to
its beginning, abandons a server that sends only a trickle, or detects a file of unknown length that
was cut short. The object stores, s3 and gs, are read through fsspec.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import importlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial as bind
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from clic.errors import DataError
from clic.io import http_connection
from clic.io.files import file_sha256
from clic.io.http_connection import PassingError, RefusedError, check_content, connect, shown
from clic.io.locks import Lock, open_lock, take_lock

ATTEMPTS = 6
"""Attempts in a row without progress after which a download over http(s) fails."""
STORE_ATTEMPTS = 3
"""Attempts after which a download from an object store fails."""
BACKOFF = 0.5
"""Seconds before the next attempt, doubled after each without progress up to `LONGEST_WAIT`."""
LONGEST_WAIT = 30.0
CHUNK = 1 << 20
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""The package through which fsspec reads each kind of object store, and the Hub."""
MISSING = (403, 404, 410)
"""Status codes for a file that does not exist; some servers send 403 for it."""
Progress = Callable[[int, int | None], None]
_FULL = (errno.ENOSPC, errno.EDQUOT)


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
    name: str | None = None,
) -> Path:
    """Download a file and return its path.

    Received bytes are kept in `<target>.part`, and their origin in `<target>.part.json`. After a
    dropped connection, Ctrl-C or a kill a download over http(s) resumes there if the server proves
    by ETag or Last-Modified that the file is unchanged; otherwise it starts anew, as one from an
    object store always does. Processes that need the same target wait for each other. A web page
    instead of the file is refused, and a tar, zip or JSON file whose length the server does not
    send is checked for its end.

    Args:
        url: An http or https address, or one of a scheme in `PACKAGES`.
        target: File to write; an existing file is checked and kept.
        sha256: Its checksum in hexadecimal, if known.
        size: Its size in bytes, if known.
        progress: Called with the bytes so far and the total, None if the server does not send it.
        name: Its final name, whose ending implies its type; by default that of `target`.

    Returns:
        `target`.

    Raises:
        RefusedError: The server refuses to send the file, or does not have it.
        DataError: The file cannot be downloaded, or is not the expected one.
    """
    from_store = url.partition(":")[0].lower() in PACKAGES
    if not from_store and not re.match(r"https?://[^/\[]+(/|$)", url, re.IGNORECASE):
        raise DataError(f"{url!r} is no http or https address; check it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(target) as partial:
            if partial is None:
                _check(target, target, sha256, size)
                return target
            work = _Download(url, partial, name or target.name, size, progress)
            work.fetch_object() if from_store else work.fetch()
            with partial.cleared_if_wrong():
                _check(shown(url), partial.path, sha256, size)
            partial.finish()
    except OSError as error:
        reason = "the disk is full" if error.errno in _FULL else error.strerror or error
        raise DataError(f"{target} cannot be written ({reason}); make room, or mend it") from error
    return target


def _check_size(name: object, found: int | None, size: int | None) -> None:
    if size is not None and found not in (None, size):
        raise DataError(f"{name} has {found} bytes where {size} were expected; it is another file")


def _check(name: object, path: Path, sha256: str | None, size: int | None) -> None:
    _check_size(name, path.stat().st_size, size)
    if sha256 is not None and (found := file_sha256(path)) != sha256.lower():
        raise DataError(
            f"{name} has the SHA-256 {found} where {sha256.lower()} was expected; it is another "
            "file, or broken: remove it and try again"
        )


@dataclass(frozen=True)
class _Download:
    """Fills a partial file; the fields are as in `download`."""

    url: str
    partial: Partial
    name: str
    size: int | None
    progress: Progress | None

    def fetch(self) -> None:
        """Fetch the file over http(s), over as many connections as it takes."""
        failures, best, begun = 0, self.partial.size(), time.monotonic()
        while True:
            try:
                self._fetch_rest()
                origin = self.partial.origin()
                self._check_content(ended=origin is not None and origin.total is not None)
                return
            except PassingError as error:
                reached, now = self.partial.size(), time.monotonic()
                # One byte per connection could go on for ever, so progress is measured over time.
                enough = reached > best + http_connection.SLOWEST * (now - begun)
                failures, begun = 0 if enough else failures + 1, now
                best = max(best, reached)
                if failures >= ATTEMPTS:
                    kept = f"{reached} bytes are kept" if reached else "or check the address"
                    raise DataError(
                        f"{shown(self.url)} cannot be fetched ({error}; {failures} tries brought "
                        f"nothing more); try again later, {kept}"
                    ) from error
                time.sleep(min(max(error.wait, BACKOFF * 2.0**failures / 2), LONGEST_WAIT))

    def fetch_object(self) -> None:
        """Fetch the file from an object store, always from its beginning."""
        system, path = open_store(self.url)
        for left in reversed(range(STORE_ATTEMPTS)):
            self.partial.clear()
            try:
                total = int(system.size(path))
                with system.open(path, "rb") as file:
                    self._copy(bind(file.read, CHUNK), 0, total)
                return self._check_content(ended=True)
            except FileNotFoundError as error:
                raise RefusedError(f"{self.url} is not there; check it", 404) from error
            except (OSError, PassingError) as error:
                if not left:
                    raise DataError(
                        f"{self.url} cannot be fetched to {self.partial.target} ({error}); check "
                        "your access to both"
                    ) from error

    def _check_content(self, ended: bool) -> None:
        """Check that the file is of its name's type; `ended` is as in `check_content`."""
        self.partial.flush()
        with self.partial.cleared_if_wrong():
            check_content(self.partial.path, self.name, shown(self.url), ended)

    def _fetch_rest(self) -> None:
        """Fetch the missing rest over one connection; raises `PassingError` if it ends early."""
        old, have, headers = self.partial.origin(), self.partial.size(), {}
        if old is None or old.url != _address_id(self.url) or old.validator is None:
            have = 0
        elif have == old.total and have:
            return  # killed between the last byte and the rename
        elif have:
            headers = {"Range": f"bytes={have}-", "If-Range": old.validator}
        try:
            response = connect(self.url, headers)
        except PassingError as error:
            if error.status == 416:  # the file is now shorter than our part of it
                self.partial.clear()
            raise
        with response:
            new = origin_of(response, self.url)
            if response.status == 206 and old is not None:
                if not continues(response, old, new, have):
                    self.partial.clear()
                    raise PassingError("the file has changed meanwhile")
            else:
                have = 0
                self.partial.start(new)
            _check_size(shown(self.url), new.total, self.size)
            self._copy(bind(_receive, response), have, new.total)

    def _copy(self, read: Callable[[], bytes], have: int, total: int | None) -> None:
        """Append all that `read` returns to the `have` bytes of the partial file."""
        progress = self.progress or (lambda done, total: None)
        progress(have, total)
        try:
            while chunk := read():
                self.partial.write(chunk)
                have += len(chunk)
                progress(have, total)
        finally:
            self.partial.flush()
        if total is not None and have != total:
            raise PassingError(f"the connection ended after {have} of {total} bytes")


def _receive(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise PassingError(f"the connection broke: {error}") from error


@dataclass(frozen=True)
class Origin:
    """The file that a partial file belongs to."""

    url: str  # as `_address_id` returns it
    validator: str | None  # strong ETag or Last-Modified, by which the server recognises the file
    total: int | None  # size of the whole file in bytes, None if the server did not send it


def _address_id(url: str) -> str:
    """Return a name that is unique to a URL and contains none of its secrets."""
    return f"{shown(url)} {hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}"


def origin_of(response: http.client.HTTPResponse, url: str) -> Origin:
    """Return which file a response contains, in full or in part."""
    etag, total = response.headers.get("ETag"), response.length
    # A weak ETag (W/"...") promises equivalent content, not equal bytes.
    strong = etag if etag and not etag.startswith("W/") else None
    if response.status == 206:
        found = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        total = int(found[1]) if found else None
    return Origin(_address_id(url), strong or response.headers.get("Last-Modified"), total)


def continues(response: http.client.HTTPResponse, old: Origin, new: Origin, have: int) -> bool:
    """Return whether a partial response continues the `have` bytes that have arrived."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    same_file = new.total == old.total and new.validator in (None, old.validator)
    return start is not None and int(start[1]) == have and same_file


class Partial:
    """`<target>.part` with its `Origin` in `<target>.part.json`, held by one process at a time.

    If it cannot be locked, or belongs to another user, the process uses a separate file, which is
    never resumed.

    Args:
        target: The name of the complete file.
        path: The partial file.
        file: The same file, open for appending.
        kept: Whether another process may resume it.
    """

    def __init__(self, target: Path, path: Path, file: IO[bytes], kept: bool = True) -> None:
        self.target, self.path, self._file, self._kept = target, path, file, kept
        self._note = path.with_name(f"{path.name}.json")

    def size(self) -> int:
        """Return the number of bytes that have arrived."""
        return self._file.seek(0, os.SEEK_END)

    def origin(self) -> Origin | None:
        """Return which file the bytes belong to, None if that is unknown."""
        try:
            return Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def start(self, origin: Origin) -> None:
        """Discard the content and begin the file `origin`."""
        self.clear()
        self._note.write_text(json.dumps(asdict(origin)), encoding="utf-8")

    def clear(self) -> None:
        """Discard the content."""
        self._file.truncate(0)

    @contextmanager
    def cleared_if_wrong(self) -> Iterator[None]:
        """Discard the content if the block finds it wrong; otherwise it would be resumed."""
        try:
            yield
        except DataError:
            self.clear()
            raise

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)

    def flush(self) -> None:
        """Pass buffered bytes to the system, so that readers see them and a kill keeps them."""
        self._file.flush()

    def finish(self) -> None:
        """Rename the complete file to its final name."""
        self.flush()
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[Partial]:
        """Remove the files after the block if they are empty or must not be resumed."""
        try:
            yield self
        finally:
            if self.path.exists() and not (self._kept and self.path.stat().st_size):
                self.path.unlink()
                self._note.unlink(missing_ok=True)


@contextmanager
def partial_file(target: Path) -> Iterator[Partial | None]:
    """Open a partial file for this process alone, after waiting for others that fetch it.

    Yields None instead if the target exists by then.
    """
    path = target.with_name(f"{target.name}.part")
    while not target.exists():
        with open_lock(path) as file:
            lock = take_lock(file, path, shared=False, wait=True)
            if target.exists() or not _is_at(file, path):
                # The previous holder renamed or removed it; this one was made only for the lock.
                if _is_at(file, path):
                    _remove_empty(path)
                continue
            if lock is Lock.TAKEN and file.writable():
                with Partial(target, path, file).held() as partial:
                    yield partial
                return
        own = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with open(own, "ab") as file, Partial(target, own, file, kept=False).held() as partial:
                yield partial
        finally:
            _remove_empty(path)
        return
    yield None


def _remove_empty(path: Path) -> None:
    """Remove a partial file that was made only to be locked."""
    with suppress(OSError):
        if not path.stat().st_size:
            path.unlink()


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def beside(url: str, suffix: str) -> str:
    """Return an address with a suffix added to its file name."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))


def list_folder(url: str) -> list[str]:
    """Return the addresses of the tars in a folder of an object store, sorted.

    Raises:
        DataError: It cannot be listed.
    """
    system, path = open_store(url)
    pattern = path if "*" in path else f"{path.rstrip('/')}/*.tar"
    try:
        return sorted(system.unstrip_protocol(name) for name in system.glob(pattern))
    except OSError as error:
        raise DataError(f"{url} cannot be listed ({error}); check it and your access") from error


def open_store(url: str) -> tuple[Any, str]:
    """Return the file system of an object store, and the address's path in it."""
    package = PACKAGES[urlsplit(url).scheme.lower()]
    try:
        importlib.import_module(package)
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise DataError(f"{url} needs the package {package}; pip install {package}") from error
    system, path = fsspec.core.url_to_fs(url)
    return system, str(path)
