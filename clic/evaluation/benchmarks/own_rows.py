"""Reads the rows of a benchmark in a user's own file: JSON lines, CSV with a header, or a shard.

A row of JSON lines has lists, `{"image": "a.jpg", "captions": ["...", "..."]}`. In a CSV file the
texts of a list are in columns of the same name, numbered or not: `caption1`, `caption2`. Both give
the same rows. A file may come from anyone, so every field is checked.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, TextIO

from clic.errors import DataError
from clic.evaluation.benchmarks import own_shard
from clic.evaluation.benchmarks.reading import Record
from clic.evaluation.encode.image_sources import TarImage
from clic.io.http_connection import refuse_pointer

ENDINGS = (".jsonl", ".csv", own_shard.ENDING)
LISTS = ("positives", "negatives", "captions", "prompts")
"""The keys whose values are lists of texts."""
_COLUMNS = {key: re.compile(rf"{key[:-1]}(s|_?\d+)?") for key in LISTS}
REMEDY = "correct the row"


def read_own_rows(path: Path) -> Iterator[Record]:
    """Yield the rows of a file, counted from 1 without the header of a CSV file.

    Raises:
        DataError: The file cannot be read or contains no rows, or a row has the wrong form.
    """
    found = False
    if path.suffix.lower() == own_shard.ENDING:
        for row in own_shard.read_shard(path):
            found = True
            yield row
        if not found:
            raise DataError(f"{path} holds no samples; write one for each image")
        return
    read = _json_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in read(file, path):
                found = True
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        refuse_pointer(path)
        kind = "JSON lines" if path.suffix.lower() == ".jsonl" else "CSV"
        raise DataError(f"{path} cannot be read as {kind} in UTF-8 ({error}); mend it") from error
    if not found:
        raise DataError(f"{path} holds no rows; write one for each image or set of captions")


def _json_rows(file: TextIO, path: Path) -> Iterator[Record]:
    number = 0
    for line_number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        number += 1
        row = Record(None, path, _place(number, line_number), REMEDY)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise row.error(f"is no JSON ({error})") from error
        if not isinstance(value, dict):
            raise row.error("is no JSON object; write one row a line, each in braces") from None
        yield Record(value, path, row.place, REMEDY)


def _csv_rows(file: TextIO, path: Path) -> Iterator[Record]:
    reader = csv.reader(file, strict=True)
    header = [name.strip() for name in next(reader, [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns {twice[0]!r}; give each a name of its own")
    number = 0
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        row = Record(None, path, _place(number, reader.line_num), REMEDY)
        if len(cells) != len(header):
            raise row.error(f"has {len(cells)} cells under a header of {len(header)}")
        filled = {k: v for k, v in zip(header, cells, strict=True) if v.strip()}
        yield Record(_gathered(filled, row), path, row.place, REMEDY)


def _gathered(cells: dict[str, str], row: Record) -> dict[str, Any]:
    """Return a CSV row with the numbered columns of each list gathered in the header's order."""
    value: dict[str, Any] = {}
    for name, cell in cells.items():
        key = next((key for key, names in _COLUMNS.items() if names.fullmatch(name)), None)
        if key is None:
            value[name] = cell
        else:
            texts = _json_list(cell, name, row) if cell.lstrip().startswith('["') else [cell]
            value[key] = [*value.get(key, []), *texts]
    return value


def _json_list(cell: str, name: str, row: Record) -> list[Any]:
    """Return the texts of a cell that contains several, as `["one", "two"]`."""
    try:
        texts = json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise row.error(f"has a {name!r} that begins as a JSON list and is none") from error
    return texts if isinstance(texts, list) else [texts]


def _place(number: int, line: int) -> str:
    return str(number) if line == number else f"{number} (line {line})"


def own_text(row: Record, key: str) -> str:
    """Return a text of a row; raises `DataError` if it is missing, blank or not valid Unicode."""
    return _checked(row, row.text(key), key)


def own_texts(row: Record, key: str) -> list[str]:
    """Return the texts of a row's list, one or more.

    Raises:
        DataError: It is not a list, is empty, or a text is blank or not valid Unicode.
    """
    value = row.get(key)
    if isinstance(value, str):
        raise row.error(f'has one text as {key!r} where a list belongs, ["..."]')
    return [_checked(row, text, key) for text in row.texts(value, 1, repr(key))]


def _checked(row: Record, text: str, key: str) -> str:
    if not text.strip():
        raise row.error(f"has a blank text in {key!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise row.error(f"has half a character (a lone surrogate) in {key!r}") from None
    return text


def own_image(row: Record) -> Path | TarImage:
    """Return the image that a row names: a file in the folder of the row's file, or below it.

    A row of a shard already contains its image.

    Raises:
        DataError: The row names none, or one that lies outside that folder.
    """
    if isinstance(row.get("image"), TarImage):
        return row.value["image"]
    name, folder = own_text(row, "image"), row.path.parent
    inside = os.path.normpath(name)
    if PurePath(inside).is_absolute():
        inside = os.path.relpath(inside, os.path.abspath(folder))
    if "\0" in name or inside == "." or PurePath(inside).parts[0] == "..":
        raise DataError(
            f"{row.path}: row {row.place} names the image {name!r}, which does not lie in "
            f"{folder}; images lie beside the file or below it, so put the image (or a link to "
            "its folder) there and name it from there"
        )
    return folder / inside
