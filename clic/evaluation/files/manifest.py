"""Records the checksum of each downloaded file, and verifies files that are already there."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from clic.errors import DataError
from clic.io.files import file_sha256, write_whole

NAME = "fetched.json"
CHUNK = 1 << 20


def recorded(data_root: Path, path: str) -> str | None:
    """Return ``sha256:...`` of a file that was fetched before, None if it never was."""
    entry = _read(_place(data_root, path)).get(path)
    value = entry.get("sha256") if isinstance(entry, dict) else None
    return f"sha256:{value}" if isinstance(value, str) else None


def record(data_root: Path, path: str, file: Path, url: str) -> str:
    """Record a file's size and SHA-256, and return the latter."""
    place = _place(data_root, path)
    digest = file_sha256(file)
    entry = {
        "sha256": digest,
        "bytes": file.stat().st_size,
        "url": url,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    content = {**_read(place), path: entry}
    write_whole(place, json.dumps(content, indent=1) + "\n")
    return digest


def verify(data_root: Path, path: str, checksum: str | None) -> None:
    """Check an existing file against its published checksum, else against the recorded one.

    Raises:
        DataError: The file has another checksum.
    """
    expected = checksum or recorded(data_root, path)
    if expected is None:
        return
    file = data_root / path
    kind, _, value = expected.partition(":")
    if kind == "md5":
        check_md5(file, value, str(file))
    elif file_sha256(file) != value:
        raise DataError(
            f"{file} is not the file that {'is published' if checksum else 'was fetched'} (its "
            f"SHA-256 is not {value[:16]}...); move it away and fetch it again"
        )


def check_md5(file: Path, expected: str, name: str) -> None:
    """Raise `DataError` if a file has another MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{name} has the MD5 {digest.hexdigest()} where {expected} was expected; it is another "
            "file, or broken: try again"
        )


def _place(data_root: Path, path: str) -> Path:
    return data_root / Path(path).parts[0] / NAME


def _read(place: Path) -> dict[str, Any]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{place} cannot be read ({error}); remove it") from error
    return content if isinstance(content, dict) else {}
