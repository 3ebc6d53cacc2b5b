"""Reads rows and images from parquet files of the Hugging Face hub, one row group at a time."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from clic.errors import ConfigError, DataError

GROUPS_AT_HAND = 4
"""Row groups of a column kept in memory: a few are enough, as images are read in row order."""
_PART = re.compile(r"-\d+-of-(\d+)")
_reading = threading.Lock()
"""Held while a row group is read, so that no two threads read the same one."""


class RowLocation(NamedTuple):
    """The place of a row: its file, its row group, and its number within the group."""

    path: Path
    group: int
    row: int


@dataclass(frozen=True)
class StoredImage:
    """An image in a column of ``{"bytes": ..., "path": ...}`` of a parquet file."""

    path: Path
    group: int
    row: int
    column: str


def find_parts(folder: Path, pattern: str) -> list[Path]:
    """Return a table's files in order; their names (``-00000-of-00002``) say how many there are.

    Raises:
        DataError: Files are missing, or belong to another version.
    """
    files = sorted(folder.glob(pattern))
    for file in files:
        part = _PART.search(file.name)
        if part and int(part[1]) != len(files):
            raise DataError(
                f"{folder / pattern}: {len(files)} files, and {file.name} is one of "
                f"{int(part[1])}; fetch those that are missing, or remove another version's"
            )
    return files


def read_texts(path: Path, columns: Sequence[str]) -> Iterator[tuple[RowLocation, dict[str, Any]]]:
    """Yield the location of each row and its values in these columns; no other column is read.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: The file is not parquet, or lacks a column.
    """
    file = _open(path)
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        raise DataError(f"{path} has no column {lacking[0]!r}; download it again")
    for group in range(file.num_row_groups):
        for row, values in enumerate(_column(path, group, tuple(columns))):
            yield RowLocation(path, group, row), values


def read_stored(image: StoredImage) -> bytes:
    """Return an image's encoded bytes; raises `DataError` if there are none."""
    with _reading:
        values = _images(image.path, image.group, image.column)
    content = values[image.row] if image.row < len(values) else None
    if not content:
        raise DataError(f"{image.path}: row {image.row} of group {image.group} holds no image")
    return content


@lru_cache(maxsize=GROUPS_AT_HAND)
def _images(path: Path, group: int, column: str) -> list[bytes | None]:
    cells = [values[column] for values in _column(path, group, (column,))]
    return [cell.get("bytes") if isinstance(cell, dict) else None for cell in cells]


def _column(path: Path, group: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        return _open(path).read_row_group(group, columns=list(columns)).to_pylist()
    except (OSError, ValueError, _arrow().ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error


def _open(path: Path) -> Any:
    arrow = _arrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{path} is no parquet file ({error}); download it again") from error


def _arrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(
            "parquet files need pyarrow; install it with: pip install pyarrow"
        ) from error
    return pyarrow
