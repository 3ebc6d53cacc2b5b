"""Items of one image made into one: tables often have a row for each caption of an image."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clic.data.packing.items import Item, dump, key_of, load
from clic.io.files import replacing

JOINED = ("negatives", "neighbours")
"""Lists in an item's further entries that are joined; of all else the first item's stays."""


class Groups:
    """Finds the items of a source that are of one image, in 24 bytes an item."""

    def __init__(self) -> None:
        self._starts, self._marks = array("Q"), array("Q")
        self._neighbours = False

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, item: Item, start: int) -> None:
        """Add the next item, whose line begins at byte `start`."""
        self._marks.extend(_marks(item, len(self)))
        self._starts.append(start)
        self._neighbours = self._neighbours or "neighbours" in item.extra

    def join(self, path: Path) -> None:
        """Write the file of the items anew, a line for each image, in the order of the first ones.

        The captions of an image follow each other, each once. Neighbours, which are named by their
        keys in the source, get the keys of the images they have become.
        """
        groups = self._find()
        if len(groups) == len(self) and not self._neighbours:
            return
        with replacing(path) as new, open(path, "rb") as file, open(new, "wb") as out:
            keys = dict(self._keys(file, groups)) if self._neighbours else {}
            for group in groups:
                items = [self._read(file, number) for number in group]
                out.write(dump(_joined(items, keys)))
            out.flush()
            os.fsync(out.fileno())

    def _find(self) -> list[list[int]]:
        """Return the numbers of each image's items."""
        marks = np.frombuffer(self._marks, np.uint64).reshape(-1, 2)
        order = np.lexsort(marks.T)  # stable: an image's items stay in the order of the source
        differs = (marks[order][1:] != marks[order][:-1]).any(axis=1)
        groups = [part.tolist() for part in np.split(order, np.flatnonzero(differs) + 1)]
        return sorted(group for group in groups if group)

    def _read(self, file: Any, number: int) -> Item:
        file.seek(self._starts[number])
        return load(file.readline())

    def _keys(self, file: Any, groups: Iterable[list[int]]) -> Iterator[tuple[str, str]]:
        for position, group in enumerate(groups):
            for number in group:
                yield self._read(file, number).key or key_of(number), key_of(position)


def _marks(item: Item, number: int) -> tuple[int, int]:
    """Return two numbers that the items of one image, and only those, have in common."""
    if item.same:
        name = f"same {item.same}"
    elif item.place and item.place[0] == "file":
        name = f"file {os.path.normpath(item.place[1])}"
    else:
        name = ""
    if not name or not _is_unicode(item.captions):  # which would cost the others their place
        return number, 0  # no digest has it, but for one chance in 2 ** 64
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _is_unicode(captions: Iterable[str]) -> bool:
    try:
        return "".join(captions).encode() is not None
    except UnicodeEncodeError:
        return False


def _joined(items: list[Item], keys: dict[str, str]) -> Item:
    first = items[0]
    captions = dict.fromkeys(caption for item in items for caption in item.captions)
    extra = dict(first.extra)
    for name in JOINED:
        found = [entry for item in items for entry in item.extra.get(name, ())]
        if name == "neighbours":
            found = [keys[entry] for entry in found if entry in keys]
        if name in extra or found:
            extra[name] = list(dict.fromkeys(found))
    return replace(
        first, captions=tuple(captions) if len(items) > 1 else first.captions, extra=extra
    )
