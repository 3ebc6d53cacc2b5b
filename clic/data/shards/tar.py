"""The samples of a tar, found without unpacking it.

The members of a sample share a key, wherever they lie in the tar. As in webdataset, a key ends at
the first dot of a file's name, so that `000.seg.png` belongs to `000.jpg`. Only if no image has
that key does it end at the last dot, provided that this gives an image and a caption of the same
name: `IMG.2024.001.jpg` and `IMG.2024.001.txt`. Files that macOS and pax add (`._a.jpg`,
`__MACOSX/`, `PaxHeaders/`) are ignored.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from clic.errors import DataError


class Span(NamedTuple):
    """Bytes of a tar; length 0 means that there is no such member."""

    offset: int
    length: int


NOTHING = Span(0, 0)
IMAGE_TYPES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".jfif", ".jpe", ".avif", ".pjpeg", ".pjp"),
)
TEXT_TYPES = (".json", ".txt")
Members = dict[str, Span]
"""The members of a sample by extension, whose last part is in lower case."""
_File = tuple[str, Span]  # a member's extension, or its whole name, and its bytes
_JUNK_FOLDERS = ("__MACOSX", "PaxHeaders")
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", ".gz", "gunzip"),
    b"BZh": ("bzip2", ".bz2", "bunzip2"),
    b"\xfd7zXZ": ("xz", ".xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst", "unzstd"),
}
"""Compressions by their first bytes: name, file ending, and the command that unpacks them."""
_SHOWN = 3  # names in a note


class _Entry(tarfile.TarInfo):
    """An entry that refuses a negative size, which makes older Pythons loop forever."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("an entry has a negative size")
        return super()._block(count)  # type: ignore[misc]


def walk(
    file: BinaryIO, shard: Path, notes: list[str] | None = None
) -> Iterator[tuple[str, Members]]:
    """Yield each key of a tar with its members, in the order in which the keys first occur.

    Members that follow a complete sample of the same key form another sample. If a name occurs
    again before the sample is complete, the order does not show which members belong together, and
    the last member of each name counts, as if the tar were unpacked.

    `shard` is the tar's name, and `notes` collects messages for the user about repeated names and
    names with dots.

    Raises:
        DataError: The tar is broken or cut, or has names that lead out of a folder; all that can be
            read is yielded first.
    """
    groups: dict[str, tuple[str, list[_File]]] = {}
    failure = None
    try:
        for name, span in _files(file, shard):
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if parts[-1].startswith(".") or any(p.startswith(_JUNK_FOLDERS) for p in parts[:-1]):
                continue
            folder, _, last = name.rpartition("/")
            stem, dot, rest = last.partition(".")
            middle, _, ending = (dot + rest).rpartition(".")
            parts[-1] = stem
            key = f"{folder}/{stem}" if folder else stem
            members = groups.setdefault("/".join(parts), (key, []))[1]
            members.append((f"{middle}{dot}{ending.lower()}", span))
    except DataError as error:
        failure = error
    twice, replaced, dotted = list[str](), list[str](), list[str]()
    for first_dot, found in groups.values():
        for key, members in _by_last_dot(first_dot, found, dotted):
            for sample in _samples(key, members, twice, replaced):
                yield key, sample
    if notes is not None:
        for names, what in (
            (twice, "keys occur again after a complete sample and count as further samples"),
            (replaced, "members have the name of a later one, which is read instead, as when "
                       "the tar is unpacked"),
            (dotted, "samples are read by the last dot of their names, since no image has the "
                     "name up to the first"),
        ):  # fmt: skip
            if names:
                notes.append(f"{len(names)} {what} ({', '.join(names[:_SHOWN])}, ...)")
    if failure is not None:
        raise failure


def _by_last_dot(
    key: str, members: list[_File], dotted: list[str]
) -> list[tuple[str, list[_File]]]:
    """Return the members of a key, split at their last dots if only that yields samples."""
    if all(e.count(".") < 2 for e, _ in members) or any(e in IMAGE_TYPES for e, _ in members):
        return [(key, members)]
    stems: dict[str, list[_File]] = {}
    for extension, span in members:
        stem, dot, ending = extension.rpartition(".")
        stems.setdefault(key + stem, []).append((dot + ending, span))
    whole = [stem for stem, inside in stems.items() if _is_whole(e for e, _ in inside)]
    dotted += whole
    return list(stems.items()) if whole else [(key, members)]


def _samples(
    key: str, members: list[_File], twice: list[str], replaced: list[str]
) -> list[Members]:
    """Return the samples of one key: one, unless a complete one is followed by the same names."""
    runs: list[Members] = [{}]
    for extension, span in members:
        if extension in runs[-1]:
            runs.append({})
        runs[-1][extension] = span
    if len(runs) == 1 or _is_whole(runs[0]):
        twice += [key] * (len(runs) - 1)
        return runs
    last = dict(members)
    replaced += [key + extension for extension, span in members if last[extension] != span]
    return [last]


def _is_whole(extensions: Iterable[str]) -> bool:
    found = set(extensions)
    return not found.isdisjoint(IMAGE_TYPES) and not found.isdisjoint(TEXT_TYPES)


def dots(key: str, members: Members) -> str:
    """Return a hint for a key without image or caption, if dots in names may be the reason."""
    for extension in members:
        ending = "." + extension.rpartition(".")[2]
        if extension != ending and ending in (*IMAGE_TYPES, *TEXT_TYPES):
            return (
                f"a key ends at the first dot of a name, and {key}{extension} is {key!r}'s "
                f"'{extension}'; give an image and its caption the same name up to the last dot"
            )
    return ""


def _files(file: BinaryIO, shard: Path) -> Iterator[tuple[str, Span]]:
    end = os.fstat(file.fileno()).st_size
    outside: list[str] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Entry) as tar:
            for info in tar:
                cut = info.offset_data + info.size > end  # the next step raises
                if info.name.startswith("/") or ".." in PurePosixPath(info.name).parts:
                    outside.append(info.name)
                elif info.isfile() and info.name.strip("/.") and not cut:
                    yield info.name, Span(info.offset_data, info.size)
                tar.members = []  # type: ignore[attr-defined]  # or tarfile keeps them all
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError) as error:
        file.seek(0)
        head = file.read(8)
        for magic, (name, ending, command) in _COMPRESSED.items():
            if head.startswith(magic):
                raise DataError(
                    f"{shard} is compressed by {name}, and samples are read by position; unpack "
                    f"it: mv {shard} {shard}{ending} && {command} {shard}{ending}"
                ) from error
        raise DataError(
            f"{shard} cannot be read as a tar file: {error}; fetch or pack it again"
        ) from error
    # tarfile mistakes a cut or broken header for the end; the real end is a block of zeros.
    if read_span(file, Span(end, tarfile.BLOCKSIZE), shard) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{shard} is broken at byte {end}; fetch or pack it again")
    if outside:
        more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        raise DataError(
            f"{shard} is refused: its entry {outside[0]!r}{more} leads out of the folder it would "
            "be unpacked into; pack it again with plain names"
        )


def read_span(file: BinaryIO, span: Span, shard: Path) -> bytes:
    """Return bytes of a tar; raises `DataError` if it ends before them."""
    data = b""
    if sum(span) <= os.fstat(file.fileno()).st_size:
        file.seek(span.offset)
        data = file.read(span.length)
    if len(data) != span.length:
        raise cut_short(shard, sum(span))
    return data


def cut_short(shard: Path, end: int) -> DataError:
    return DataError(f"{shard} ends before byte {end}: it was cut short; fetch or pack it again")
