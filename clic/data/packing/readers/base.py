"""What every format's reader has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from clic.data.packing.items import Item, texts
from clic.errors import ConfigError, DataError, did_you_mean

# What images are called in the wild, their files and columns, the surest names first.
IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic"}
    | {".jp2", ".ppm"}
)
IMAGE_COLUMNS = (
    *("filepath", "file_path", "image_path", "img_path", "image_file", "image_filename"),
    *("file_name", "filename", "image", "img", "picture", "photo", "path", "file"),
    *("jpg", "jpeg", "png", "webp", "bytes"),
)
CAPTION_COLUMNS = (
    *("captions", "caption", "sentences", "title", "text", "description", "txt", "sentence"),
    *("raw_caption", "dense_caption", "long_caption", "alt_text", "alt", "raw"),
)


@dataclass(frozen=True)
class Request:
    """What the user said about a source; None where nothing was said.

    Attributes:
        image_root: Folder that relative image paths start from.
        image_column: Column with the image's path or bytes.
        caption_column: Columns with captions, in the order they are to be stored.
        separator: Between the columns of a text table.
        split: Splits of the source to take, separated by commas.
    """

    image_root: Path | None = None
    image_column: str | None = None
    caption_column: tuple[str, ...] | None = None
    separator: str | None = None
    split: str | None = None


class Reader(ABC):
    """Reads the items of a source, in an order that never changes.

    Args:
        source: What the user named.
        request: What the user said about it.

    Raises:
        ConfigError: An option has no effect on this format.
        DataError: The source is not of this format.
    """

    NAME: ClassVar[str]
    TAKES: ClassVar[tuple[str, ...]] = ()
    """The fields of `Request` that have an effect."""

    def __init__(self, source: str, request: Request) -> None:
        for option in (f.name for f in fields(request)):
            if getattr(request, option) is not None and option not in self.TAKES:
                raise ConfigError(
                    f"--{option.replace('_', '-')} has no effect on {source} ({self.NAME}); "
                    "leave it out"
                )
        self.source, self.request = source, request
        self.found: list[str] = []
        """What was detected or guessed, a line each."""
        self.open()

    @abstractmethod
    def open(self) -> None:
        """Look at the source and fill `found`."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield the items; a broken one as a rejected item."""

    def files(self) -> list[Path]:
        """Return the files that must stay as they are until the packing is done."""
        return [Path(self.source)]

    def root(self) -> Path:
        """Return the folder that relative image paths start from."""
        root = self.request.image_root or Path(self.source).parent
        if not root.is_dir():
            raise DataError(f"--image-root {root}: there is no such folder")
        return root.absolute()


def choose_columns(
    request: Request, names: Sequence[str], where: str
) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the image column, the caption columns and lines that say how they were found.

    Args:
        request: Names columns, or leaves them to be guessed.
        names: The columns there are.
        where: Of what, for messages.

    Raises:
        ConfigError: A named column is not there.
        DataError: Nothing can be guessed.
    """
    image = _named(request.image_column, names, "--image-column") or _guess(
        names, IMAGE_COLUMNS, where, "--image-column"
    )
    captions = tuple(
        _named(name, names, "--caption-column") or "" for name in request.caption_column or ()
    ) or (_guess(names, CAPTION_COLUMNS, where, "--caption-column"),)
    lines = [
        f"image column {image!r}{'' if request.image_column else ' (guessed)'}, caption "
        f"{'column' if len(captions) == 1 else 'columns'} {', '.join(map(repr, captions))}"
        f"{'' if request.caption_column else ' (guessed)'}"
    ]
    rest = [repr(name) for name in names if name and name != image and name not in captions]
    if rest:
        shown = ", ".join(rest[:6]) + (f" and {len(rest) - 6} more" if len(rest) > 6 else "")
        lines.append(f"columns left out: {shown}")
    return image, captions, lines


def _named(name: str | None, names: Sequence[str], flag: str) -> str | None:
    if name is not None and name not in names:
        raise ConfigError(
            f"{flag} {name}: there is no such column{did_you_mean(name, names)} "
            f"(columns: {', '.join(names)})"
        )
    return name


def _guess(names: Sequence[str], known: Sequence[str], where: str, flag: str) -> str:
    lower = {name.strip().lower(): name for name in reversed(names)}
    for name in known:
        if name in lower:
            return lower[name]
    raise DataError(
        f"{where}: no column could be guessed; name it with {flag} (columns: {', '.join(names)})"
    )


def known_columns(names: Iterable[str]) -> int:
    """Return how many of the names mean an image or a caption."""
    return len({n.strip().lower() for n in names} & {*IMAGE_COLUMNS, *CAPTION_COLUMNS})


def captions_of(record: Any) -> tuple[str, ...]:
    """Return the captions in a sample's JSON: a list, or an object with a caption key."""
    if not isinstance(record, Mapping):
        return texts(record)
    for name in CAPTION_COLUMNS:
        if found := texts(record.get(name)):
            return found
    return ()
