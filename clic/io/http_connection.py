"""One http(s) connection, and which of its failures may pass.

A file on its way: what has arrived of it, what it is part of, and who fetches it.

Whether what has arrived is what its name promises: no web page, and no file that was cut.
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
    """A failure that another try may mend.

    Attributes:
        wait: Seconds that the server asks for.
        status: Its answer, 0 where there was none.
    """

    def __init__(self, reason: object, wait: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.wait, self.status = wait, status


class RefusedError(DataError):
    """The server will not give the file.

    Attributes:
        status: Its answer, e.g. 404.
    """

    def __init__(self, message: str, status: int = 0) -> None:  # 0, so that it can be pickled
        super().__init__(message)
        self.status = status


def connect(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Return the server's answer to a GET, its body not yet read.

    Raises:
        PassingError: Another try may help.
        RefusedError: None will, says the server.
        DataError: None will.
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
        _HTTPHandler,
        _HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


class _Paced(io.RawIOBase):
    """What a socket sends, head and body; a server that only drips is as good as silent."""

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


class _HTTPConnection(http.client.HTTPConnection):
    response_class = _Response


class _HTTPSConnection(http.client.HTTPSConnection):
    response_class = _Response


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPConnection, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPSConnection, req)


def describe(response: http.client.HTTPResponse, url: str) -> Origin:
    """Return what an answer is (part) of."""
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    # A weak ETag (W/"...") means "about the same", which is not enough to join two pieces.
    validator = etag if etag and not etag.startswith("W/") else modified
    if response.status == 206:
        total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return Origin(address_id(url), validator, int(total[1]) if total else None)
    return Origin(address_id(url), validator, response.length)


def address_id(url: str) -> str:
    """Return what tells a URL from others without what may be secret in it."""
    return f"{shown(url)} {hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}"


def shown(url: str) -> str:
    """Return a URL without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


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


BLOCK = tarfile.BLOCKSIZE
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script|\?xml|!--|error)", re.I)
POINTER = b"version https://git-lfs"
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd files begin; whether they are read as tars, their reader says."""
MARKUP = (".html", ".htm", ".xml", ".svg")


class WrongFileError(DataError):
    """What arrived is another thing than the file that was asked for."""


def check_content(path: Path, name: str, said: str, ended: bool) -> None:
    """Check a file that has arrived, as far as its name tells what it must be.

    Args:
        path: Where it lies.
        name: What it will be called; the ending counts.
        said: What the messages call it.
        ended: Whether the server told its length, and that has arrived.

    Raises:
        WrongFileError: It is something else.
        PassingError: It is cut.
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
    elif kind == ".json" and not ended:  # what was cut; what it holds is its reader's to judge
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
