"""Code shared by the readers: rows with checked fields, and grids built row by row."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clic.errors import DataError
from clic.evaluation.encode.image_sources import (
    ImageSource,
    StoredImage,
    image_file,
    open_parquet,
    read_row_group,
)
from clic.evaluation.tables.grids import Grids
from clic.evaluation.tables.table import Interner
from clic.io.http_connection import refuse_pointer


@dataclass(frozen=True)
class Record:
    """A row of an annotation file. Each method checks the field it reads and raises `DataError`.

    Attributes:
        value: The row, as it is in the file.
        path: The file.
        place: The row's number or key in the file.
        remedy: What to do about a faulty row.
    """

    value: Any
    path: Path
    place: int | str
    remedy: str = "download the file again"

    def error(self, problem: str) -> DataError:
        """Return the error for a problem with this row."""
        return DataError(f"{self.path}: row {self.place} {problem}; {self.remedy}")

    def get(self, name: str) -> Any:
        """Return a field unchecked, None if the row does not have it."""
        return self.value.get(name) if isinstance(self.value, dict) else None

    def text(self, name: str) -> str:
        """Return a text field."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self.error(f"has no text {name!r}")
        return value

    def number(self, name: str) -> int:
        """Return a field with a whole number, which may be written as a float."""
        value = self.get(name)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"has no whole number {name!r}")
        return value

    def texts(self, value: Any, least: int, what: str) -> list[str]:
        """Return `value`, a list from this row, if it contains at least `least` texts."""
        texts = value if isinstance(value, list) else []
        if len(texts) < least or not all(isinstance(text, str) for text in texts):
            raise self.error(f"should have {what}, {least} texts or more")
        return texts

    def image(self, folder: Path, name: str) -> Path:
        """Return the image that the row names, which must lie in `folder`."""
        return image_file(folder, name, self.path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: The file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        refuse_pointer(path)
        raise DataError(f"{path} cannot be read as JSON ({error}); download it again") from error


def read_rows(path: Path, *forms: str) -> list[Record]:
    """Return the rows of a JSON file.

    Args:
        path: The file.
        forms: The accepted forms: a "list" of rows (the default), or an "object" with rows by key.

    Raises:
        DataError: The file cannot be read, has another form, or contains no rows.
    """
    content = read_json(path)
    forms = forms or ("list",)
    form = "list" if isinstance(content, list) else "object" if isinstance(content, dict) else None
    if form not in forms:
        raise DataError(f"{path} should hold a JSON {' or '.join(forms)}; download it again")
    if not content:
        raise DataError(f"{path} holds no rows; download it again")
    rows = content.items() if isinstance(content, dict) else enumerate(content)
    return [Record(row, path, place) for place, row in rows]


def read_lines(path: Path) -> list[Record]:
    """Return the rows of a file of JSON lines; raises `DataError` if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        values = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        refuse_pointer(path)
        raise DataError(f"{path} cannot be read as JSON lines ({error}); get it again") from error
    return [Record(value, path, number) for number, value in enumerate(values)]


def read_csv(path: Path, columns: Sequence[str], *, blank: bool = True) -> Iterator[Record]:
    """Yield the rows of a CSV file with a header.

    Args:
        path: The file.
        columns: The columns that it must have; each row must have a cell in every one.
        blank: Whether cells may be blank.

    Raises:
        DataError: The file cannot be read, lacks a column, or a row lacks a cell.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for name in columns:
                if name not in (reader.fieldnames or ()):
                    raise DataError(f"{path} has no column {name!r}; get the file again")
            for number, row in enumerate(reader):
                for name in columns:
                    if row[name] is None or not (blank or row[name].strip()):
                        raise DataError(
                            f"{path}: line {reader.line_num} has no {name}; get the file again"
                        )
                yield Record(row, path, number)
    except (OSError, ValueError, csv.Error) as error:
        refuse_pointer(path)
        raise DataError(f"{path} cannot be read as CSV ({error}); get the file again") from error


def find_parts(folder: Path, pattern: str, missing: str) -> list[Path]:
    """Return a table's parquet files in order; ``-00000-of-00002`` in a name states their number.

    Args:
        folder: The folder of the files.
        pattern: The shell pattern of their names.
        missing: The error message if there are none.

    Raises:
        DataError: Files are missing, or belong to another version.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise DataError(missing)
    for file in files:
        part = re.search(r"-\d+-of-(\d+)", file.name)
        if part and int(part[1]) != len(files):
            raise DataError(
                f"{folder / pattern}: {len(files)} files, and {file.name} is one of "
                f"{int(part[1])}; fetch those that are missing, or remove another version's"
            )
    return files


def read_parquet(
    files: Sequence[Path], columns: Sequence[str], images: Sequence[str]
) -> Iterator[tuple[Record, list[ImageSource]]]:
    """Yield the rows of parquet files, one row group at a time, with their images unopened.

    Args:
        files: The files.
        columns: The columns of the rows.
        images: The columns of the images.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: A file is not parquet, or lacks a column.
    """
    for path in files:
        file = open_parquet(path)
        for name in columns:
            if name not in file.schema_arrow.names:
                raise DataError(f"{path} has no column {name!r}; download it again")
        for group in range(file.num_row_groups):
            for number, values in enumerate(read_row_group(path, group, tuple(columns))):
                cells: list[ImageSource] = [
                    StoredImage(path, group, number, column) for column in images
                ]
                yield Record(values, path, number), cells


class GridBuilder:
    """Collects rows of images and captions into a table.

    Args:
        source: The file of the rows, for error messages.
        categories: The first categories; others follow in the order of the rows.
    """

    def __init__(self, source: Path, categories: Sequence[str] = ()) -> None:
        self._source = source
        self._images, self._texts = Interner(), Interner()
        self._categories = {name: index for index, name in enumerate(categories)}
        self._rows: list[tuple[int, list[int], list[int]]] = []

    def add(self, category: str, images: Sequence[ImageSource], captions: Sequence[str]) -> None:
        """Add a row; the first image and the first caption belong together."""
        number = self._categories.setdefault(category, len(self._categories))
        own = [self._images.add(image) for image in images]
        self._rows.append((number, own, [self._texts.add(caption) for caption in captions]))

    def table(
        self,
        rule: str,
        groups: Mapping[str, Sequence[str]] | None = None,
        overall: str | None = None,
        sets: Mapping[str, Sequence[int]] | None = None,
    ) -> Grids:
        """Return the table; rows with fewer images or captions than others are padded with -1.

        Raises:
            DataError: There are no rows.
        """
        if not self._rows:
            raise DataError(f"{self._source} holds no rows; download it again")
        return Grids(
            images=tuple(self._images.items),
            texts=tuple(self._texts.items),
            rule=rule,
            categories=tuple(self._categories),
            category=np.array([number for number, _, _ in self._rows], dtype=np.int64),
            image=_padded([images for _, images, _ in self._rows]),
            caption=_padded([captions for _, _, captions in self._rows]),
            groups={name: tuple(of) for name, of in (groups or {}).items()},
            overall=overall,
            sets={k: np.array(v, dtype=np.int64) for k, v in (sets or {}).items()},
        )

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each category, in the categories' order."""
        found = np.bincount(
            [number for number, _, _ in self._rows], minlength=len(self._categories)
        )
        return dict(zip(self._categories, found.tolist(), strict=True))


def _padded(rows: Sequence[list[int]]) -> np.ndarray:
    """Return rows of different lengths as int64 [N, longest], filled with -1."""
    width = max(map(len, rows))
    return np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int64)
