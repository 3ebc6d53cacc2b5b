"""Items: what a source says of one image, before the image is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clic.errors import DataError

Place = tuple[Any, ...]
"""Where an image lies: a name of `clic.data.packing.fetch.FETCHERS`, and its arguments."""


@dataclass(frozen=True)
class Item:
    """One image of a source with its captions, or why it cannot be one.

    Attributes:
        source: The image as the source gives it (a path, a URL, a key).
        row: Where the source says so, e.g. ``captions.csv:17``; empty where `source` says it.
        place: Where the bytes lie; empty for an item that is rejected already.
        captions: True captions as they were found.
        extra: Further entries of the sample's JSON.
        reason: Why the item is rejected, empty where it is not.
    """

    source: str
    row: str = ""
    place: Place = ()
    captions: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


class RejectedError(Exception):
    """A sample that cannot be packed, for the reason that is the message."""


def key_of(number: int) -> str:
    """Return the key of item `number` of a source: unique, whatever names the source has."""
    return f"{number:09d}"


def dump(item: Item) -> bytes:
    """Return an item as one line; text that is not UTF-8 survives (surrogate escapes)."""
    fields = [item.source, item.row, item.place, item.captions, item.extra, item.reason]
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def load(line: bytes) -> Item:
    """Return the item of a line that `dump` made."""
    source, row, place, captions, extra, reason = json.loads(line)
    return Item(source, row, tuple(place), tuple(captions), extra, reason)


def file_place(name: str, root: Path) -> Place:
    """Return the place of an image that a list names by a path.

    Args:
        name: The path, as the list gives it. An absolute one may lead anywhere, since users write
            such lists; what comes in an archive with its images is never read by its name.
        root: Folder that relative paths start from, and must stay in.

    Raises:
        RejectedError: The path is none, or leads where it may not.
    """
    if not name.strip() or "\0" in name:
        raise RejectedError("no image is named")
    if "://" in name[:12]:
        raise RejectedError("the image is a URL; download it first, e.g. with img2dataset")
    path = Path(name)
    if path.is_absolute() and ".." not in path.parts:
        return ("file", str(path))
    if path.is_absolute() or not stays_inside(name):
        raise RejectedError(f"the path leads out of {root}; write it relative to --image-root")
    return ("file", str(root / path))


def stays_inside(name: str) -> bool:
    """Return whether a path is relative and does not climb above where it starts."""
    depth = 0
    for part in Path(name).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return not Path(name).is_absolute()


def texts(value: Any) -> tuple[str, ...]:
    """Return the captions in a JSON value or a cell: a string, or a list of strings."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return tuple(v for v in values if isinstance(v, str) and v.strip())


def parse_json(data: bytes, name: str) -> Any:
    """Return the value of a small JSON text; raises `RejectedError`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RejectedError(f"{name} is no valid JSON ({error})") from error


def load_json(path: Path) -> Any:
    """Return the value of a whole JSON file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); fetch or write it again") from error
