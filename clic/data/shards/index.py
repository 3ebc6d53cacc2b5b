"""The index beside each shard: where its samples lie, how large their images are, checksums.

`<tar>.index` is a file of columns (see `index_columns`), with a row for each sample:

- `blocks` [n, 3]: where image, `.json` and `.txt` begin, in blocks of 512 bytes; `lengths` [n, 3]:
  their bytes, 0 where there is none;
- `crcs` [n]: CRC-32 of the three together;
- `sizes` [n, 2]: width and height after EXIF rotation, 0 where image or JSON is broken;
- `sentences` [n]: number of captions;
- `key_ends` [n] and `keys`: the keys in UTF-8, one behind the other.

Its header counts the samples, the keys that were left out for want of an image or a caption, and
the tar's bytes, and says what is wrong with each broken sample. What detects what: a tar of another
size is refused when it is opened; other bytes at a sample's place, when it is read, by its CRC.

The file format of indexes: a JSON header and named columns of numbers, which can be mapped.

A line `clic-columns`, a line of JSON, then the columns, each at a multiple of 64 bytes:

    {"format": "index", "version": 2, "columns": {"crc": ["<u4", [1000], 1024], ...}, ...}

A column is [dtype, shape, offset]; numpy.frombuffer or numpy.memmap reads it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clic import images
from clic.data.shards.tar import (
    IMAGE_TYPES,
    NOTHING,
    Span,
    captions_of,
    check_length,
    dots,
    parse_record,
    read_span,
    walk,
)
from clic.errors import DataError
from clic.io.files import replacing

INDEX_SUFFIX = ".index"
FORMAT, VERSION = "index", 2
COLUMNS: dict[str, tuple[str, int]] = {
    "blocks": ("<u4", 3),
    "lengths": ("<u4", 3),
    "crcs": ("<u4", 0),
    "sizes": ("<i4", 2),
    "sentences": ("<u2", 0),
    "key_ends": ("<u4", 0),
}
"""Columns with a row for each sample: dtype, and numbers in a row (0 for a plain column)."""
MOST = {"lengths": 2**32 - 1, "sentences": 2**16 - 1}


@dataclass(frozen=True)
class ShardIndex:
    """What is known of a shard.

    Attributes:
        samples: Number of its samples.
        shard_bytes: Size of the tar.
        left_out: Keys without an image or a caption.
        broken: What is wrong with a sample, by its row.
        columns: By name, those of `COLUMNS` and `keys`.
    """

    samples: int
    shard_bytes: int
    left_out: int
    broken: dict[int, str]
    columns: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Entry:
    """A sample, as it goes into the index."""

    key: str
    spans: tuple[Span, Span, Span]
    crc: int
    size: tuple[int, int]
    sentences: int
    broken: str = ""


def index_path(shard: Path) -> Path:
    """Return where the index of a shard lies."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def write_index(shard: Path, target: Path | None = None) -> Path:
    """Index a tar in one pass.

    Keys without an image or without a caption are left out, and their number is printed, as is what
    `walk` notes. A sample
    whose image or JSON is broken (or above the limits) has its place, so that reading it says so.

    Args:
        shard: The tar.
        target: The index, None for `index_path`.

    Raises:
        DataError: The tar is broken, or holds entries but no sample with an image and a caption.
    """
    target = index_path(shard) if target is None else target
    entries, left_out, notes, hint = list[_Entry](), list[str](), list[str](), ""
    try:
        with open(shard, "rb") as file:
            for key, members in walk(file, shard, notes):
                entry = _entry(file, shard, key, members)
                if entry is None:
                    left_out.append(key)
                    hint = hint or dots(key, members)
                else:
                    entries.append(entry)
            if left_out and not entries:
                raise _no_samples(file, shard, hint)
            shard_bytes = file.seek(0, 2)
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}); mend or remove it") from error
    _report(shard, len(entries), left_out, hint, [e.key for e in entries if e.broken])
    for note in notes:
        print(f"{shard}: {note}", file=sys.stderr)
    try:
        _write(target, entries, shard_bytes, len(left_out))
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror}); index the shards where you may write"
        ) from error
    return target


def _entry(file: BinaryIO, shard: Path, key: str, members: dict[str, Span]) -> _Entry | None:
    """Return a sample's entry, None where it has no image or no caption."""
    image = next((members[t] for t in IMAGE_TYPES if t in members), None)
    if image is None:
        return None
    meta, text = members.get(".json", NOTHING), members.get(".txt", NOTHING)
    spans = (image, meta, text)
    try:
        check_length("JSON", meta.length)
        check_length("text", text.length)
        texts = [read_span(file, span, shard) for span in (meta, text)]
        record = parse_record(texts[0]) if meta.length else {}
        captions = captions_of(record, texts[1])
        if not captions:
            return None
        data = read_span(file, image, shard)
        crc = zlib.crc32(texts[1], zlib.crc32(texts[0], zlib.crc32(data)))
        return _Entry(key, spans, crc, images.dimensions(data), len(captions))
    except DataError as error:
        return _Entry(key, spans, 0, (0, 0), 0, str(error))


def _no_samples(file: BinaryIO, shard: Path, hint: str) -> DataError:
    """Return what to say of a tar without samples: what the first JSON beside an image holds."""
    for key, members in walk(file, shard):
        if ".json" in members and any(t in members for t in IMAGE_TYPES):
            found = ", ".join(map(repr, parse_record(read_span(file, members[".json"], shard))))
            return DataError(
                f"{shard} holds images and JSON files but no captions; put each image's into its "
                "JSON's 'captions' (a list) or 'caption', or into a .txt "
                f"({key}.json has {found or 'no keys'})"
            )
    return DataError(
        f"{shard} holds no sample with an image ({', '.join(IMAGE_TYPES[:3])}...) and a "
        "caption (.json or .txt) of the same key; " + (hint or "it should be a WebDataset tar")
    )


def _report(
    shard: Path, count: int, left_out: Sequence[str], hint: str, broken: Sequence[str]
) -> None:
    if left_out:
        print(
            f"{shard}: {len(left_out)} of {len(left_out) + count} keys have no image or no "
            f"caption and are left out ({', '.join(left_out[:3])}, ...){hint and '; ' + hint}",
            file=sys.stderr,
        )
    if broken:
        print(
            f"{shard}: {len(broken)} of {count} samples are broken or above the limits "
            f"({', '.join(broken[:3])}, ...); clic-data verify says why",
            file=sys.stderr,
        )
    if not count and not left_out:
        print(f"{shard} is empty", file=sys.stderr)


def _write(target: Path, entries: Sequence[_Entry], shard_bytes: int, left_out: int) -> None:
    keys = [entry.key.encode("utf-8", errors="surrogateescape") for entry in entries]
    rows: dict[str, list] = {
        "blocks": [[span.offset // tarfile.BLOCKSIZE for span in e.spans] for e in entries],
        "lengths": [[span.length for span in e.spans] for e in entries],
        "crcs": [e.crc for e in entries],
        "sizes": [e.size for e in entries],
        "sentences": [e.sentences for e in entries],
        "key_ends": np.cumsum([len(key) for key in keys], dtype=np.int64).tolist(),
    }
    columns: dict[str, np.ndarray] = {"keys": np.frombuffer(b"".join(keys), np.uint8)}
    for name, (dtype, width) in COLUMNS.items():
        shape = (len(entries), width) if width else (len(entries),)
        column = np.array(rows[name], dtype=np.int64).reshape(shape)
        columns[name] = np.minimum(column, MOST.get(name, 2**62)).astype(dtype)
    broken = {row: e.broken for row, e in enumerate(entries) if e.broken}
    save_index(target, ShardIndex(len(entries), shard_bytes, left_out, broken, columns))


def save_index(target: Path, index: ShardIndex) -> None:
    """Write an index, whole or not at all."""
    columns = index.columns
    header = {
        "samples": index.samples,
        "shard_bytes": index.shard_bytes,
        "left_out": index.left_out,
        "broken": index.broken,
        "crc": _crc(columns),
    }
    specs = {name: (column.dtype.str, column.shape) for name, column in columns.items()}
    with write_columns(target, FORMAT, VERSION, header, specs) as writer:
        for name, column in columns.items():
            writer.put(name, column)


def _crc(columns: dict[str, np.ndarray]) -> int:
    crc = 0
    for name in sorted(columns):
        crc = zlib.crc32(np.ascontiguousarray(columns[name]).data, crc)
    return crc


def load_index(path: Path) -> ShardIndex:
    """Return an index.

    Args:
        path: The index itself.

    Raises:
        DataError: It is missing, broken, or of another version.
    """
    with _reading(path):
        header, columns = read_columns(path, FORMAT, VERSION, mapped=False)
        if header["crc"] != _crc(columns):
            raise ColumnsError(f"{path} is broken (wrong checksum)")
        broken = {int(row): str(why) for row, why in header["broken"].items()}
        samples, size, left_out = (
            int(header[name]) for name in ("samples", "shard_bytes", "left_out")
        )
        _check_columns(path, samples, columns)
        return ShardIndex(samples, size, left_out, broken, columns)


def _check_columns(path: Path, samples: int, columns: dict[str, np.ndarray]) -> None:
    """Check what no checksum tells: the file may come from the server that has the shard."""
    for name, (dtype, width) in COLUMNS.items():
        found = (columns[name].dtype.str, columns[name].shape)
        if found != (dtype, (samples, width) if width else (samples,)):
            raise ColumnsError(f"{path} is broken (column {name} is {found[0]} {found[1]})")
    ends, keys = columns["key_ends"], columns["keys"]
    last = int(ends[-1]) if samples else 0
    if keys.dtype != np.uint8 or keys.shape != (last,) or (ends[1:] < ends[:-1]).any():
        raise ColumnsError(f"{path} is broken (its keys do not fit)")


def is_indexed(shard: Path) -> bool:
    """Return whether the index beside a tar is whole, and of a tar of this size."""
    path = index_path(shard)
    try:
        return path.is_file() and load_index(path).shard_bytes == shard.stat().st_size
    except (DataError, OSError):
        return False


def index_counts(path: Path) -> tuple[int, int, int]:
    """Return number of samples, bytes of keys and bytes of the tar; raises as `load_index`."""
    with _reading(path):
        header = read_header(path, FORMAT, VERSION)
        return int(header["samples"]), header["columns"]["keys"][1][0], int(header["shard_bytes"])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (ColumnsError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = str(error) if isinstance(error, ColumnsError) else f"{path} is broken ({error!r})"
        raise DataError(f"{reason}; run: {remedy(path)}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); mend or remove it") from error


def remedy(path: Path) -> str:
    """Return the command that makes an index, or all of its folder, anew."""
    return f"clic-data index --force {path.parent}"


MAGIC = b"clic-columns\n"
ALIGNMENT = 64
HEAD = 1 << 12  # bytes in which most headers fit
Specs = Mapping[str, tuple[str, tuple[int, ...]]]


class ColumnsError(DataError):
    """A file is no such file, or one of another version."""


class ColumnWriter:
    """Fills the columns of a file that has no name yet.

    Args:
        descriptor: The open file.
        layout: For each column dtype, shape and offset.
    """

    def __init__(self, descriptor: int, layout: Mapping[str, tuple[str, tuple[int, ...], int]]):
        self._descriptor, self._layout = descriptor, layout

    def put(self, name: str, rows: np.ndarray, start: int = 0) -> None:
        """Write rows of a column, from row `start` on."""
        dtype, shape, offset = self._layout[name]
        data = np.ascontiguousarray(rows, dtype=dtype)
        row = math.prod(shape[1:]) * data.itemsize
        view, place = data.tobytes(), offset + start * row
        while view:
            written = os.pwrite(self._descriptor, view, place)
            view, place = view[written:], place + written


@contextmanager
def write_columns(
    path: Path, format: str, version: int, header: Mapping[str, Any], specs: Specs
) -> Iterator[ColumnWriter]:
    """Write a file of columns; it appears whole when the block ends, and not at all if it fails.

    Args:
        path: Where to; an earlier file is replaced.
        format: What the columns mean.
        version: Version of that meaning.
        header: Further entries.
        specs: For each column dtype and shape; rows that are never put are 0.
    """
    layout, end = _layout(specs, 0), 0
    while True:  # the offsets stand in the head, whose length depends on them
        head = MAGIC + _json({"format": format, "version": version, "columns": layout, **header})
        if len(head) <= end:
            break
        end = _aligned(len(head))
        layout = _layout(specs, end)
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            size = max((o + _bytes(d, s) for d, s, o in layout.values()), default=end)
            os.ftruncate(descriptor, size)
            os.pwrite(descriptor, head, 0)
            yield ColumnWriter(descriptor, layout)
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)


def read_columns(
    path: Path, format: str, version: int, mapped: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and columns of a file.

    Args:
        path: The file.
        format: What the columns should mean.
        version: Version of that meaning.
        mapped: Leave the columns on disk, in memory that processes share, until they are touched.

    Raises:
        ColumnsError: It is no such file, or of another version.
        FileNotFoundError: There is no file.
    """
    try:
        data: Any = np.memmap(path, np.uint8, "r") if mapped else path.read_bytes()
        header = _header(path, data, format, version)
        columns = {
            name: np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
            for name, (dtype, shape, offset) in header.pop("columns").items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ColumnsError(f"{path} is broken ({error})") from error
    return header, columns


def read_header(path: Path, format: str, version: int) -> dict[str, Any]:
    """Return the header of a file, without reading its columns; raises as `read_columns`."""
    with open(path, "rb") as file:
        head = file.readline(len(MAGIC)) + file.readline()
    return _header(path, head, format, version)


def _header(path: Path, data: Any, format: str, version: int) -> dict[str, Any]:
    line, length = bytes(data[: len(MAGIC)]), HEAD
    if line != MAGIC:
        raise ColumnsError(f"{path} is no {format} file")
    while not line.endswith(b"\n", len(MAGIC)) and len(line) < len(data):
        line = bytes(data[:length])
        end = line.find(b"\n", len(MAGIC)) + 1
        line, length = line[: end or None], length * 4
    try:
        header = json.loads(line[len(MAGIC) :])
    except ValueError as error:
        raise ColumnsError(f"{path} is broken ({error})") from error
    if not isinstance(header, dict) or header.get("format") != format:
        raise ColumnsError(f"{path} is no {format} file")
    if header.get("version") != version:
        raise ColumnsError(f"{path} was made by another version of clic")
    return header


def _json(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header).encode() + b"\n"


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _layout(specs: Specs, start: int) -> dict[str, tuple[str, tuple[int, ...], int]]:
    layout, offset = {}, start
    for name, (dtype, shape) in specs.items():
        layout[name] = (dtype, shape, offset)
        offset = _aligned(offset + _bytes(dtype, shape))
    return layout
