"""A web server that fails on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Site:
    """What a server serves, and how it misbehaves.

    Attributes:
        files: Content by path.
        drops: Bytes after which the next connections break off, one entry for each.
        stalls: Seconds that the next answers wait in the middle, one entry for each.
        answers: Status codes (and headers) that the next requests get instead of a file.
        ranges: Whether it knows of ranges.
        validators: Headers that name the version of a file; `{hash}` is put in.
        lengths: Whether it says how long a file is.
        requests: Path and Range header of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    validators: dict[str, str] = field(default_factory=lambda: {"ETag": '"{hash}"'})
    lengths: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Serves `site`."""

    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append((self.path, self.headers.get("Range")))
        if site.answers:
            code, headers = site.answers.pop(0)
            self._head(code, {"Content-Length": "0", **headers})
            return
        data = site.files.get(self.path.partition("?")[0])
        if data is None:
            self._head(404, {"Content-Length": "0"})
            return
        tag = hashlib.md5(data).hexdigest()[:8]
        headers = {name: value.format(hash=tag) for name, value in site.validators.items()}
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in headers.values()
        first, code = 0, 200
        if asked and same and site.ranges:
            first, code = int(asked[1]), 206
            if first >= len(data):
                self._head(416, {"Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if site.lengths:
            headers["Content-Length"] = str(len(data) - first)
        self._head(code, headers)
        stop = first + site.drops.pop(0) if site.drops else len(data)
        middle = (first + stop) // 2
        self.wfile.write(data[first:middle])
        if site.stalls:
            threading.Event().wait(site.stalls.pop(0))
        with contextlib.suppress(ConnectionError):  # who asked may have left
            self.wfile.write(data[middle:stop])

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a server's site; it runs as long as the test."""
    served = Site()
    handler = type("SiteHandler", (Handler,), {"site": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield served
    server.shutdown()
    thread.join()
    server.server_close()
