"""Rows of text tables, whatever separates their columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from clic.data.packing.items import RejectedError
from clic.data.packing.readers.base import IMAGE_ENDINGS, known_columns
from clic.errors import DataError

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
SAMPLE_ROWS = 100
_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
Row = tuple[int, "list[str] | RejectedError"]


class _Lines(Iterator[str]):
    """The lines of a UTF-8 file, counted; bytes that are not UTF-8 survive as surrogates."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.number, self.offset, self._mark = file, 0, 0, (0, 0)
        self.ended = False
        if file.read(3) == b"\xef\xbb\xbf":
            self.offset = 3
        file.seek(self.offset)

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        if self._mark[0] < 0:
            self._mark = self.number, self.offset
        return line.decode("utf-8", "surrogateescape")

    def mark(self) -> None:
        """Remember the end of the next line."""
        self._mark = -1, -1

    def back(self) -> None:
        """Go back to the end of that line."""
        self.number, self.offset = self._mark
        self.ended = False
        self.file.seek(self.offset)


def rows(path: Path, separator: str) -> Iterator[Row]:
    """Yield the first line's number and the cells of each row; blank lines are no rows.

    A row that cannot be parsed (say, a quote that never closes) gives a `RejectedError`, and the
    next row starts on the line after it.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            lines = _Lines(file)
            reader = csv.reader(lines, delimiter=separator)
            while True:
                first = lines.number + 1
                lines.mark()
                try:
                    row = next(reader)
                    if lines.ended:  # asked for more, and gives what it has as a row
                        raise csv.Error("a quote that never closes")
                except StopIteration:
                    return
                except csv.Error as error:
                    lines.back()
                    reader = csv.reader(lines, delimiter=separator)
                    yield first, RejectedError(f"the row cannot be read ({error}); mend its quotes")
                else:
                    if any(cell.strip() for cell in row):
                        yield first, row
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error


def first_rows(path: Path, separator: str, count: int = SAMPLE_ROWS) -> list[list[str]]:
    """Return the first rows that can be read."""
    return [row for _, row in islice(rows(path, separator), count) if isinstance(row, list)]


def find_separator(path: Path, given: str | None) -> tuple[str, str]:
    """Return the separator of a table, and how to call it.

    Args:
        path: The table.
        given: What the user named: one character, or a word of `SEPARATORS`.

    Raises:
        DataError: The table has one column only, is empty, or is no UTF-8 text.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if start[:2] in _OTHER_ENCODINGS or b"\0" in start[:512]:
        raise DataError(f"{path} is no UTF-8 text; save it as UTF-8")
    if not start.strip():
        raise DataError(f"{path} is empty")
    if given is not None:
        words = {word: character for character, word in SEPARATORS.items()}
        character = words.get(given, given)
        if len(character) != 1 or character in '"\r\n':
            raise DataError(
                f"--separator {given!r} is neither one character nor one of {', '.join(words)}"
            )
        return character, SEPARATORS.get(character, repr(character))
    found = {s: quality for s in SEPARATORS if (quality := _quality(path, s)) is not None}
    if not found:
        raise DataError(
            f"{path} has one column whether separated by {', '.join(SEPARATORS.values())}; "
            "name what stands between its columns with --separator"
        )
    best = max(found, key=lambda s: found[s])
    return best, f"{SEPARATORS[best]} (detected)"


def _quality(path: Path, separator: str) -> tuple[float, ...] | None:
    """Return how well a separator explains a table's start, None where it separates nothing."""
    sample = first_rows(path, separator)
    wide = sum(len(row) > 1 for row in sample)
    if wide * 2 <= len(sample):
        return None
    same = sum(len(row) == len(sample[0]) for row in sample)
    with_image = sum(any(looks_like_image(cell) for cell in row) for row in sample)
    return (known_columns(sample[0]), with_image / len(sample), wide / len(sample), same)


def looks_like_image(cell: str) -> bool:
    """Return whether a cell is the name of an image file."""
    return os.path.splitext(cell.strip().lower())[1] in IMAGE_ENDINGS
