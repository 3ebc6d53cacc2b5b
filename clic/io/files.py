"""Writes files whole or not at all, and refuses bad paths before the work rather than after it."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clic.errors import ConfigError

DISK_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO),
)
"""Errors that the user can fix: a permission, a full or broken disk, a wrong path."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place when the block succeeds.

    A reader sees the old file or the new one, never half of it. After an exception the temporary
    file is removed and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes, *, sync: bool = False) -> None:
    """Write or replace a file so that it exists in full or not at all, even after a kill.

    Args:
        path: The file.
        content: Bytes, or text to be written as UTF-8.
        sync: Wait until the content has reached the disk, so that it survives a power failure.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def disk_reason(error: OSError, path: str | Path | None = None) -> str:
    """Return which file or folder the system refused, and why, on one line."""
    return (
        f"cannot read or write {path or error.filename or 'a file'}: {error.strerror}; "
        "choose another place, or fix its permissions or free space"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `ConfigError` that names the path."""
    try:
        yield
    except OSError as error:
        raise ConfigError(disk_reason(error, path)) from error


def check_writable(*paths: str | None) -> None:
    """Check before the work that each of these files can be written afterwards.

    Raises:
        ConfigError: A file's folder does not exist or cannot be written to, the path is a folder,
            or a path is given twice.
    """
    files = [Path(path).expanduser() for path in paths if path is not None]
    for file in files:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; name a file in it")
        if files.count(file) > 1:
            raise ConfigError(f"{file} is named twice; give each output a file of its own")
        if not file.parent.is_dir():
            raise ConfigError(f"cannot write {file}: there is no folder {file.parent}; make it")
        special = file.exists() and not file.is_file()  # such as /dev/stdout, which is not replaced
        reason = ""
        if not os.access(file if special else file.parent, os.W_OK):
            reason = "no permission"
        elif not special:
            reason = _refusal(file.parent)
        if reason:
            raise ConfigError(f"cannot write {file}: {reason}; choose another file")


def check_folder(path: str) -> None:
    """Check before the work that a folder can be created or written to afterwards.

    Raises:
        ConfigError: The path is a file, there is no permission, or it cannot be written to.
    """
    folder = Path(path).expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"cannot write to {path}: {existing} is not a folder; name another one")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"cannot write to {path}: no permission in {existing}; name another one")
    if reason := _refusal(existing):
        raise ConfigError(f"cannot write to {path}: {reason}; name another one")


def _refusal(folder: Path) -> str:
    """Return why the system refuses to write into a folder, or ''.

    Checking permissions is not enough: /proc and some network disks grant them and then refuse.
    """
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
