"""Files of http(s), s3 and gs addresses, fetched whole."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from clic.errors import DataError
from clic.io.download import download
from clic.io.http_connection import RefusedError, check_content, partial_file, shown

CHUNK = 1 << 20
TRIES = 3
PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""What fsspec needs for an address."""
MISSING = (403, 404, 410)
"""What servers say of a file that is not there; some name its absence a lack of permission."""
Progress = Callable[[int, int | None], None]


def fetch(url: str, target: Path, progress: Progress | None = None) -> Path:
    """Fetch a file; as `clic.io.download.download`, for every kind of address.

    Raises:
        RefusedError: There is no such file.
        DataError: It cannot be had.
    """
    if urlsplit(url).scheme.lower() in ("http", "https"):
        return download(url, target, progress=progress)
    return _fetch_object(url, target, progress)


def beside(url: str, suffix: str) -> str:
    """Return the address of a file whose name is longer by a suffix."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))


def list_folder(url: str) -> list[str]:
    """Return the addresses of the tars in a folder of an object store, sorted.

    Raises:
        DataError: It cannot be listed.
    """
    system, path = _open_store(url)
    pattern = path if "*" in path else f"{path.rstrip('/')}/*.tar"
    try:
        return sorted(system.unstrip_protocol(name) for name in system.glob(pattern))
    except OSError as error:
        raise DataError(f"{url} cannot be listed ({error}); check it and your access") from error


def _open_store(url: str) -> tuple[Any, str]:
    package = PACKAGES[urlsplit(url).scheme.lower()]
    try:
        importlib.import_module(package)
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise DataError(f"{url} needs the package {package}; pip install {package}") from error
    system, path = fsspec.core.url_to_fs(url)
    return system, str(path)


def _fetch_object(url: str, target: Path, progress: Progress | None) -> Path:
    """Fetch a file of an object store; what an earlier try left is dropped."""
    system, path = _open_store(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(target) as partial:
        if partial is None:
            return target
        for left in reversed(range(TRIES)):
            partial.clear()
            try:
                total = int(system.size(path))
                with system.open(path, "rb") as file:
                    done = 0
                    if progress:
                        progress(0, total)
                    while chunk := file.read(CHUNK):
                        partial.write(chunk)
                        done += len(chunk)
                        if progress:
                            progress(done, total)
                if done != total:
                    raise ConnectionError(f"{done} of {total} bytes")
                partial.flush()
                check_content(partial.path, target.name, shown(url), ended=True)
            except FileNotFoundError as error:
                raise RefusedError(f"{url} is not there; check it", 404) from error
            except OSError as error:
                if not left:
                    raise DataError(
                        f"{url} cannot be fetched to {target} ({error}); check your access to both"
                    ) from error
            else:
                partial.finish()
                return target
    raise AssertionError("unreachable")
