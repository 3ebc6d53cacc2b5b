"""Readers of text tables: the published CLIC CSV, any CSV or TSV, and NegCLIP's TSV."""

from __future__ import annotations

import ast
import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from clic.data.packing.items import Item, RejectedError, key_of, texts
from clic.data.packing.readers import text_rows
from clic.data.packing.readers.base import (
    FormatReader,
    Request,
    captions_of,
    choose_columns,
    known_columns,
    rejected,
    shorten,
)
from clic.errors import DataError

NEGATIVES, NEIGHBOURS = "neg_caption", "neg_image"
_LONGEST_LITERAL = 100_000  # characters; parsing deeply nested brackets needs a deep stack


class _TextTable(FormatReader):
    """A table with or without a header, one row per image."""

    image = 0  # column of the image

    def open(self) -> None:
        self.table = text_rows.open_table(self.path, self.request.separator, self.request.encoding)
        self.found = [f"separator: {self.table.called}"]
        if self.table.encoding != "utf-8":
            self.found.append(f"encoding: {self.table.encoding}")
        self.first = next(iter(text_rows.first_rows(self.table)), [])
        self.header = self.find_header()
        self.found.append(self.find_root())

    @abstractmethod
    def find_header(self) -> list[str]:
        """Return the column names, [] if the first row is data; add a description to `found`."""

    @abstractmethod
    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Return the captions and further entries of a row; raises `RejectedError`."""

    def items(self) -> Iterator[Item]:
        header = self.header and self.first
        for row in text_rows.rows(self.table):
            if header and row.cells == header:
                header = []
            else:
                yield self._item(row)

    def _item(self, row: text_rows.Row) -> Item:
        where, image = f"{self.path.name}:{row.line}", ""
        try:
            if isinstance(row.cells, RejectedError):
                raise row.cells
            if self.image < len(row.cells):
                image = text_rows.image_name(row.cells[self.image])
            captions, extra = self.read(row.cells)
            if text_rows.is_base64(image):
                same = hashlib.blake2b(image.encode(), digest_size=16).hexdigest()
                return Item(where, "", self._inside(row, image), captions, extra, same=same)
        except RejectedError as error:
            return rejected(image, where, str(error))
        return self.listed(image, where, captions, extra)

    def _inside(self, row: text_rows.Row, image: str) -> tuple[str, str, int, int]:
        """Return the place of an image that the table itself contains."""
        at = -1
        if row.offset >= 0:
            with open(self.path, "rb") as file:
                file.seek(row.offset)
                at = file.readline().find(image.encode())
        if at < 0:
            raise RejectedError(
                "images in base64 are read from tables in UTF-8, one row per line; save it so"
            )
        return ("base64", str(self.path.absolute()), row.offset + at, len(image))


class ClicCsv(_TextTable):
    """The published code's CSV: path, caption, then one further sentence per column."""

    NAME = "clic-csv"
    TAKES = ("image_root", "separator", "no_header", "encoding")

    def find_header(self) -> list[str]:
        known = not text_rows.looks_like_image(self.first[0]) and known_columns(self.first) > 0
        header = self.first if known and not self.request.no_header else []
        said = "first row taken for a header" if header else "no header"
        self.found.append(f"columns: image path, caption, further sentences; {said}")
        return header

    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        return texts(row[1:]), {}


class Table(_TextTable):
    """Any CSV or TSV; without a header, its columns are called 1, 2, ..."""

    NAME = "table"
    TAKES: ClassVar[tuple[str, ...]] = (
        *("image_root", "image_column", "caption_column"),
        *("separator", "no_header", "encoding"),
    )

    def find_header(self) -> list[str]:
        self.width = len(self.first)
        bare = self.request.no_header or any(map(_is_image, self.first))
        names, request = [name.strip() for name in self.first], self.request
        if bare:
            names = [str(number) for number in range(1, self.width + 1)]
            request = _by_contents(request, text_rows.first_rows(self.table), names, self.path)
            said = "said" if request.no_header else "an image in the first row"
            self.found.append(f"no header ({said}): columns are numbered from 1")
        elif double := sorted({name for name in names if name and names.count(name) > 1}):
            raise DataError(f"{self.path}: column {double[0]!r} occurs twice; rename one")
        image, captions, lines = choose_columns(request, names, str(self.path))
        self.image, self.captions = names.index(image), [names.index(c) for c in captions]
        self.found += lines
        return [] if bare else names

    def read(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        if len(row) != self.width:
            raise RejectedError(
                f"{len(row)} columns where the {'header' if self.header else 'first row'} has "
                f"{self.width}; quote cells that hold a separator"
            )
        found = [c for column in self.captions for c in captions_of(cell_value(row[column]))]
        return tuple(found), {}


class NegClip(Table):
    """NegCLIP's TSV: filepath, title, neg_caption (a list), neg_image (row numbers)."""

    NAME = "negclip"
    TAKES = ("image_root", "image_column", "caption_column", "separator", "encoding")

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
                raise RejectedError(f"{NEIGHBOURS} does not hold row numbers")
            extra["neighbours"] = [key_of(n) for n in numbers]
        return captions, extra


def _by_contents(
    request: Request, sample: list[list[str]], names: list[str], path: Path
) -> Request:
    """Return the request with the columns of a headerless table, guessed from their contents."""
    whole = [row for row in sample if len(row) == len(names)]
    cells = dict(zip(names, zip(*whole, strict=True), strict=True))
    image = request.image_column or next((n for n in names if _most(cells[n], _is_image)), None)
    rest = [n for n in names if n != image and _most(cells[n], _is_text)]
    captions = request.caption_column or tuple(
        [n for n in rest if _most(cells[n], lambda cell: " " in cell.strip())] or rest
    )
    if image is None or not captions or (len(captions) > 1 and not request.caption_column):
        first = "; ".join(f"{name} = {shorten(cells[name][0], 24)!r}" for name in names[:8])
        raise DataError(
            f"{path} has no header, and its image and caption columns cannot be guessed; name "
            f"them by number with --image-column and --caption-column ({first}), or join the "
            "captions to the images if they are in another file"
        )
    return replace(request, image_column=image, caption_column=captions)


def _most(cells: Sequence[str], test: Callable[[str], bool]) -> bool:
    return sum(map(test, cells)) * 2 > len(cells)


def _is_image(cell: str) -> bool:
    return text_rows.looks_like_image(cell) or "://" in cell[:12]


def _is_text(cell: str) -> bool:
    return any(map(str.isalpha, cell)) and not _is_image(cell)


def cell_value(cell: str) -> str | list[Any]:
    """Return a cell, or the list in it that pandas and JSON write as ['a', "b"] or [{...}]."""
    if cell.strip()[:2] not in ("['", '["', "[{"):
        return cell
    try:
        return _list(cell, "caption")
    except RejectedError:
        return cell  # a caption that happens to look like a list


def _list(cell: str, column: str) -> list[Any]:
    if not cell.strip():
        return []
    value = None
    for read in (json.loads, ast.literal_eval):  # JSON first: null and \ud83d\ude00 are its own
        if value is None and len(cell) <= _LONGEST_LITERAL:
            with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                value = read(cell.strip())
    if not isinstance(value, list):
        raise RejectedError(f"{column} holds no list: {cell[:40]!r}")
    return value


def detect_table(path: Path, request: Request) -> type[FormatReader]:
    """Return the reader for a text table, chosen by its first row; raises `DataError`."""
    table = text_rows.open_table(path, request.separator, request.encoding)
    first = next(iter(text_rows.first_rows(table)), [])
    if NEGATIVES in [name.strip() for name in first]:
        return NegClip
    named = request.image_column or request.caption_column
    return ClicCsv if first and text_rows.looks_like_image(first[0]) and not named else Table
