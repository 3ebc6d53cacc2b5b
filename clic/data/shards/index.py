"""The index beside each shard: positions of its samples, sizes of their images, checksums.

`<tar>.index` contains named columns with a row for each sample:

- `blocks` [n, 3]: where image, `.json` and `.txt` begin, in blocks of 512 bytes; `lengths` [n, 3]:
  their bytes, 0 where there is none;
- `crcs` [n]: CRC-32 of the three together;
- `sizes` [n, 2]: width and height after EXIF rotation, 0 where image or JSON is broken;
- `sentences` [n]: number of captions;
- `key_ends` [n] and `keys`: the keys in UTF-8, concatenated.

Its header gives the number of samples, the number of keys that were left out because they lack an
image or a caption, the size of the tar, and what is wrong with each broken sample. A tar of another
size is refused when it is opened, and a sample whose CRC differs when it is read.

The file is a line `clic-columns`, a line of JSON and then the columns, each at a multiple of 64
bytes:

    {"format": "index", "version": 2, "columns": {"crcs": ["<u4", [1000], 1024], ...}, ...}

A column is [dtype, shape, offset]. The format is not safetensors, whose numpy interface can neither
fill a file shard by shard nor map it, and which would make all existing indexes obsolete.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from clic import images
from clic.data.shards.records import captions_of, check_length, parse_record
from clic.data.shards.tar import IMAGE_TYPES, NOTHING, Span, dots, read_span, walk
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
"""Columns with a row for each sample: dtype and numbers per row (0 for one-dimensional columns)."""
MOST = {"lengths": 2**32 - 1, "sentences": 2**16 - 1}
MAGIC = b"clic-columns\n"
ALIGNMENT = 64
Specs = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each column of a file."""
Put = Callable[..., None]
"""Writes rows of a column: (name, rows, start=0), the first of them to row `start`."""


@dataclass(frozen=True)
class ShardIndex:
    """The contents of a shard's index.

    Attributes:
        samples: Number of its samples.
        shard_bytes: Size of the tar.
        left_out: Number of keys without an image or a caption.
        broken: What is wrong with a sample, by its row.
        columns: By name, those of `COLUMNS` and `keys`.
    """

    samples: int
    shard_bytes: int
    left_out: int
    broken: dict[int, str]
    columns: dict[str, np.ndarray]


class _Row(NamedTuple):
    """A sample's row of the index; its fields are named as the columns."""

    key: str
    blocks: list[int]
    lengths: list[int]
    crcs: int = 0
    sizes: tuple[int, int] = (0, 0)
    sentences: int = 0
    broken: str = ""


def index_path(shard: Path) -> Path:
    """Return the path of a shard's index."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def remedy(path: Path) -> str:
    """Return the command that re-indexes the folder of an index."""
    return f"clic-data index --force {path.parent}"


# --- making an index ---


def write_index(shard: Path, target: Path | None = None) -> Path:
    """Index a tar in one pass; the index goes to `target`, by default `index_path`.

    Keys without an image or without a caption are left out, and their number is printed, as are the
    notes of `walk`. A sample whose image or JSON is broken (or above the limits) keeps its row, so
    that reading it reports what is wrong.

    Raises:
        DataError: The tar is broken, or has entries but no sample with an image and a caption.
    """
    target = index_path(shard) if target is None else target
    rows, left_out, notes, hint = list[_Row](), list[str](), list[str](), ""
    try:
        with open(shard, "rb") as file:
            for key, members in walk(file, shard, notes):
                row = _row(file, shard, key, members)
                if row is None:
                    left_out.append(key)
                    hint = hint or dots(key, members)
                else:
                    rows.append(row)
            if left_out and not rows:
                raise _no_samples(file, shard, hint)
            shard_bytes = file.seek(0, 2)
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}); fix or remove it") from error
    _report(shard, rows, left_out, hint, notes)
    broken = {number: row.broken for number, row in enumerate(rows) if row.broken}
    index = ShardIndex(len(rows), shard_bytes, len(left_out), broken, _columns_of(rows))
    try:
        save_index(target, index)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror}); index the shards where you may write"
        ) from error
    return target


def _row(file: BinaryIO, shard: Path, key: str, members: dict[str, Span]) -> _Row | None:
    """Return a sample's row, or None if it has no image or no caption."""
    image = next((members[t] for t in IMAGE_TYPES if t in members), None)
    if image is None:
        return None
    meta, text = members.get(".json", NOTHING), members.get(".txt", NOTHING)
    spans = (image, meta, text)
    blocks = [span.offset // tarfile.BLOCKSIZE for span in spans]
    lengths = [span.length for span in spans]
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
        return _Row(key, blocks, lengths, crc, images.dimensions(data), len(captions))
    except DataError as error:
        return _Row(key, blocks, lengths, broken=str(error))


def _no_samples(file: BinaryIO, shard: Path, hint: str) -> DataError:
    """Return the error for a tar without samples; it quotes the keys of the first JSON."""
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
    shard: Path, rows: Sequence[_Row], left_out: Sequence[str], hint: str, notes: Sequence[str]
) -> None:
    broken, told = [row.key for row in rows if row.broken], list[str]()
    if left_out:
        told.append(
            f"{len(left_out)} of {len(left_out) + len(rows)} keys have no image or no caption and "
            f"are left out ({', '.join(left_out[:3])}, ...){hint and '; ' + hint}"
        )
    if broken:
        told.append(
            f"{len(broken)} of {len(rows)} samples are broken or above the limits "
            f"({', '.join(broken[:3])}, ...); clic-data verify says why"
        )
    if not rows and not left_out:
        print(f"{shard} is empty", file=sys.stderr)
    for line in (*told, *notes):
        print(f"{shard}: {line}", file=sys.stderr)


def _columns_of(rows: Sequence[_Row]) -> dict[str, np.ndarray]:
    keys = [row.key.encode("utf-8", errors="surrogateescape") for row in rows]
    columns: dict[str, np.ndarray] = {"keys": np.frombuffer(b"".join(keys), np.uint8)}
    for name, (dtype, width) in COLUMNS.items():
        if name == "key_ends":
            column = np.cumsum([len(key) for key in keys], dtype=np.int64)
        else:
            column = np.array([getattr(row, name) for row in rows], dtype=np.int64)
        column = column.reshape((len(rows), width) if width else len(rows))
        columns[name] = np.minimum(column, MOST.get(name, 2**62)).astype(dtype)
    return columns


# --- writing and reading an index ---


def save_index(target: Path, index: ShardIndex) -> None:
    """Write an index, whole or not at all."""
    header = {
        name: getattr(index, name) for name in ("samples", "shard_bytes", "left_out", "broken")
    }
    specs = {name: (column.dtype.str, column.shape) for name, column in index.columns.items()}
    header["crc"] = _crc(index.columns)
    with write_columns(target, FORMAT, VERSION, header, specs) as put:
        for name, column in index.columns.items():
            put(name, column)


def _crc(columns: dict[str, np.ndarray]) -> int:
    return zlib.crc32(b"".join(columns[name].tobytes() for name in sorted(columns)))


def load_index(path: Path) -> ShardIndex:
    """Return the index at a path; raises `DataError` if it is missing, broken or outdated."""
    with _reading(path):
        header, columns = read_columns(path, FORMAT, VERSION, mapped=False)
        if header["crc"] != _crc(columns):
            raise ColumnsError(f"{path} is broken (wrong checksum)")
        broken = {int(row): str(why) for row, why in header["broken"].items()}
        samples, left_out = int(header["samples"]), int(header["left_out"])
        _check_columns(path, samples, columns)
        return ShardIndex(samples, int(header["shard_bytes"]), left_out, broken, columns)


def _check_columns(path: Path, samples: int, columns: dict[str, np.ndarray]) -> None:
    """Check what a checksum cannot: the file may come from the same server as the shard."""
    for name, (dtype, width) in COLUMNS.items():
        found = (columns[name].dtype.str, columns[name].shape)
        if found != (dtype, (samples, width) if width else (samples,)):
            raise ColumnsError(f"{path} is broken (column {name} is {found[0]} {found[1]})")
    ends, keys = columns["key_ends"], columns["keys"]
    last = int(ends[-1]) if samples else 0
    if keys.dtype != np.uint8 or keys.shape != (last,) or (ends[1:] < ends[:-1]).any():
        raise ColumnsError(f"{path} is broken (its keys do not fit)")


def is_indexed(shard: Path) -> bool:
    """Return whether a tar has an intact index that was made from a tar of this size."""
    path = index_path(shard)
    try:
        return path.is_file() and load_index(path).shard_bytes == shard.stat().st_size
    except (DataError, OSError):
        return False


def index_counts(path: Path) -> tuple[int, int, int]:
    """Return number of samples, bytes of keys and bytes of the tar; raises like `load_index`."""
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
        raise DataError(f"{path} cannot be read ({error.strerror}); fix or remove it") from error


# --- files of columns ---


class ColumnsError(DataError):
    """A file does not contain the expected columns, or has those of another version."""


@contextmanager
def write_columns(
    path: Path, format: str, version: int, header: Mapping[str, Any], specs: Specs
) -> Iterator[Put]:
    """Write a file of columns; it appears whole when the block ends, and not at all if it fails.

    `format` and `version` identify the columns' meaning, `header` has further entries, and `specs`
    gives the dtype and shape of each column. Rows that are never written are 0.
    """
    layout: dict[str, tuple[str, tuple[int, ...], int]] = {}
    head, start, end = b"", -1, 0
    while len(head) > start:  # the head contains the columns' offsets, which depend on its length
        start = offset = end = _aligned(len(head))
        for name, (dtype, shape) in specs.items():
            layout[name] = (dtype, shape, offset)
            end = offset + math.prod(shape) * np.dtype(dtype).itemsize
            offset = _aligned(end)
        entries = {"format": format, "version": version, "columns": layout, **header}
        head = MAGIC + json.dumps(entries).encode() + b"\n"
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(head)
        file.truncate(end)

        def put(name: str, rows: np.ndarray, start: int = 0) -> None:
            dtype, shape, offset = layout[name]
            file.seek(offset + start * math.prod(shape[1:]) * np.dtype(dtype).itemsize)
            file.write(np.ascontiguousarray(rows, dtype=dtype).tobytes())

        yield put
        os.fchmod(file.fileno(), 0o644)


def read_columns(
    path: Path, format: str, version: int, mapped: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and columns of a file, memory-mapped (shared by processes) or read.

    Raises:
        ColumnsError: The file is not of this format, or of another version.
        FileNotFoundError: There is no file.
    """
    header = read_header(path, format, version)
    with open(path, "rb") as file:
        try:
            data: Any = np.memmap(file, np.uint8, "r") if mapped else file.read()
            columns = {
                name: np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
                for name, (dtype, shape, offset) in header.pop("columns").items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ColumnsError(f"{path} is broken ({error})") from error
    return header, columns


def read_header(path: Path, format: str, version: int) -> dict[str, Any]:
    """Return the header of a file, without reading its columns; raises like `read_columns`."""
    with open(path, "rb") as file:
        is_columns, line = file.read(len(MAGIC)) == MAGIC, file.readline()
    try:
        header = json.loads(line) if is_columns else None
    except ValueError as error:
        raise ColumnsError(f"{path} is broken ({error})") from error
    if not isinstance(header, dict) or header.get("format") != format:
        raise ColumnsError(f"{path} is not a clic {format} file")
    if header.get("version") != version:
        raise ColumnsError(f"{path} was made by another version of clic")
    return header


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
