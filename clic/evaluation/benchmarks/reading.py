"""Helpers of the readers: JSON files, checked fields of rows, and grids built row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clic.errors import DataError
from clic.evaluation.encode.image_sources import ImageSource
from clic.evaluation.tables.grids import Grids
from clic.evaluation.tables.table import Interner
from clic.io.http_connection import refuse_pointer


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


def read_list(path: Path) -> list[Any]:
    """Return the rows of a JSON file that holds a list; raises `DataError`."""
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path} should hold a JSON list; download it again")
    return content


def text_field(row: Any, name: str, path: Path, number: int | str) -> str:
    """Return a row's text under a name; raises `DataError`."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise DataError(f"{path}: row {number} has no text {name!r}; download the file again")
    return value


def number_field(row: Any, name: str, path: Path, number: int | str) -> int:
    """Return a row's whole number under a name; raises `DataError`."""
    value = row.get(name) if isinstance(row, dict) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(
            f"{path}: row {number} has no whole number {name!r}; download the file again"
        )
    return value


def texts_of(value: Any, least: int, what: str, path: Path, number: int | str) -> list[str]:
    """Return a list of at least `least` texts as it is; raises `DataError`."""
    texts = value if isinstance(value, list) else []
    if len(texts) < least or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{path}: row {number} should have {what}, {least} texts or more; "
            "download the file again"
        )
    return texts


class GridBuilder:
    """Collects rows of images and captions into a table.

    Args:
        source: The file of the rows, for messages.
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
        """Return the table; rows with fewer captions than others are padded with -1.

        Raises:
            DataError: There are no rows.
        """
        if not self._rows:
            raise DataError(f"{self._source} holds no rows; download it again")
        width = max(len(captions) for _, _, captions in self._rows)
        padded = [captions + [-1] * (width - len(captions)) for _, _, captions in self._rows]
        return Grids(
            images=tuple(self._images.items),
            texts=tuple(self._texts.items),
            rule=rule,
            categories=tuple(self._categories),
            category=np.array([number for number, _, _ in self._rows], dtype=np.int64),
            image=np.array([images for _, images, _ in self._rows], dtype=np.int64),
            caption=np.array(padded, dtype=np.int64),
            groups={name: tuple(of) for name, of in (groups or {}).items()},
            overall=overall,
            sets={k: np.array(v, dtype=np.int64) for k, v in (sets or {}).items()},
        )

    @property
    def category_names(self) -> tuple[str, ...]:
        """The categories so far, in order."""
        return tuple(self._categories)

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each category."""
        counts = dict.fromkeys(self._categories, 0)
        names = self.category_names
        for number, _, _ in self._rows:
            counts[names[number]] += 1
        return counts
