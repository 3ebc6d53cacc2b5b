"""Items: what a source says about one image, before the image is opened.

Tables often have one row per caption, so `Groups` joins the items that show the same image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clic.data.shards.records import detect_encoding
from clic.errors import DataError
from clic.io.files import replacing

Place = tuple[Any, ...]
"""Where to read an image: a name of `clic.data.packing.image_bytes.FETCHERS` and its arguments."""
# How pandas, databases and spreadsheets write missing text.
MISSING = frozenset({"nan", "none", "null", "nil", "na", "n/a", "#n/a", "<na>", "nat", "undefined"})
JOINED = ("negatives", "neighbours")
"""Further entries whose lists are joined; of all others, the first item's are kept."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True)
class Item:
    """One image of a source with its captions, or the reason why it is rejected."""

    source: str  # the image's name in the source (a path, a URL, a key)
    row: str = ""  # row of the source, e.g. captions.csv:17; empty if `source` suffices
    place: Place = ()  # where to read the image; empty for an item that is already rejected
    captions: tuple[str, ...] = ()  # true captions, as in the source
    extra: Mapping[str, Any] = field(default_factory=dict)  # further entries of the sample's JSON
    reason: str = ""  # why the item is rejected; empty if it is not
    # The key by which other items name this one as a neighbour; empty if it is `key_of` its number.
    key: str = ""
    same: str = ""  # identifies the image across items; empty if only its path does


class RejectedError(Exception):
    """A sample cannot be packed; the message is the reason."""


def key_of(number: int) -> str:
    """Return the key of item `number` of a source, unique whatever names the source has."""
    return f"{number:09d}"


def dump(item: Item) -> bytes:
    """Return an item as one line, without `same`; text that is not UTF-8 is kept as escapes."""
    fields = [item.source, item.row, item.place, item.captions, item.extra, item.reason, item.key]
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def load(line: bytes) -> Item:
    """Return the item of a line that `dump` wrote."""
    source, row, place, captions, extra, reason, *key = json.loads(line)
    return Item(source, row, tuple(place), tuple(captions), extra, reason, *key)


class Groups:
    """Finds the items of a source that show the same image, using 24 bytes per item."""

    def __init__(self) -> None:
        self._starts, self._digests = array("Q"), array("Q")
        self._neighbours = False

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, item: Item, start: int) -> None:
        """Add the next item, whose line begins at byte `start`."""
        self._digests.extend(_image_digest(item, len(self)))
        self._starts.append(start)
        self._neighbours = self._neighbours or "neighbours" in item.extra

    def join(self, path: Path) -> list[Item]:
        """Rewrite the file of items with one line per image, in the order of first occurrence.

        An image's captions are concatenated without duplicates. Neighbours, which the source
        names by its own keys, get the keys of the joined images.

        Returns:
            The items that add nothing to their image, because they have no caption.
        """
        digests = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        order = np.lexsort(digests.T)  # stable: an image's items stay in the order of the source
        differs = (digests[order][1:] != digests[order][:-1]).any(axis=1)
        groups = sorted(
            part.tolist() for part in np.split(order, np.flatnonzero(differs) + 1) if part.size
        )
        empty: list[Item] = []
        if len(groups) == len(self) and not self._neighbours:
            return empty
        with replacing(path) as new, open(path, "rb") as file, open(new, "wb") as out:
            keys = {
                self._read(file, number).key or key_of(number): key_of(position)
                for position, group in enumerate(groups if self._neighbours else ())
                for number in group
            }
            for group in groups:
                items = [self._read(file, number) for number in group]
                # If none of them adds anything, the first one represents the image.
                nothing = not any(map(_adds, items))
                empty += [item for item in items[nothing:] if not _adds(item)]
                out.write(dump(_joined(items, keys)))
            out.flush()
            os.fsync(out.fileno())
        return empty

    def _read(self, file: BinaryIO, number: int) -> Item:
        file.seek(self._starts[number])
        return load(file.readline())


def _image_digest(item: Item, number: int) -> tuple[int, int]:
    """Return two numbers that are equal for all items of one image, and only for those."""
    name = f"same {item.same}" if item.same else ""
    if not name and item.place[:1] == ("file",):
        name = f"file {os.path.normpath(item.place[1])}"
    # A caption that is not Unicode rejects its item, but must not reject the image's other ones.
    if not name or _SURROGATE.search("".join(item.captions)):
        return number, 0  # equals a digest with a probability of 2 ** -64
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _adds(item: Item) -> bool:
    """Return whether an item has a caption, or entries of `JOINED`."""
    return any(map(str.strip, item.captions)) or any(item.extra.get(name) for name in JOINED)


def _joined(items: list[Item], keys: dict[str, str]) -> Item:
    """Join the items of one image; `keys` maps the old keys of neighbours to the new ones."""
    first = items[0]
    captions = dict.fromkeys(caption for item in items for caption in item.captions)
    extra = dict(first.extra)
    for name in JOINED:
        found = [entry for item in items for entry in item.extra.get(name, ())]
        if name == "neighbours":
            found = [keys[entry] for entry in found if entry in keys]
        if name in extra or found:
            extra[name] = list(dict.fromkeys(found))
    joined = tuple(captions) if len(items) > 1 else first.captions
    return replace(first, captions=joined, extra=extra)


def file_place(name: str, root: Path) -> Place:
    """Return the place of an image that a list names by its path; raises `RejectedError`.

    Relative paths start from `root` and must stay in it. An absolute one may lead anywhere, since
    users write such lists themselves; names inside archives are never used as paths.
    """
    if not name.strip() or "\0" in name:
        raise RejectedError("no image is named")
    if "://" in name[:12]:
        raise RejectedError("the image is a URL; download it first, e.g. with img2dataset")
    # A backslash may be part of a file's name on this system, so a file of exactly that name wins.
    drive = _WINDOWS.match(name)
    if ("\\" in name or drive) and not os.path.exists(root / name):
        if drive:
            remedy = "write it relative to --image-root"
            raise RejectedError(f"it is a Windows path with a drive or a server; {remedy}")
        name = name.replace("\\", "/")
    path = Path(name)
    if path.is_absolute() and ".." not in path.parts:
        return ("file", str(path))
    if not stays_inside(name):
        raise RejectedError(f"the path leads out of {root}; write it relative to --image-root")
    return ("file", str(root / path))


def stays_inside(name: str) -> bool:
    """Return whether a path is relative and does not climb above where it starts."""
    path = Path(os.path.normpath(name))
    return not path.is_absolute() and ".." not in path.parts


def texts(value: Any) -> tuple[str, ...]:
    """Return the captions in a JSON value or a cell: a string, or a list of strings.

    Empty texts, and placeholders for missing ones such as pandas' "nan", are not captions.
    """
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    found = (text for text in values if isinstance(text, str))
    return tuple(text for text in found if text.strip() and text.strip().lower() not in MISSING)


def decode_text(data: bytes, given: str | None = None) -> str:
    """Return a small text; bytes that are invalid in its encoding become surrogates or marks."""
    encoding, mark = detect_encoding(data, given)
    return data[mark:].decode(encoding, decode_errors(encoding))


def decode_errors(encoding: str) -> str:
    """Return how `bytes.decode` should treat bytes that are invalid in an encoding."""
    return "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"


def parse_json(data: bytes, name: str) -> Any:
    """Return the value of a small JSON text; raises `RejectedError`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RejectedError(f"{name} is not valid JSON ({error})") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise `DataError` if the block cannot read a source's file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error


def load_json(path: Path) -> Any:
    """Return the value of a whole JSON file; raises `DataError`."""
    with reading(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); fetch or write it again") from error
