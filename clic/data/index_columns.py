"""The file format of indexes: a JSON header and named columns of numbers, which can be mapped.

A line `clic-columns`, a line of JSON, then the columns, each at a multiple of 64 bytes:

    {"format": "index", "version": 2, "columns": {"crc": ["<u4", [1000], 1024], ...}, ...}

A column is [dtype, shape, offset]; numpy.frombuffer or numpy.memmap reads it.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clic.errors import DataError

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
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        try:
            size = max((o + _bytes(d, s) for d, s, o in layout.values()), default=end)
            os.ftruncate(descriptor, size)
            os.pwrite(descriptor, head, 0)
            yield ColumnWriter(descriptor, layout)
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
