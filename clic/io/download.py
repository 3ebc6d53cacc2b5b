"""Download one file over http(s), over as many connections as it takes."""

from __future__ import annotations

import errno
import http.client
import re
import time
from collections.abc import Callable
from pathlib import Path

from clic.errors import DataError
from clic.io import http_connection
from clic.io.files import file_sha256
from clic.io.http_connection import (
    Origin,
    Partial,
    PassingError,
    address_id,
    check_content,
    connect,
    describe,
    partial_file,
    shown,
)

ATTEMPTS = 6
"""Attempts in a row without progress after which the download fails."""
BACKOFF = 0.5
"""Seconds before the next attempt, doubled after each without progress up to `LONGEST_WAIT`."""
LONGEST_WAIT = 30.0
CHUNK = 1 << 20
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
    """Download a file over http(s) and return its path.

    Received bytes are kept in `<target>.part`, and their origin in `<target>.part.json`. After a
    dropped connection, Ctrl-C or a kill the download resumes there if the server proves by ETag or
    Last-Modified that the file is unchanged; otherwise it starts anew. Processes that want the same
    target wait for each other. A web page instead of the file is refused, and a tar, zip or JSON
    file whose length the server does not send is checked for its end.

    Args:
        url: http or https.
        target: File to write; an existing file is checked and kept.
        sha256: Its checksum in hexadecimal, if known.
        size: Its size in bytes, if known.
        progress: Called with the bytes so far and the total, None if the server does not send it.
        name: Its final name, whose ending says what kind of file it is; default that of `target`.

    Returns:
        `target`.

    Raises:
        DataError: The file cannot be downloaded, or is not the expected one.
    """
    if not re.match(r"https?://[^/\[]+(/|$)", url, re.IGNORECASE):
        raise DataError(f"{url!r} is no http or https address; check it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(target) as partial:
            if partial is None:
                _check(target, target, sha256, size)
                return target
            _fetch(url, partial, size, progress, name or target.name)
            try:
                _check(shown(url), partial.path, sha256, size)
            except DataError:
                partial.clear()  # or it would be continued
                raise
            partial.finish()
    except OSError as error:
        reason = "the disk is full" if error.errno in _FULL else error.strerror or error
        raise DataError(f"{target} cannot be written ({reason}); make room, or mend it") from error
    return target


def _fetch(
    url: str, partial: Partial, size: int | None, progress: Progress | None, name: str
) -> None:
    """Fill the partial file, over as many connections as it takes."""
    failures, best, begun = 0, partial.size(), time.monotonic()
    while True:
        try:
            _fetch_rest(url, partial, size, progress)
            _check_arrived(url, partial, name)
            return
        except PassingError as error:
            reached, now = partial.size(), time.monotonic()
            # One byte for each connection would never end, so progress is measured against time.
            worth = reached > best + http_connection.SLOWEST * (now - begun)
            failures, begun = 0 if worth else failures + 1, now
            best = max(best, reached)
            if failures >= ATTEMPTS:
                kept = f"{reached} bytes are kept" if reached else "or check the address"
                raise DataError(
                    f"{shown(url)} cannot be fetched ({error}; {failures} tries brought nothing "
                    f"more); try again later, {kept}"
                ) from error
            wait = max(error.wait, BACKOFF * 2.0**failures / 2)
            time.sleep(min(wait, LONGEST_WAIT))


def _check_arrived(url: str, partial: Partial, name: str) -> None:
    """Raise if a complete file is not what its name says."""
    partial.flush()
    origin = partial.origin()
    try:
        ended = origin is not None and origin.total is not None
        check_content(partial.path, name, shown(url), ended)
    except DataError:
        partial.clear()  # or it would be continued
        raise


def _fetch_rest(url: str, partial: Partial, size: int | None, progress: Progress | None) -> None:
    """Fetch the missing rest over one connection.

    Raises:
        PassingError: It ended early.
    """
    old, have = partial.origin(), partial.size()
    if old is None or old.url != address_id(url) or old.validator is None:
        have = 0
    elif have and have == old.total:
        return  # killed between the last byte and the rename
    headers = {}
    if have and old is not None and old.validator is not None:
        headers = {"Range": f"bytes={have}-", "If-Range": old.validator}
    try:
        response = connect(url, headers)
    except PassingError as error:
        if error.status == 416:  # the file is shorter now than what we have of it
            partial.clear()
        raise
    with response:
        new = describe(response, url)
        if response.status == 206 and old is not None:
            if not _continues(response, old, new, have):
                partial.clear()
                raise PassingError("the file has changed meanwhile")
        else:
            have = 0
            partial.start(new)
        _check_size(shown(url), new.total, size)
        _copy(response, partial, have, new.total, progress)


def _continues(response: http.client.HTTPResponse, old: Origin, new: Origin, have: int) -> bool:
    """Return whether a partial response follows the bytes that are there."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return (
        start is not None
        and int(start[1]) == have
        and new.total == old.total
        and new.validator in (None, old.validator)
    )


def _copy(
    response: http.client.HTTPResponse,
    partial: Partial,
    have: int,
    total: int | None,
    progress: Progress | None,
) -> None:
    if progress:
        progress(have, total)
    try:
        while chunk := _receive(response):
            partial.write(chunk)
            have += len(chunk)
            if progress:
                progress(have, total)
    finally:
        partial.flush()
    if total is not None and have != total:
        raise PassingError(f"the connection ended after {have} of {total} bytes")


def _receive(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise PassingError(f"the connection broke: {error}") from error


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
