"""Files that commands write: asked for before the work, and what the disk may answer."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clic.errors import ConfigError

DISK_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EIO,
)
"""What a place can answer to a file: no permission, read-only, full, no folder, broken."""


def disk_reason(error: OSError, path: str | Path | None = None) -> str:
    """Return what the disk refused to do, and why, on one line."""
    place = path or error.filename
    return (
        f"cannot read or write {place if place is not None else 'a file'}: {error.strerror}; "
        "choose another place, or mend its permissions or space"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever keeps a file from being written into a mistake that is the user's to mend.

    Raises:
        ConfigError: The block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(disk_reason(error, path)) from error


def check_writable(*paths: str | None) -> None:
    """Fail before the work where a file could not be written after it.

    Raises:
        ConfigError: A file's folder does not exist, or the path is a folder.
    """
    files = [Path(path).expanduser() for path in paths if path is not None]
    for file in files:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; name a file in it")
        if files.count(file) > 1:
            raise ConfigError(f"{file} is named twice; give each output a file of its own")
        if not file.parent.is_dir():
            raise ConfigError(f"cannot write {file}: there is no folder {file.parent}; make it")
        special = file.exists() and not file.is_file()  # written into, where files are replaced
        if not os.access(file if special else file.parent, os.W_OK):
            raise ConfigError(f"cannot write {file}: no permission; choose another file")
        if not special:
            try:
                tempfile.TemporaryFile(dir=file.parent).close()
            except OSError as error:
                raise ConfigError(
                    f"cannot write {file}: {error.strerror}; choose another file"
                ) from error


def check_folder(path: str) -> None:
    """Fail before the work where a folder could not be made, or written to, after it.

    Something is put there and removed again: /proc and some network disks grant a permission that
    they then refuse.

    Raises:
        ConfigError: The path is a file, there is no permission, or it cannot be written to.
    """
    folder = Path(path).expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"cannot write to {path}: {existing} is no folder; name another one")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"cannot write to {path}: no permission in {existing}; name another one")
    try:
        tempfile.TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        raise ConfigError(f"cannot write to {path}: {error.strerror}; name another one") from error
