"""Text tables: the published CLIC CSV, any CSV or TSV, and NegCLIP's TSV."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clic.data.packing.items import Item, RejectedError, file_place, key_of, texts
from clic.data.packing.readers.base import Reader, choose_columns, known_columns
from clic.data.packing.readers.separated import (
    find_separator,
    first_rows,
    looks_like_image,
    rows,
)
from clic.errors import DataError

NEGATIVES, NEIGHBOURS = "neg_caption", "neg_image"
_LONGEST_LITERAL = 100_000  # characters; parsing deep nests of brackets needs a deep stack


class _TextTable(Reader):
    """A table with or without a header, a row an image."""

    def open(self) -> None:
        self.path = Path(self.source)
        self.separator, called = find_separator(self.path, self.request.separator)
        self.found = [f"separator: {called}"]
        self.first = (first_rows(self.path, self.separator, 1) or [[]])[0]
        self.header = self.find_header()
        self.found.append(f"images below {self.root()}")

    @abstractmethod
    def find_header(self) -> list[str]:
        """Return the names of the columns, empty where the first row is data; fills `found`."""

    @abstractmethod
    def image_of(self, row: list[str]) -> str:
        """Return the image of a row, empty where the row is too short to name one."""

    @abstractmethod
    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Return captions and further entries of a row; raises `RejectedError`."""

    def items(self) -> Iterator[Item]:
        name, root = self.path.name, self.root()
        numbered = rows(self.path, self.separator)
        if self.header:
            next(numbered)
        for line, row in numbered:
            where, image = f"{name}:{line}", ""
            try:
                if isinstance(row, RejectedError):
                    raise row
                image = self.image_of(row)
                captions, extra = self.read(row)
                place = file_place(image, root)
            except RejectedError as error:
                yield Item(image, where, reason=str(error))
            else:
                yield Item(image, where, place, captions, extra)


class ClicCsv(_TextTable):
    """The published code's CSV: path, caption, then one further sentence a column."""

    NAME = "clic-csv"
    TAKES = ("image_root", "separator")

    def find_header(self) -> list[str]:
        header = not looks_like_image(self.first[0]) and known_columns(self.first) > 0
        self.found.append(
            "columns: image path, caption, further sentences; "
            + ("first row taken for a header" if header else "no header")
        )
        return self.first if header else []

    def image_of(self, row: list[str]) -> str:
        return row[0].strip()

    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        return texts(row[1:]), {}


class Table(_TextTable):
    """Any CSV or TSV with a header."""

    NAME = "table"
    TAKES = ("image_root", "image_column", "caption_column", "separator")

    def find_header(self) -> list[str]:
        header = [name.strip() for name in self.first]
        double = sorted({name for name in header if name and header.count(name) > 1})
        if double:
            raise DataError(f"{self.path}: column {double[0]!r} stands there twice; rename one")
        image, captions, lines = choose_columns(self.request, header, str(self.path))
        self.image, self.captions = header.index(image), [header.index(c) for c in captions]
        self.found += lines
        return header

    def image_of(self, row: list[str]) -> str:
        return row[self.image].strip() if self.image < len(row) else ""

    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        if len(row) != len(self.header):
            raise RejectedError(
                f"{len(row)} columns where the header has {len(self.header)}; "
                "quote cells that hold a separator"
            )
        found = [c for column in self.captions for c in texts(_cell(row[column]))]
        return tuple(found), {}


class NegClip(Table):
    """NegCLIP's TSV: filepath, title, neg_caption (a list), neg_image (row numbers)."""

    NAME = "negclip"

    def find_header(self) -> list[str]:
        header = super().find_header()
        if NEGATIVES not in header:
            raise DataError(
                f"{self.path} has no column {NEGATIVES!r}; pack it with --format {Table.NAME}"
            )
        self.found[-1:] = [f"negatives: {NEGATIVES!r}"]
        if NEIGHBOURS in header:
            self.found.append(f"neighbours: {NEIGHBOURS!r}, stored as keys")
        return header

    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        captions, _ = super().read(row)
        cells = dict(zip(self.header, row, strict=True))
        extra: dict[str, Any] = {"negatives": list(texts(_list(cells[NEGATIVES], NEGATIVES)))}
        if cells.get(NEIGHBOURS, "").strip():
            numbers = _list(cells[NEIGHBOURS], NEIGHBOURS)
            if not all(isinstance(n, int) and n >= 0 for n in numbers):
                raise RejectedError(f"{NEIGHBOURS} holds no row numbers")
            extra["neighbours"] = [key_of(n) for n in numbers]
        return captions, extra


def _cell(cell: str) -> str | Sequence[str]:
    """Return a cell, or the strings of the list that pandas and JSON write as ['a', "b"]."""
    if cell.strip()[:2] not in ("['", '["'):
        return cell
    try:
        return _list(cell, "caption")
    except RejectedError:
        return cell  # a caption that happens to start so


def _list(cell: str, column: str) -> list[Any]:
    if not cell.strip():
        return []
    try:
        value = ast.literal_eval(cell.strip()) if len(cell) <= _LONGEST_LITERAL else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, list):
        raise RejectedError(f"{column} holds no list: {cell[:40]!r}")
    return value


def detect_table(path: Path, separator: str | None) -> type[Reader]:
    """Return the reader for a text table, by its first row.

    Raises:
        DataError: It is no table.
    """
    character, _ = find_separator(path, separator)
    first = (first_rows(path, character, 1) or [[]])[0]
    if NEGATIVES in [name.strip() for name in first]:
        return NegClip
    if first and looks_like_image(first[0]):
        return ClicCsv
    return Table
