"""Rows of text tables, with any separator and any style of quoting.

`open_table` detects encoding, line ends and separator; `rows` reads the table row by row.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clic.data.packing.items import RejectedError, decode_errors, reading
from clic.data.packing.readers.base import IMAGE_ENDINGS, known_columns
from clic.data.shards.records import detect_encoding
from clic.errors import ConfigError, DataError

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
SAMPLE_ROWS = 100
SAMPLE_BYTES = 1 << 24  # rows may contain images
LONGEST_CELL = 1 << 29  # characters, for an image in base64
LONGEST_QUOTE = 1 << 17  # characters that a quoted cell may have after its first line
PATH_MAX = 4096  # characters; anything longer is not a path
BASE64 = re.compile(
    r"(data:image/[\w.+-]+;base64,)?(?P<start>/9j/|_9j_|iVBORw0KGgo|R0lGOD|UklGR|SUkq|TU0A|Qk)?"
    r"[A-Za-z0-9+/_-]{40,}=*"
)
_EXCEL = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"#\d+$")
_WIDE = ("utf-16", "utf-32")


class Row(NamedTuple):
    """A row: the number of its first line, its cells, and the offset of its first byte or -1."""

    line: int
    cells: list[str] | RejectedError
    offset: int


@dataclass(frozen=True)
class TextFile:
    """How a text table is written."""

    path: Path
    encoding: str
    ending: str  # of a line
    start: int  # byte at which the first row begins
    lines: int = 0  # before the first row
    separator: str = ""
    called: str = ""  # the separator's name for the user


class _Line(NamedTuple):
    number: int
    text: str
    offset: int


class _Lines(Iterator[str]):
    """The lines of a table; those of the current row can be pushed back.

    A line that clearly begins a new row raises `csv.Error` instead of continuing the current one.
    """

    def __init__(self, lines: Iterator[_Line], separator: str) -> None:
        self._lines, self._again, self._separator = lines, deque[_Line](), separator
        self.begin()

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
        """Return whether a line and the row's first line have an image in the same column."""
        first, other = (_split(text, self._separator) for text in (self.taken[0].text, line))
        pairs = zip(first, other, strict=False)
        return any(all(looks_like_image(cell.strip('"')) for cell in pair) for pair in pairs)

    def begin(self) -> None:
        """Begin a new row at the next line."""
        self.taken: list[_Line] = []
        self._quoted = 0

    def back(self, keep: int) -> None:
        """Push back all lines of the current row except the first `keep`."""
        self._again.extendleft(reversed(self.taken[keep:]))
        self.taken, self._quoted = self.taken[:keep], 0

    def is_torn(self, cells: list[str]) -> bool:
        r"""Return whether the current row's cells may have been split at a \"."""
        return '\\"' in self.taken[0].text and any(cell.endswith("\\") for cell in cells)

    def swallows(self, cells: list[str]) -> bool:
        """Return whether a quoted cell contains a line with as many columns as the row."""
        first, *others = (len(_split(line.text, self._separator)) for line in self.taken)
        return self._separator == "\t" and first == len(cells) and first in others


def rows(table: TextFile) -> Iterator[Row]:
    """Yield the rows of a table, without blank lines.

    Cells are quoted as in RFC 4180, or with backslashes before inner quotes. A quote that is meant
    literally, as in most tab-separated text, is an ordinary character. If a quoted cell would
    swallow the following rows, or its end is unclear, the row is a `RejectedError`, and the next
    row starts on the following line.

    Raises:
        DataError: The file cannot be read, or is not in its encoding.
    """
    csv.field_size_limit(LONGEST_CELL)  # for the whole process; `_Lines` has its own limit
    try:
        with reading(table.path), open(table.path, "rb") as file:
            lines = _Lines(_read_lines(file, table), table.separator)
            while True:
                lines.begin()
                found = _parse(lines, table.separator)
                if not lines.taken:
                    return
                cells: list[str] | RejectedError
                if found is None or lines.is_torn(found) or lines.swallows(found):
                    cells = _read_otherwise(lines, found, table.separator)
                else:
                    cells = found
                first = lines.taken[0]
                if isinstance(cells, RejectedError) or any(cell.strip() for cell in cells):
                    yield Row(first.number, cells, first.offset)
    except UnicodeError as error:
        raise DataError(
            f"{table.path} is not in {table.encoding} ({error}); name its encoding with --encoding"
        ) from error


def _read_lines(file: BinaryIO, table: TextFile) -> Iterator[_Line]:
    file.seek(table.start)
    first, errors = table.lines + 1, decode_errors(table.encoding)
    if table.ending == "\n" and not table.encoding.startswith(_WIDE):
        offset = table.start
        for number, data in enumerate(file, first):
            yield _Line(number, data.decode(table.encoding, errors), offset)
            offset += len(data)
    else:
        text = io.TextIOWrapper(file, table.encoding, errors, newline=table.ending)
        for number, line in enumerate(text, first):
            yield _Line(number, line, -1)


def _parse(
    lines: Iterable[str], separator: str, *, strict: bool = True, escape: str | None = None
) -> list[str] | None:
    """Return the next row, or None if its quotes are malformed or nothing is left."""
    try:
        return next(csv.reader(lines, delimiter=separator, strict=strict, escapechar=escape), None)
    except csv.Error:
        return None


def _split(line: str, separator: str) -> list[str]:
    return line.rstrip("\r\n").split(separator)


def _read_otherwise(
    lines: _Lines, cells: list[str] | None, separator: str
) -> list[str] | RejectedError:
    """Return the cells of a row that is not quoted as in RFC 4180."""
    count, first = len(lines.taken), lines.taken[0].text
    lines.back(0)
    if '\\"' in first:
        found = _parse(map(_with_backslashes, lines), separator, escape="\\")
        if found is not None and not lines.swallows(found):
            return found
        lines.back(0)
    deque(islice(lines, count), 0)
    if cells is not None and not lines.swallows(cells):
        return cells
    lines.back(1)
    return _literal(first, separator)


def _with_backslashes(line: str) -> str:
    r"""Return a line in which only \" and \\ are escapes; other backslashes are literal."""
    return re.sub(r'\\["\\]|\\', lambda found: found[0] if len(found[0]) == 2 else "\\\\", line)


def _literal(line: str, separator: str) -> list[str] | RejectedError:
    """Return the cells of one line whose quotes are literal, if that is certain."""
    cells = _split(line, separator)
    lenient = _parse([line], separator, strict=False) or []
    even = all(cell.count('"') % 2 == 0 for cell in cells)
    if separator == "\t" or (even and len(lenient) == len(cells)):
        return [_unquoted(cell, separator) for cell in cells]
    return RejectedError("the row cannot be read (a quote that never closes); fix its quotes")


def _unquoted(cell: str, separator: str) -> str:
    found = _parse([cell], separator) or []
    return found[0] if len(found) == 1 else cell


def first_rows(table: TextFile) -> list[list[str]]:
    """Return those of the first rows that can be read."""
    found = []
    for row in islice(rows(table), SAMPLE_ROWS):
        if isinstance(row.cells, list):
            found.append(row.cells)
        if row.offset > SAMPLE_BYTES:
            break
    return found


def open_table(path: Path, separator: str | None, encoding: str | None) -> TextFile:
    """Detect how a table is written, except for what the user specifies.

    Args:
        path: The table.
        separator: One character, or a word of `SEPARATORS`; None detects it.
        encoding: None detects it.

    Raises:
        ConfigError: There is no such encoding.
        DataError: The table has only one column, is empty, or is not text.
    """
    table, words = _look_at(path, encoding), ", ".join(SEPARATORS.values())
    if separator is not None:
        character = {word: c for c, word in SEPARATORS.items()}.get(separator, separator)
        if len(character) != 1 or character in '"\r\n':
            raise DataError(
                f"--separator {separator!r} is neither one character nor one of {words}"
            )
        called = SEPARATORS.get(character, repr(character))
        return replace(table, separator=character, called=called)
    if table.separator:
        return table
    tables = [replace(table, separator=c, called=f"{w} (detected)") for c, w in SEPARATORS.items()]
    qualities = {table: _quality(table) for table in tables}
    best = max(tables, key=qualities.__getitem__)
    if not qualities[best]:
        raise DataError(
            f"{path} has one column whether separated by {words}; "
            "name what stands between its columns with --separator"
        )
    return best


def _look_at(path: Path, given: str | None) -> TextFile:
    """Return a table's encoding, line ends and start, and its separator if a line `sep=` has it."""
    with reading(path), open(path, "rb") as file:
        start = file.read(1 << 16)
    encoding, mark = detect_encoding(start, _check_encoding(given))
    if b"\0" in start[:512] and not encoding.startswith(_WIDE):
        raise DataError(f"{path} is not text; save it as UTF-8")
    text = start[mark:].decode(encoding, "replace")
    if not text.strip():
        raise DataError(f"{path} is empty")
    ending = "\r" if "\r" in text and "\n" not in text else "\n"
    first = text.split(ending, 1)[0] + ending
    if found := _EXCEL.fullmatch(first):
        called = f"{SEPARATORS.get(found[1], repr(found[1]))} (by the line sep=)"
        skipped = mark + len(first.encode(encoding))
        return TextFile(path, encoding, ending, skipped, 1, found[1], called)
    return TextFile(path, encoding, ending, mark)


def _check_encoding(given: str | None) -> str | None:
    """Return an encoding's canonical name; raises `ConfigError` if there is no such encoding."""
    if given is None:
        return None
    try:
        name = codecs.lookup(given).name
        b"a".decode(name, "replace")
    except LookupError as error:
        raise ConfigError(
            f"--encoding {given}: there is no such text encoding; name one such as cp1252, "
            "latin-1, utf-16 or gb18030"
        ) from error
    return name


def _quality(table: TextFile) -> tuple[float, ...]:
    """Return how well a separator fits the first rows of a table, () if it separates nothing."""
    sample = first_rows(table)
    several = sum(len(row) > 1 for row in sample)
    if several * 2 <= len(sample):
        return ()
    same = sum(len(row) == len(sample[0]) for row in sample)
    with_image = sum(any(looks_like_image(cell) for cell in row) for row in sample)
    return (known_columns(sample[0]), with_image / len(sample), several / len(sample), same)


def looks_like_image(cell: str) -> bool:
    """Return whether a cell is the name of an image file, or an image in base64."""
    bare = image_name(cell)
    return is_base64(bare) or os.path.splitext(bare.lower())[1] in IMAGE_ENDINGS


def image_name(cell: str) -> str:
    """Return the image's name in a cell; Flickr8k numbers an image's captions, as in a.jpg#0."""
    bare = cell.strip()
    unnumbered = _NUMBER.sub("", bare)
    return unnumbered if os.path.splitext(unnumbered.lower())[1] in IMAGE_ENDINGS else bare


def is_base64(cell: str) -> bool:
    """Return whether a cell is an image in base64, judged by its first letters or its length."""
    found = BASE64.fullmatch(cell) if len(cell) > 40 else None
    return bool(found and (found[1] or found["start"] or len(cell) > PATH_MAX))
