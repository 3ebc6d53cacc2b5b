"""The parts of a download: the connection, the partial file, and the check of what arrived.

fsspec, huggingface_hub and pooch were considered in place of this module and `download`, and none
keeps all of what is needed. fsspec's http file system does not resume, and has no checksums;
pooch checks them, and starts a file anew after each failure; huggingface_hub resumes, but only
what the Hub serves, whose ETag is the checksum. None of them validates by ETag that the rest of a
file belongs to its beginning, gives up on a server that only drips, or detects a file of unknown
length that was cut short. fsspec is used for s3 and gs in `remote`.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import re
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from clic.errors import DataError
from clic.io.locks import Lock, open_lock, take_lock

TIMEOUT = 60.0
SLOWEST = 1000.0
"""Bytes a second that a server must send, or another connection is tried."""
WINDOW = 60.0
"""Seconds of waiting over which that is measured."""
PASSING = (408, 416, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may answer otherwise to the next request."""
URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


class PassingError(Exception):
    """A failure that may be gone at the next attempt.

    Attributes:
        wait: Seconds that the server asks the client to wait.
        status: HTTP status, 0 if there was no answer.
    """

    def __init__(self, reason: object, wait: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.wait, self.status = wait, status


class RefusedError(DataError):
    """The server refuses to send the file.

    Attributes:
        status: HTTP status, e.g. 404.
    """

    def __init__(self, message: str, status: int = 0) -> None:  # pickle gives no status
        super().__init__(message)
        self.status = status


def connect(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Return the server's answer to a GET, its body not yet read.

    Raises:
        PassingError: Another attempt may succeed.
        RefusedError: The server refuses.
        DataError: The address or the certificate is wrong.
    """
    headers = {"User-Agent": "clic", "Accept-Encoding": "identity", **headers}
    try:
        request = urllib.request.Request(quote(url, safe=URL_CHARACTERS), headers=headers)
        return _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            said = f"the server says {error.code} {error.reason}"
            if error.code in PASSING:
                after = error.headers.get("Retry-After", "")
                wait = float(after) if after.isdecimal() else 0.0
                raise PassingError(said, wait, error.code) from error
            raise RefusedError(f"{shown(url)}: {said}; check the address", error.code) from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise DataError(f"{shown(url)} is no address ({error}); check it") from error
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError | str):
            raise DataError(f"{shown(url)} cannot be fetched ({reason}); check it") from error
        raise PassingError(getattr(reason, "strerror", None) or reason) from error


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone, so that no redirect leads to a file or ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        _Handler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


class _Paced(io.RawIOBase):
    """A socket's stream, head and body, that times out if the server sends too slowly."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self._waited, self._bytes = raw, 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        begin = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - begin
        self._bytes += count or 0
        if self._waited >= WINDOW:
            if count and self._bytes < SLOWEST * self._waited:
                raise TimeoutError(f"{self._bytes} bytes in {self._waited:.0f} seconds, too slow")
            self._waited, self._bytes = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https with connections whose responses are paced."""

    def do_open(self, http_class: Any, req: Any, **arguments: Any) -> http.client.HTTPResponse:
        def connection(*words: Any, **named: Any) -> http.client.HTTPConnection:
            made: http.client.HTTPConnection = http_class(*words, **named)
            made.response_class = _Response
            return made

        return super().do_open(connection, req, **arguments)


def describe(response: http.client.HTTPResponse, url: str) -> Origin:
    """Return which file a response holds, in full or in part."""
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    # A weak ETag (W/"...") promises equivalent content, not equal bytes.
    validator = etag if etag and not etag.startswith("W/") else modified
    if response.status == 206:
        total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return Origin(address_id(url), validator, int(total[1]) if total else None)
    return Origin(address_id(url), validator, response.length)


def address_id(url: str) -> str:
    """Return a name that is unique to a URL and holds none of its secrets."""
    return f"{shown(url)} {hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}"


def shown(url: str) -> str:
    """Return a URL without its user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class Origin:
    """The file that a partial file belongs to.

    Attributes:
        url: Its address, as `address_id` returns it.
        validator: Strong ETag or Last-Modified, by which the server recognises the file.
        total: Size of the whole file in bytes, None if the server did not say.
    """

    url: str
    validator: str | None
    total: int | None


class Partial:
    """`<target>.part` with its `Origin` in `<target>.part.json`, held by one process at a time.

    If it cannot be locked, or belongs to another user, the process uses a file of its own, which
    is never resumed.

    Args:
        target: What the file will be once it is whole.
        path: The partial file.
        file: The same file, open for appending.
        kept: Whether another process may resume it.
    """

    def __init__(self, target: Path, path: Path, file: IO[bytes], kept: bool = True) -> None:
        self.target, self.path, self._file, self._kept = target, path, file, kept
        self._note = path.with_name(f"{path.name}.json")

    def size(self) -> int:
        """Return the bytes that have arrived."""
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

    def leave(self) -> None:
        """Remove the files if they are empty or must not be resumed."""
        if self.path.exists() and not (self._kept and self.path.stat().st_size):
            self.path.unlink()
            self._note.unlink(missing_ok=True)


@contextmanager
def partial_file(target: Path) -> Iterator[Partial | None]:
    """Open a partial file for this process alone, after waiting for others that fetch it.

    Yields:
        The partial file, or None if the target exists by then.
    """
    path = target.with_name(f"{target.name}.part")
    while not target.exists():
        with open_lock(path) as file:
            known = take_lock(file, path, shared=False, wait=True)
            if target.exists() or not _is_at(file, path):
                # Its previous holder has renamed or removed it; after that it was made only to be
                # locked.
                with suppress(OSError):
                    if _is_at(file, path) and not path.stat().st_size:
                        path.unlink()
                continue
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
                    path.unlink()  # it was made only to be locked
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


BLOCK = tarfile.BLOCKSIZE
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script|\?xml|!--|error)", re.I)
POINTER = b"version https://git-lfs"
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd files begin; whether they are read as tars, their reader says."""
MARKUP = (".html", ".htm", ".xml", ".svg")


class WrongFileError(DataError):
    """What arrived is not the requested file."""


def check_content(path: Path, name: str, said: str, ended: bool) -> None:
    """Check that a downloaded file is what the ending of its name says.

    Args:
        path: The file.
        name: Its final name, whose ending counts.
        said: Its name in messages.
        ended: Whether the server sent a length and as many bytes arrived.

    Raises:
        WrongFileError: It is another kind of file.
        PassingError: It is cut short.
    """
    with path.open("rb") as file:
        start = file.read(BLOCK)
    kind = Path(name).suffix.lower()
    if PAGE.match(start) and kind not in MARKUP:
        raise WrongFileError(
            f"{said} answers with a web page (a quota, a sign-up or a move), not with the file; "
            "open it in a browser, or try again later"
        )
    if start.startswith(POINTER):
        raise WrongFileError(
            f"{said} answers with a git LFS pointer, not with the file; take the address that its "
            "download button has"
        )
    if kind == ".tar":
        _check_tar(path, start, said, ended)
    elif kind == ".zip":
        _check_zip(path, start, said, ended)
    elif kind == ".json" and not ended:  # a complete one is left to its reader
        _check_json(path, start, said)


def refuse_pointer(path: Path) -> None:
    """Raise `DataError` where a file that could not be read is what git leaves in its place."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise DataError(
                f"{path} is a git LFS pointer, not the file; run git lfs pull where it comes from"
            )


def is_tar(start: bytes) -> bool:
    """Return whether a file that begins with these bytes may be a tar."""
    if start.startswith(PACKED) or not start.strip(b"\0"):
        return True
    try:
        tarfile.TarInfo.frombuf(start[:BLOCK], tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_tar(path: Path, start: bytes, said: str, ended: bool) -> None:
    if not is_tar(start):
        raise WrongFileError(
            f"{said} is no tar (it begins with {start[:16]!r}); check the address, or whether it "
            "needs a sign-in"
        )
    if ended or start.startswith(PACKED):
        return
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            for _ in tar:
                pass
            file.seek(tar.offset)
            whole = file.read(BLOCK) == bytes(BLOCK)
    except tarfile.TarError:
        whole = False
    if not whole:
        raise PassingError("the tar ends early")


def _check_zip(path: Path, start: bytes, said: str, ended: bool) -> None:
    try:
        zipfile.ZipFile(path).close()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        if start.startswith(b"PK") and not ended:
            raise PassingError("the zip ends early") from error
        raise WrongFileError(
            f"{said} is no whole zip ({error}); check the address, or try again later"
        ) from error


def _check_json(path: Path, start: bytes, said: str) -> None:
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        raise WrongFileError(
            f"{said} is no JSON (it begins with {start[:16]!r}); check the address, or whether it "
            "needs a sign-in"
        )
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        if getattr(error, "msg", "") != "Extra data":  # which is a file of several values
            raise PassingError("the JSON ends early") from error
