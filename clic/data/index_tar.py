"""What lies where in a tar, without unpacking it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from clic.errors import DataError


class Span(NamedTuple):
    """Bytes of a tar; length 0 stands for a member that is not there."""

    offset: int
    length: int


NOTHING = Span(0, 0)


class _Entry(tarfile.TarInfo):
    """An entry whose size is not negative, with which older Pythons walk in circles."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("an entry has a negative size")
        return super()._block(count)  # type: ignore[misc]


def walk(file: BinaryIO, shard: Path) -> Iterator[tuple[str, dict[str, Span]]]:
    """Yield each key of a tar, with the place of each of its members by extension.

    Raises:
        DataError: The tar is broken or cut, or has a name that leads out of a folder.
    """
    current, members = "", dict[str, Span]()
    for key, extension, span in _members(file, shard):
        if key != current and members:
            yield current, members
            members = {}
        current = key
        members[extension] = span
    if members:
        yield current, members


def _members(file: BinaryIO, shard: Path) -> Iterator[tuple[str, str, Span]]:
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Entry) as tar:
            for info in tar:
                _check_name(shard, info.name)
                if info.isfile():
                    folder, _, name = info.name.rpartition("/")
                    stem, dot, extension = name.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    yield key, (dot + extension).lower(), Span(info.offset_data, info.size)
                tar.members = []  # type: ignore[attr-defined]  # which tarfile collects
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{shard} cannot be read as a tar file: {error}; fetch or pack it again"
        ) from error
    # tarfile takes a cut or broken header for the end; the real end is a block of zeros.
    if read_span(file, Span(end, tarfile.BLOCKSIZE), shard) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{shard} is broken at byte {end}; fetch or pack it again")


def _check_name(shard: Path, name: str) -> None:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise DataError(
            f"{shard} is refused: its entry {name!r} leads out of the folder it would be unpacked "
            "into; pack it again with plain names"
        )


def read_span(file: BinaryIO, span: Span, shard: Path) -> bytes:
    """Return bytes of a tar.

    Raises:
        DataError: The tar ends before.
    """
    data = b""
    if sum(span) <= os.fstat(file.fileno()).st_size:
        file.seek(span.offset)
        data = file.read(span.length)
    if len(data) != span.length:
        raise DataError(
            f"{shard} ends before byte {sum(span)}: it was cut short; fetch or pack it again"
        )
    return data
