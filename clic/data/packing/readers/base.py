"""What all readers share: the user's request, columns, captions and walking folders."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from clic.data.packing.items import Item, RejectedError, file_place, texts
from clic.data.shards.tar import IMAGE_TYPES
from clic.errors import ConfigError, DataError, did_you_mean

# Common endings of image files and names of image and caption columns, the most certain first.
IMAGE_ENDINGS = (*IMAGE_TYPES, ".heic", ".jp2", ".ppm")
IMAGE_COLUMNS = (
    *("filepath", "file_path", "image_path", "img_path", "image_file", "image_filename"),
    *("image_name", "file_name", "filename", "image", "img", "picture", "photo", "path", "file"),
    *("jpg", "jpeg", "png", "webp", "bytes"),
)
CAPTION_COLUMNS = (
    *("captions", "caption", "sentences", "title", "text", "description", "txt", "sentence"),
    *("raw_caption", "dense_caption", "long_caption", "alt_text", "alt", "raw"),
    "comment",
)
_NUMBERED = re.compile(r"(.*?)[ _.-]?(\d+)")
_SHOWN = 40  # characters of a name in a message; the name may be a cell with an image
_DEEPEST = 4  # levels of nested lists and objects that are searched for captions


@dataclass(frozen=True)
class Request:
    """What the user specifies about a source; None means that it is detected."""

    image_root: Path | None = None  # folder that relative image paths start from
    image_column: str | None = None  # column with the image's path or bytes
    caption_column: tuple[str, ...] | None = None  # columns with captions, in the order stored
    separator: str | None = None  # character between the columns of a text table
    split: str | None = None  # splits of the source to pack, separated by commas
    no_header: bool | None = None  # a text table's first row is data; columns are then 1, 2, ...
    encoding: str | None = None  # of texts that are neither UTF-8 nor marked as UTF-16


class FormatReader(ABC):
    """Reads the items of a source, always in the same order.

    Args:
        source: The source as the user names it.
        request: What the user specifies about it.

    Attributes:
        found: What was detected or guessed, one line each.

    Raises:
        ConfigError: An option has no effect on this format.
        DataError: The source is not of this format.
    """

    NAME: ClassVar[str]
    TAKES: ClassVar[tuple[str, ...]] = ()
    """The fields of `Request` that have an effect."""

    def __init__(self, source: str, request: Request) -> None:
        for option, value in vars(request).items():
            if value is not None and option not in self.TAKES:
                raise ConfigError(
                    f"--{option.replace('_', '-')} has no effect on {source} ({self.NAME}); "
                    "leave it out"
                )
        self.source, self.request, self.path = source, request, Path(source)
        self.found: list[str] = []
        self.open()

    @abstractmethod
    def open(self) -> None:
        """Inspect the source and fill `found`."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield the items; broken ones as rejected items."""

    def files(self) -> list[Path]:
        """Return the files that must not change until the packing is finished."""
        return [self.path]

    def find_root(self) -> str:
        """Find the folder that relative image paths start from; return a line that names it."""
        root = self.request.image_root or self.default_root()
        if not root.is_dir():
            raise DataError(f"--image-root {root}: there is no such folder")
        self.root = root.absolute()
        return f"images below {self.root}"

    def default_root(self) -> Path:
        """Return the folder that relative image paths start from by default."""
        return self.path.parent

    def listed(
        self, image: str, row: str, captions: Iterable[str], extra: Mapping[str, Any] | None = None
    ) -> Item:
        """Return the item of an image that the source lists by its path."""
        try:
            return Item(image, row, file_place(image, self.root), tuple(captions), extra or {})
        except RejectedError as error:
            return rejected(image, row, str(error))


def rejected(source: str, row: str, reason: str) -> Item:
    """Return an item that cannot be packed; its name is cut, as it may be an image in base64."""
    return Item(shorten(source, 300), row, reason=reason)


def choose_columns(
    request: Request, names: Sequence[str], where: str
) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the image column, the caption columns and lines that describe how they were found.

    Raises:
        ConfigError: A requested column does not exist.
        DataError: A column that was not requested cannot be guessed.
    """
    image, captions = request.image_column, request.caption_column
    _check_names("--image-column", () if image is None else (image,), names)
    _check_names("--caption-column", captions or (), names)
    image = image or _guess(names, IMAGE_COLUMNS, where, "--image-column", {})[0]
    captions = captions or _guess(
        names, CAPTION_COLUMNS, where, "--caption-column", _numbered(names)
    )
    lines = [
        f"image column {image!r}{'' if request.image_column else ' (guessed)'}, caption "
        f"{'column' if len(captions) == 1 else 'columns'} {', '.join(map(repr, captions))}"
        f"{'' if request.caption_column else ' (guessed)'}"
    ]
    rest = [repr(name) for name in names if name and name != image and name not in captions]
    if rest:
        lines.append(f"columns left out: {_listed(rest, 6)}")
    return image, captions, lines


def _check_names(flag: str, wanted: Iterable[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ConfigError(
                f"{flag} {name}: there is no such column{did_you_mean(name, names)} "
                f"(columns: {_listed(map(shorten, names), 20)})"
            )


def _numbered(names: Iterable[str]) -> dict[str, list[str]]:
    """Return columns such as caption_0 and caption_1 by their word, in numerical order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if parts := _NUMBERED.fullmatch(name.strip().lower()):
            found.setdefault(parts[1], []).append((int(parts[2]), name))
    return {word: [name for _, name in sorted(columns)] for word, columns in found.items()}


def _guess(
    names: Sequence[str], known: Sequence[str], where: str, flag: str, more: dict[str, list[str]]
) -> tuple[str, ...]:
    """Return the column with the most certain name, and the numbered ones (`more`) of that name."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    for name in known:
        if found := [*([lower[name]] if name in lower else []), *more.get(name, [])]:
            return tuple(found)
    raise DataError(
        f"{where}: no column could be guessed; name it with {flag} "
        f"(columns: {_listed(map(shorten, names), 20)})"
    )


def _listed(names: Iterable[str], most: int) -> str:
    shown = list(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def shorten(text: str, most: int = _SHOWN) -> str:
    """Return a text, cut for a message; a cell may contain an image in base64."""
    return text if len(text) <= most else f"{text[:most]}..."


def known_columns(names: Iterable[str]) -> int:
    """Return how many of the names are known names of image or caption columns."""
    bare = {name.strip().lower() for name in names}
    bare |= {found[1] for name in bare if (found := _NUMBERED.fullmatch(name))}
    return len(bare & {*IMAGE_COLUMNS, *CAPTION_COLUMNS})


def captions_of(value: Any, depth: int = _DEEPEST) -> tuple[str, ...]:
    """Return the captions in a cell or a sample's JSON, searched `depth` nested levels deep.

    The value is a text, an object with a key of `CAPTION_COLUMNS`, or a list of either.
    """
    if isinstance(value, str) or depth == 0:
        return texts(value) if isinstance(value, str) else ()
    if isinstance(value, Mapping):
        found = (captions_of(value.get(name), depth - 1) for name in CAPTION_COLUMNS)
        return next(filter(None, found), ())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(caption for inner in value for caption in captions_of(inner, depth - 1))
    return ()


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[tuple[str, str]]]]:
    """Yield each folder below a root, its file names, and skipped entries with the reasons.

    Folders are sorted, hidden ones are left out, and links are followed. A link to a folder that is
    walked anyway is skipped, so that there are no loops and no image occurs twice.
    """
    top = os.path.realpath(root)
    seen, todo = {top}, [root]
    while todo:
        folder, names, below, left_out = todo.pop(), list[str](), list[Path](), []
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield folder.parent, [], [(folder.name, f"{error.strerror}")]
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            real = os.path.realpath(entry.path)
            if not os.path.isdir(entry.path):
                names.append(entry.name)
            elif entry.is_symlink() and _leads_back(real, top):
                left_out.append((entry.name, "a link to a folder that is read under its own name"))
            elif real in seen:
                left_out.append((entry.name, "a folder that was already read through a link"))
            else:
                seen.add(real)
                below.append(Path(entry.path))
        yield folder, names, left_out
        todo += reversed(below)


def _leads_back(real: str, top: str) -> bool:
    """Return whether a folder contains the root, or is walked below it."""
    if os.path.commonpath([top, real]) == real:
        return True
    inside = os.path.relpath(real, top).split(os.sep)
    return not any(part.startswith(".") for part in inside)


def files_below(root: Path, endings: str | tuple[str, ...]) -> Iterator[Path]:
    """Yield the files below a folder with one of the lower-case endings, in the order of `walk`."""
    for folder, names, _ in walk(root):
        yield from (folder / name for name in names if name.lower().endswith(endings))
