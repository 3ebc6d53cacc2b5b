"""Rows of text tables, whatever separates their columns and however their quotes are written.

Text tables: the published CLIC CSV, any CSV or TSV, and NegCLIP's TSV.
"""

from __future__ import annotations

import ast
import codecs
import csv
import hashlib
import io
import os
import re
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

from clic.data.packing.items import Item, RejectedError, decode_errors, file_place, key_of, texts
from clic.data.packing.readers.base import (
    IMAGE_ENDINGS,
    FormatReader,
    Request,
    captions_of,
    choose_columns,
    known_columns,
    shorten,
)
from clic.data.shards.tar import detect_encoding
from clic.errors import ConfigError, DataError

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
SAMPLE_ROWS = 100
SAMPLE_BYTES = 1 << 24  # rows may hold images
LONGEST_CELL = 1 << 29  # characters, an image in base64
LONGEST_QUOTE = 1 << 17  # characters that a quoted cell may have behind its first line
BASE64 = re.compile(
    r"(data:image/[\w.+-]+;base64,)?(?P<start>/9j/|_9j_|iVBORw0KGgo|R0lGOD|UklGR|SUkq|TU0A|Qk)?"
    r"[A-Za-z0-9+/_-]{40,}=*"
)
PATH_MAX = 4096  # characters; what is longer is no path
_EXCEL = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"#\d+$")


class Row(NamedTuple):
    """A row: its first line's number, its cells, and the byte it begins at, -1 if unknown."""

    line: int
    cells: list[str] | RejectedError
    offset: int


@dataclass(frozen=True)
class TextFile:
    """How a text table is written.

    Attributes:
        path: The file.
        encoding: Of its text.
        ending: Of its lines.
        start: The byte at which its first row begins.
        lines: Number of lines before that.
        separator: Between the columns.
        called: How to call it.
    """

    path: Path
    encoding: str
    ending: str
    start: int
    lines: int = 0
    separator: str = ""
    called: str = ""


class _Line(NamedTuple):
    number: int
    text: str
    offset: int


class _Lines(Iterator[str]):
    """The lines of a table, which can go back to where the present row began.

    A line that is a row of its own is no part of another row: a `csv.Error`.
    """

    def __init__(self, lines: Iterator[_Line], separator: str) -> None:
        self._lines, self._again = lines, deque[_Line]()
        self._separator = separator
        self.taken: list[_Line] = []
        self._quoted = 0

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        if self.taken:
            self._quoted += len(line.text)
            if self._quoted > LONGEST_QUOTE or self._is_row(line.text):
                self._again.appendleft(line)
                raise csv.Error("a quote that never closes")
        self.taken.append(line)
        return line.text

    def _is_row(self, line: str) -> bool:
        """Return whether a line has an image in a column where the row's first line has one."""
        first, other = (_split(text, self._separator) for text in (self.taken[0].text, line))
        pairs = zip(first, other, strict=False)
        return any(all(looks_like_image(cell.strip('"')) for cell in pair) for pair in pairs)

    def begin(self) -> None:
        """Begin a row with the next line."""
        self.taken, self._quoted = [], 0

    def back(self, keep: int) -> None:
        """Give back all lines of the present row but the first `keep`."""
        self._again.extendleft(reversed(self.taken[keep:]))
        self.taken, self._quoted = self.taken[:keep], 0

    def take(self, count: int) -> None:
        """Take that many lines into the present row."""
        deque(islice(self, count), 0)


def rows(table: TextFile) -> Iterator[Row]:
    """Yield the rows of a table; blank lines are none.

    Cells are quoted as RFC 4180 says, or with backslashes before inner quotes. A quote that is
    meant as such (in tab-separated text nobody quotes) is a character like any other. Where a
    quoted cell would swallow rows that follow, or it is not clear where it ends, the row is a
    `RejectedError`, and the next one starts on the line after it.

    Raises:
        DataError: The file cannot be read, or is not of its encoding.
    """
    csv.field_size_limit(LONGEST_CELL)  # a limit of the process; `_Lines` has its own
    try:
        with open(table.path, "rb") as file:
            lines = _Lines(_read_lines(file, table), table.separator)
            reader = csv.reader(lines, delimiter=table.separator, strict=True)
            while True:
                lines.begin()
                found = _parse(reader)
                if not lines.taken:
                    return
                cells: list[str] | RejectedError
                if found is not None and not _is_doubtful(lines.taken, found, table.separator):
                    cells = found
                else:
                    cells = _read_otherwise(lines, found, table.separator)
                    reader = csv.reader(lines, delimiter=table.separator, strict=True)
                first = lines.taken[0]
                if isinstance(cells, RejectedError) or any(cell.strip() for cell in cells):
                    yield Row(first.number, cells, first.offset)
    except OSError as error:
        raise DataError(
            f"{table.path} cannot be read ({error.strerror}); check the path"
        ) from error
    except UnicodeError as error:
        raise DataError(
            f"{table.path} is not in {table.encoding} ({error}); say what it is in with --encoding"
        ) from error


def _read_lines(file: BinaryIO, table: TextFile) -> Iterator[_Line]:
    file.seek(table.start)
    number, errors = table.lines, decode_errors(table.encoding)
    if table.ending == "\n" and not table.encoding.startswith(("utf-16", "utf-32")):
        offset = table.start
        for data in file:
            number += 1
            yield _Line(number, data.decode(table.encoding, errors), offset)
            offset += len(data)
        return
    text = io.TextIOWrapper(file, table.encoding, errors, newline=table.ending)
    for line in text:
        number += 1
        yield _Line(number, line, -1)


def _parse(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row, None where its quotes cannot be understood or nothing is left."""
    try:
        return next(reader, None)
    except csv.Error:
        return None


def _is_doubtful(taken: list[_Line], cells: list[str], separator: str) -> bool:
    r"""Return whether cells may be torn at a \" or hold rows that follow."""
    torn = '\\"' in taken[0].text and any(cell.endswith("\\") for cell in cells)
    return torn or (len(taken) > 1 and _swallows(taken, cells, separator))


def _swallows(taken: list[_Line], cells: list[str], separator: str) -> bool:
    """Return whether a line that went into a quoted cell has as many columns as the row."""
    first, *others = (len(_split(line.text, separator)) for line in taken)
    return separator == "\t" and first == len(cells) and first in others


def _split(line: str, separator: str) -> list[str]:
    return line.rstrip("\r\n").split(separator)


def _read_otherwise(
    lines: _Lines, cells: list[str] | None, separator: str
) -> list[str] | RejectedError:
    """Return the cells of a row that is not quoted as RFC 4180 says."""
    count, first = len(lines.taken), lines.taken[0].text
    lines.back(0)
    if '\\"' in first:
        escaped = csv.reader(
            map(_with_backslashes, lines), delimiter=separator, escapechar="\\", strict=True
        )
        found = _parse(escaped)
        if found is not None and not _swallows(lines.taken, found, separator):
            return found
        lines.back(0)
    lines.take(count)
    if cells is not None and not _swallows(lines.taken, cells, separator):
        return cells
    lines.back(1)
    return _literal(first, separator)


def _with_backslashes(line: str) -> str:
    r"""Return a line in which only \" and \\ are escapes, and other backslashes stand alone."""
    return re.sub(r'\\["\\]|\\', lambda found: found[0] if len(found[0]) == 2 else "\\\\", line)


def _literal(line: str, separator: str) -> list[str] | RejectedError:
    """Return the cells of one line whose quotes are characters, where that can be told."""
    cells = _split(line, separator)
    lenient = _parse(csv.reader([line], delimiter=separator)) or []
    even = all(cell.count('"') % 2 == 0 for cell in cells)
    if separator == "\t" or (even and len(lenient) == len(cells)):
        return [_unquoted(cell, separator) for cell in cells]
    return RejectedError("the row cannot be read (a quote that never closes); mend its quotes")


def _unquoted(cell: str, separator: str) -> str:
    try:
        found = next(csv.reader([cell], delimiter=separator, strict=True), [])
    except csv.Error:
        return cell
    return found[0] if len(found) == 1 else cell


def first_rows(table: TextFile, count: int = SAMPLE_ROWS) -> list[list[str]]:
    """Return the first rows that can be read."""
    found = []
    for row in islice(rows(table), count):
        if isinstance(row.cells, list):
            found.append(row.cells)
        if row.offset > SAMPLE_BYTES:
            break
    return found


def open_table(path: Path, separator: str | None, encoding: str | None) -> TextFile:
    """Return how a table is written.

    Args:
        path: The table.
        separator: What the user named: one character, or a word of `SEPARATORS`.
        encoding: What the user says it is in.

    Raises:
        ConfigError: There is no such encoding.
        DataError: The table has one column only, is empty, or is no text.
    """
    table = _look_at(path, encoding)
    if separator is not None:
        words = {word: character for character, word in SEPARATORS.items()}
        character = words.get(separator, separator)
        if len(character) != 1 or character in '"\r\n':
            raise DataError(
                f"--separator {separator!r} is neither one character nor one of {', '.join(words)}"
            )
        called = SEPARATORS.get(character, repr(character))
        return replace(table, separator=character, called=called)
    if table.separator:
        return table
    tables = [replace(table, separator=character) for character in SEPARATORS]
    found = {t.separator: quality for t in tables if (quality := _quality(t)) is not None}
    if not found:
        raise DataError(
            f"{path} has one column whether separated by {', '.join(SEPARATORS.values())}; "
            "name what stands between its columns with --separator"
        )
    best = max(found, key=lambda s: found[s])
    return replace(table, separator=best, called=f"{SEPARATORS[best]} (detected)")


def _look_at(path: Path, given: str | None) -> TextFile:
    """Return encoding, line ends and start of a table; the separator where `sep=;` names it."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    encoding, mark = detect_encoding(start, check_encoding(given))
    if b"\0" in start[:512] and not encoding.startswith(("utf-16", "utf-32")):
        raise DataError(f"{path} is no text; save it as UTF-8")
    text = start[mark:].decode(encoding, "replace")
    if not text.strip():
        raise DataError(f"{path} is empty")
    ending = "\r" if "\r" in text and "\n" not in text else "\n"
    first = text.split(ending, 1)[0] + ending
    if found := _EXCEL.fullmatch(first):
        character = found[1]
        called = f"{SEPARATORS.get(character, repr(character))} (by the line sep=)"
        skipped = mark + len(first.encode(encoding))
        return TextFile(path, encoding, ending, skipped, 1, character, called)
    return TextFile(path, encoding, ending, mark)


def check_encoding(given: str | None) -> str | None:
    """Return an encoding by its own name; raises `ConfigError` where there is none."""
    if given is None:
        return None
    try:
        name = codecs.lookup(given).name
        b"a".decode(name, "replace")
    except LookupError as error:
        raise ConfigError(
            f"--encoding {given}: there is no such encoding of text; name one such as cp1252, "
            "latin-1, utf-16 or gb18030"
        ) from error
    return name


def _quality(table: TextFile) -> tuple[float, ...] | None:
    """Return how well a separator explains a table's start, None where it separates nothing."""
    sample = first_rows(table)
    wide = sum(len(row) > 1 for row in sample)
    if wide * 2 <= len(sample):
        return None
    same = sum(len(row) == len(sample[0]) for row in sample)
    with_image = sum(any(looks_like_image(cell) for cell in row) for row in sample)
    return (known_columns(sample[0]), with_image / len(sample), wide / len(sample), same)


def looks_like_image(cell: str) -> bool:
    """Return whether a cell is the name of an image file, or an image in base64."""
    bare = image_name(cell)
    return is_base64(bare) or os.path.splitext(bare.lower())[1] in IMAGE_ENDINGS


def image_name(cell: str) -> str:
    """Return the image's name in a cell; Flickr8k numbers the captions of one, as a.jpg#0."""
    bare = cell.strip()
    numbered = _NUMBER.search(bare)
    if numbered and os.path.splitext(bare[: numbered.start()].lower())[1] in IMAGE_ENDINGS:
        return bare[: numbered.start()]
    return bare


def is_base64(cell: str) -> bool:
    """Return whether a cell is an image in base64, by its first letters or for its length."""
    found = BASE64.fullmatch(cell) if len(cell) > 40 else None
    return bool(found and (found[1] or found["start"] or len(cell) > PATH_MAX))


def columns(sample: Iterable[list[str]], width: int) -> list[tuple[str, ...]]:
    """Return the columns of the rows that have so many cells."""
    return list(zip(*(row for row in sample if len(row) == width), strict=True))


NEGATIVES, NEIGHBOURS = "neg_caption", "neg_image"
_LONGEST_LITERAL = 100_000  # characters; parsing deep nests of brackets needs a deep stack


class _TextTable(FormatReader):
    """A table with or without a header, a row an image."""

    def open(self) -> None:
        self.path = Path(self.source)
        self.table = open_table(self.path, self.request.separator, self.request.encoding)
        self.found = [f"separator: {self.table.called}"]
        if self.table.encoding != "utf-8":
            self.found.append(f"encoding: {self.table.encoding}")
        self.first = (first_rows(self.table) or [[]])[0]
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
        header, root = self.header and self.first, self.root()
        for row in rows(self.table):
            if header and row.cells == header:
                header = []
            else:
                yield self._item(row, root)

    def _item(self, row: Row, root: Path) -> Item:
        where, image = f"{self.path.name}:{row.line}", ""
        try:
            if isinstance(row.cells, RejectedError):
                raise row.cells
            image = image_name(self.image_of(row.cells))
            captions, extra = self.read(row.cells)
            if is_base64(image):
                return self._inside(row, image, captions, extra)
            place = file_place(image, root)
        except RejectedError as error:
            return Item(shorten(image, 300), where, reason=str(error))
        return Item(image, where, place, captions, extra)

    def _inside(
        self, row: Row, image: str, captions: tuple[str, ...], extra: dict[str, Any]
    ) -> Item:
        """Return the item of an image that the table itself holds."""
        where, at = f"{self.path.name}:{row.line}", -1
        if row.offset >= 0:
            with open(self.path, "rb") as file:
                file.seek(row.offset)
                at = file.readline().find(image.encode())
        if at < 0:
            raise RejectedError(
                "images in base64 are read from tables in UTF-8, one row a line; save it so"
            )
        place = ("base64", str(self.path.absolute()), row.offset + at, len(image))
        same = hashlib.blake2b(image.encode(), digest_size=16).hexdigest()
        return Item(where, "", place, captions, extra, same=same)


class ClicCsv(_TextTable):
    """The published code's CSV: path, caption, then one further sentence a column."""

    NAME = "clic-csv"
    TAKES = ("image_root", "separator", "no_header", "encoding")

    def find_header(self) -> list[str]:
        header = not looks_like_image(self.first[0]) and known_columns(self.first) > 0
        header = header and not self.request.no_header
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
    """Any CSV or TSV; without a header, its columns are called 1, 2, ..."""

    NAME = "table"
    TAKES: ClassVar[tuple[str, ...]] = (
        *("image_root", "image_column", "caption_column"),
        *("separator", "no_header", "encoding"),
    )

    def find_header(self) -> list[str]:
        self.width = len(self.first)
        if self.request.no_header or any(map(_is_image, self.first)):
            names = [str(number) for number in range(1, self.width + 1)]
            given = _by_contents(self.request, first_rows(self.table), names, self.path)
            image, captions, lines = choose_columns(given, names, str(self.path))
            self.image, self.captions = int(image) - 1, [int(c) - 1 for c in captions]
            said = "said" if self.request.no_header else "an image in the first row"
            self.found += [f"no header ({said}): columns are numbered from 1", *lines]
            return []
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
        if len(row) != self.width:
            raise RejectedError(
                f"{len(row)} columns where the {'header' if self.header else 'first row'} has "
                f"{self.width}; "
                "quote cells that hold a separator"
            )
        found = [c for column in self.captions for c in captions_of(_cell(row[column]))]
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
                raise RejectedError(f"{NEIGHBOURS} holds no row numbers")
            extra["neighbours"] = [key_of(n) for n in numbers]
        return captions, extra


def _by_contents(
    request: Request, sample: list[list[str]], names: list[str], path: Path
) -> Request:
    """Return a request that names the columns of a table without a header, by what they hold.

    Raises:
        DataError: Several columns might be it, or none.
    """
    cells = dict(zip(names, columns(sample, len(names)), strict=True))
    image = request.image_column or next((n for n in names if _most(cells[n], _is_image)), None)
    rest = [n for n in names if n != image and _most(cells[n], _is_text)]
    captions = request.caption_column or tuple(
        [n for n in rest if _most(cells[n], lambda cell: " " in cell.strip())] or rest
    )
    if image is None or not captions or (len(captions) > 1 and not request.caption_column):
        first = "; ".join(f"{name} = {shorten(cells[name][0], 24)!r}" for name in names[:8])
        raise DataError(
            f"{path} has no header, and which columns hold image and captions cannot be told; name "
            f"them by number with --image-column and --caption-column ({first}), or join the "
            "captions to the images where they lie in another file"
        )
    return replace(request, image_column=image, caption_column=captions)


def _most(cells: Sequence[str], test: Callable[[str], bool]) -> bool:
    return sum(map(test, cells)) * 2 > len(cells)


def _is_image(cell: str) -> bool:
    return looks_like_image(cell) or "://" in cell[:12]


def _is_text(cell: str) -> bool:
    return any(map(str.isalpha, cell)) and not _is_image(cell)


def _cell(cell: str) -> str | Sequence[Any]:
    """Return a cell, or the list in it that pandas and JSON write as ['a', "b"] or [{...}]."""
    if cell.strip()[:2] not in ("['", '["', "[{"):
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


def detect_table(path: Path, request: Request) -> type[FormatReader]:
    """Return the reader for a text table, by its first row.

    Raises:
        DataError: It is no table.
    """
    table = open_table(path, request.separator, request.encoding)
    first = (first_rows(table) or [[]])[0]
    if NEGATIVES in [name.strip() for name in first]:
        return NegClip
    named = request.image_column or request.caption_column
    if first and looks_like_image(first[0]) and not named:
        return ClicCsv
    return Table
