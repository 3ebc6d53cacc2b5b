"""Unpacks archives without writing outside the folder or over files that exist."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from clic.errors import DataError

GROWTH = 200
"""How many times its own size an archive may unpack to: images hardly grow, text grows 30 times."""
ALLOWED = 1 << 30
"""Bytes that any archive may unpack to, however small it is."""
SPARE = 1 << 28
"""Bytes of the disk that must stay free."""


class Member(NamedTuple):
    """A file in an archive: its name, its size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, into: Path, only: str | None = None, rename: tuple[str, str] | None = None
) -> int:
    """Unpack a zip or tar file and return the number of new files.

    Everything is unpacked into a temporary folder first, so that a killed process leaves no partial
    file under its final name. Files that exist are not touched.

    Args:
        archive: The file.
        into: Folder that the members are put into.
        only: File or folder of the archive to unpack, None for all.
        rename: Old and new name of the archive's top folder.

    Raises:
        DataError: The archive is broken, encrypted or implausibly large, the disk is full,
            or a member is a link or would be written outside the folder.
    """
    into.mkdir(parents=True, exist_ok=True)
    total, most = 0, max(ALLOWED, GROWTH * archive.stat().st_size)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=into) as temporary:
        place = Path(temporary)
        with _known_errors(archive, into):
            for member in _members(archive):
                total += member.size
                if total > most:
                    raise DataError(
                        f"{archive} has {archive.stat().st_size:,} bytes and more than {most:,} in "
                        "it; do not trust it, and remove it"
                    )
                parts = _safe_parts(member.name, archive)
                wanted = _within(parts, only)
                if wanted is None:
                    continue
                if rename is not None and wanted[0] == rename[0]:
                    wanted = (rename[1], *wanted[1:])
                check_room(member.size, into)
                target = place.joinpath(*wanted)
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        return _move(place, into)


@contextmanager
def _known_errors(archive: Path, into: Path) -> Iterator[None]:
    """Turn the errors of reading a broken or encrypted archive into `DataError`."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EEXIST, errno.EINVAL):
            raise  # an error of the disk, not of the archive
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{archive} is no whole archive ({reason}); remove it and fetch it again"
        ) from error
    except RuntimeError as error:  # encrypted, or a compression that zipfile does not support
        raise DataError(
            f"{archive} cannot be unpacked here ({error}); unpack it by hand into {into}"
        ) from error


def check_room(needed: int, place: Path) -> None:
    """Raise `DataError` if a disk has no space for `needed` more bytes."""
    folder = place
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE > free:
        raise DataError(
            f"{place} needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left; "
            "make room, or name another folder with --data"
        )


def _within(parts: tuple[str, ...], only: str | None) -> tuple[str, ...] | None:
    """Return a member's parts if it is wanted, else None."""
    if only is None:
        return parts
    wanted = PurePosixPath(only).parts
    # Some archives wrap everything in a folder.
    for start in (0, 1):
        if parts[start : start + len(wanted)] == wanted:
            return parts[start:]
    return None


def _members(archive: Path) -> Iterator[Member]:
    """Yield the regular files; anything else, except folders, is an error."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise DataError(
                        f"{archive}: {info.filename!r} is a link, which is not unpacked"
                    )
                yield Member(info.filename, info.file_size, partial(opened.open, info))
        return
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isdir():
                continue
            if not entry.isreg():
                raise DataError(f"{archive}: {entry.name!r} is a link, which is not unpacked")
            yield Member(entry.name, entry.size, partial(_content, tar, entry))


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(entry)
    assert content is not None  # a regular file
    return content


def _safe_parts(name: str, archive: Path) -> tuple[str, ...]:
    """Return the parts of a member's name, which must stay inside the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(part for part in path.parts if part != ".")
    if path.is_absolute() or ".." in parts or not parts or ":" in parts[0]:
        raise DataError(f"{archive}: {name!r} would be put outside the folder; do not trust it")
    return parts


def _move(place: Path, into: Path) -> int:
    """Move unpacked files to their places unless they exist there; return the number moved."""
    moved = 0
    for entry in sorted(place.iterdir()):
        target = into / entry.name
        if entry.is_dir() and not target.exists():
            moved += sum(1 for file in entry.rglob("*") if file.is_file())
            os.replace(entry, target)
        elif entry.is_dir() and target.is_dir():
            moved += _move(entry, target)
        elif not target.exists():
            os.replace(entry, target)
            moved += 1
    return moved
