"""One http(s) connection, and which of its failures may pass."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import ssl
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from clic.download.partial import Origin
from clic.errors import DataError

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
