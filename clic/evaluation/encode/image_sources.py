"""The images of benchmarks, which are opened only when they are encoded."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from clic.errors import ConfigError, DataError

GROUPS_AT_HAND = 4
"""Row groups of a column kept in memory: a few are enough, as images are read in row order."""
_reading = threading.Lock()
"""Held while a row group is read, so that no two threads read the same one."""


@dataclass(frozen=True)
class Crop:
    """A part of an image file.

    Attributes:
        path: The file.
        box: Left, top, right and bottom in pixels; pixels outside the image are black.
    """

    path: Path
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class StoredImage:
    """An image in a parquet file of the Hugging Face hub, as ``{"bytes": ..., "path": ...}``.

    Attributes:
        path: The file.
        group: The row group.
        row: The row's number within the group.
        column: The column.
    """

    path: Path
    group: int
    row: int
    column: str


@dataclass(frozen=True)
class TarImage:
    """An image in a plain tar.

    Attributes:
        path: The tar.
        name: The member's name.
        offset: Position of its first byte.
        size: Number of bytes.
    """

    path: Path
    name: str
    offset: int
    size: int


ImageSource = Path | Crop | StoredImage | TarImage | np.ndarray
"""An image: a file, a part of one, a parquet cell, a tar's member, or pixels, uint8 [H, W, 3]."""


def image_path(image: ImageSource) -> Path | None:
    """Return the file that an image is read from, None for pixels."""
    if isinstance(image, Crop | StoredImage | TarImage):
        return image.path
    return image if isinstance(image, Path) else None


def image_part(image: ImageSource) -> str:
    """Return which part of its file an image is; empty for a whole file and for pixels."""
    if isinstance(image, Crop):
        return ",".join(map(str, image.box))
    if isinstance(image, StoredImage):
        return f"{image.column}/{image.group}/{image.row}"
    return image.name if isinstance(image, TarImage) else ""


def image_key(image: ImageSource) -> Hashable:
    """Return the identity of an image: its file and part, or the hash of its pixels."""
    if isinstance(image, np.ndarray):
        return (image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest())
    part = image_part(image)
    return (str(image_path(image)), part) if part else str(image)


def image_name(image: ImageSource, index: int) -> str:
    """Return a short name for listings: the file's name, or the number of a generated image."""
    path, part = image_path(image), image_part(image)
    if path is None:
        return f"image-{index:05d}"
    return f"{path.name}[{part}]" if part else path.name


def image_names(images: Sequence[ImageSource]) -> list[str]:
    """Return a short name of each image: that of its file, after as many folders as it needs.

    Caltech-101, for example, has an `image_0001.jpg` in every class's folder.
    """
    names = [image_name(image, index) for index, image in enumerate(images)]
    paths = [image_path(image) for image in images]
    above = [() if path is None else path.parent.relative_to(path.anchor).parts for path in paths]
    for depth in count(1):
        shared = Counter(names)
        longer = [n for n, name in enumerate(names) if shared[name] > 1 and depth <= len(above[n])]
        for n in longer:
            names[n] = "/".join((*above[n][-depth:], image_name(images[n], n)))
        if not longer:
            break
    return names


def image_pixels(image: ImageSource) -> np.ndarray:
    """Return an image's pixels, uint8 [H, W, 3] RGB, decoded as in training.

    Raises:
        DataError: The file is not an image, or it is broken.
        OSError: The file cannot be read.
    """
    from clic import images

    if isinstance(image, StoredImage):
        return images.decode(_stored_bytes(image))
    if isinstance(image, TarImage):
        with image.path.open("rb") as file:
            file.seek(image.offset)
            return images.decode(file.read(image.size))
    if isinstance(image, Crop):
        whole = Image.fromarray(images.decode(image.path.read_bytes()))
        return np.asarray(whole.crop(image.box))
    if isinstance(image, Path) and image.suffix == ".npy":
        return _array_pixels(image)
    return images.decode(image.read_bytes() if isinstance(image, Path) else image)


def _array_pixels(path: Path) -> np.ndarray:
    """Return a frame that is stored as a NumPy array, uint8 [H, W, 3] in BGR (EqBen)."""
    try:
        pixels = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no NumPy array ({error}); download it again") from error
    if not isinstance(pixels, np.ndarray):  # an archive of several arrays (.npz)
        raise DataError(f"{path} is no NumPy array, but an archive; download it again")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"{path} is {pixels.dtype} {list(pixels.shape)}, no image; get it again")
    return np.ascontiguousarray(pixels[:, :, ::-1])


def image_file(folder: Path, name: str, source: Path) -> Path:
    """Return the file that an annotation names, which must lie in `folder`.

    Raises:
        DataError: `name` is empty, absolute or leads out of the folder.
    """
    parts = PurePath(name).parts
    if not parts or ".." in parts or PurePath(name).is_absolute():
        raise DataError(f"{source}: {name!r} is no image in {folder}; download the file again")
    return folder / name


def _stored_bytes(image: StoredImage) -> bytes:
    with _reading:
        values = _stored_images(image.path, image.group, image.column)
    content = values[image.row] if image.row < len(values) else None
    if not content:
        raise DataError(f"{image.path}: row {image.row} of group {image.group} holds no image")
    return content


@lru_cache(maxsize=GROUPS_AT_HAND)
def _stored_images(path: Path, group: int, column: str) -> list[bytes | None]:
    cells = [values[column] for values in read_row_group(path, group, (column,))]
    return [cell.get("bytes") if isinstance(cell, dict) else None for cell in cells]


def read_row_group(path: Path, group: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of a row group of a parquet file, with only these columns.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: The file cannot be read.
    """
    try:
        return open_parquet(path).read_row_group(group, columns=list(columns)).to_pylist()
    except (OSError, ValueError, _arrow().ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error


def open_parquet(path: Path) -> Any:
    """Return an open `pyarrow.parquet.ParquetFile`; raises as `read_row_group` does."""
    arrow = _arrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{path} is no parquet file ({error}); download it again") from error


def _arrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(
            "parquet files need pyarrow; install it with: pip install pyarrow"
        ) from error
    return pyarrow
