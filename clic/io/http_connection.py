"""Connections over http(s), and the check that they delivered the file and not a web page."""

from __future__ import annotations

import http.client
import io
import json
import re
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from clic.errors import DataError

TIMEOUT = 60.0
SLOWEST = 1000.0
"""Bytes per second that a server must send; below that, another connection is tried."""
WINDOW = 60.0
"""Seconds of waiting over which `SLOWEST` is measured."""
PASSING = (408, 416, 425, 429, 500, 502, 503, 504)
"""Status codes after which another attempt may succeed."""
URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


class PassingError(Exception):
    """A failure after which another attempt may succeed."""

    def __init__(self, reason: object, wait: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.wait = wait  # seconds that the server asks the client to wait
        self.status = status  # HTTP status, 0 if there was no answer


class RefusedError(DataError):
    """The server refuses to send the file, with an HTTP `status` such as 404."""

    def __init__(self, message: str, status: int = 0) -> None:  # pickle passes no status
        super().__init__(message)
        self.status = status


def connect(
    url: str, headers: dict[str, str], timeout: float | None = None
) -> http.client.HTTPResponse:
    """Return the server's response to a GET, with its body not yet read.

    Args:
        url: The address.
        headers: Headers of the request.
        timeout: Seconds that the server may be silent at a time; None is `TIMEOUT`.

    Raises:
        PassingError: Another attempt may succeed.
        RefusedError: The server refuses.
        DataError: The address or the certificate is wrong.
    """
    headers = {"User-Agent": "clic", "Accept-Encoding": "identity", **headers}
    try:
        request = urllib.request.Request(quote(url, safe=URL_CHARACTERS), headers=headers)
        return _opener().open(request, timeout=TIMEOUT if timeout is None else timeout)
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
    """Return an opener for http and https only, so that no redirect leads to a file or ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(_Handler, urllib.request.ProxyHandler, urllib.request.UnknownHandler),
        *(urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler),
        urllib.request.HTTPErrorProcessor,
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


def shown(url: str) -> str:
    """Return a URL without its user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


BLOCK = tarfile.BLOCKSIZE
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script|\?xml|!--|error)", re.I)
POINTER = b"version https://git-lfs"
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, bzip2, xz and zstd files; a tar's reader decides whether to accept these."""
MARKUP = (".html", ".htm", ".xml", ".svg")


class WrongFileError(DataError):
    """The downloaded file is not the requested one."""


def check_content(path: Path, name: str, said: str, ended: bool) -> None:
    """Check that a downloaded file is of the type that the ending of its final name implies.

    Args:
        path: The file.
        name: Its final name.
        said: Its name in messages.
        ended: Whether the server sent a length and that many bytes arrived.

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
    is_json = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    # A complete JSON file is checked by its reader.
    if (kind == ".tar" and not is_tar(start)) or (kind == ".json" and not ended and not is_json):
        raise WrongFileError(
            f"{said} is no {'tar' if kind == '.tar' else 'JSON'} (it begins with {start[:16]!r}); "
            "check the address, or whether it needs a sign-in"
        )
    if kind == ".zip":
        _check_zip(path, start, said, ended)
    elif kind == ".tar" and not ended and not start.startswith(PACKED) and not _tar_ends(path):
        raise PassingError("the tar ends early")
    elif kind == ".json" and not ended and not _json_ends(path):
        raise PassingError("the JSON ends early")


def refuse_pointer(path: Path) -> None:
    """Raise `DataError` if a file that could not be read is the pointer that git LFS leaves."""
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


def _tar_ends(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            for _ in tar:
                pass
            file.seek(tar.offset)
            return file.read(BLOCK) == bytes(BLOCK)
    except tarfile.TarError:
        return False


def _json_ends(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        return getattr(error, "msg", "") == "Extra data"  # a file of several values
    return True


def _check_zip(path: Path, start: bytes, said: str, ended: bool) -> None:
    try:
        zipfile.ZipFile(path).close()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        if start.startswith(b"PK") and not ended:
            raise PassingError("the zip ends early") from error
        raise WrongFileError(
            f"{said} is no whole zip ({error}); check the address, or try again later"
        ) from error
