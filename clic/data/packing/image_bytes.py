"""Reads images from wherever a source keeps them, and encodes them for storage."""

from __future__ import annotations

import base64
import importlib
import io
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from clic import images
from clic.data.packing.items import Place, RejectedError, file_place
from clic.errors import DataError, pick

MAX_BYTES = 512 << 20  # larger files are not images, and would need too much memory
BATCH = 32  # images of a parquet file in memory at once
BUFFER = 1 << 22  # bytes of a parquet file read at a time; without this, whole row groups are read
_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the URL-safe alphabet of base64
# PIL calls a JPEG MPO if a second picture follows it, as in some cameras' files.
ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif",
           "BMP": "bmp", "TIFF": "tif"}  # fmt: skip
"""File endings of the image types that shards may contain, by PIL's name."""
JPEG_SIDE = 65_500  # pixels; libjpeg's limit


def fetch(place: Place) -> bytes:
    """Return the encoded image at a place; raises `RejectedError`."""
    return pick(FETCHERS, place[0], "place")(*place[1:])


def _file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise RejectedError(f"{path} is larger than {MAX_BYTES >> 20} MB")
            return file.read()
    except OSError as error:
        raise RejectedError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not a possible file name
        raise RejectedError(f"{path!r} is not a path") from error


def _slice(path: str, offset: int, length: int) -> bytes:
    """Read a member of a tar."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(min(length, MAX_BYTES))
    except OSError as error:
        raise RejectedError(f"{path}: {error.strerror}") from error
    if len(data) != length:
        raise RejectedError(f"{path} ends in the middle of the image, or it is too large")
    return data


def _base64(path: str, offset: int, length: int) -> bytes:
    """Read an image in base64, of either alphabet, with or without padding."""
    text = _slice(path, offset, length).rpartition(b",")[2].translate(_STANDARD).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise RejectedError(f"the base64 of its image is broken ({error})") from error


def _parquet(path: str, column: str, group: int, row: int, root: str) -> bytes:
    value = _value_at(path, column, group, row)
    if isinstance(value, dict) and not value.get("bytes") and isinstance(value.get("path"), str):
        return fetch(file_place(value["path"], Path(root)))
    return _bytes_in(value)


def _value_at(path: str, column: str, group: int, row: int) -> Any:
    """Return a value of a row group; rows are usually read in ascending order."""
    for _ in range(2):
        for number, value in _open_column(path, column, group):
            if number == row:
                return value
        release()  # the row may precede the last one that was read
    raise RejectedError(f"the parquet file no longer has row {row} in this group")


@lru_cache(maxsize=1)
def _open_column(path: str, column: str, group: int) -> Iterator[tuple[int, Any]]:
    """Yield a column's values, a few in memory at a time, since a row group may not fit."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    numbers = count()
    try:
        with ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column]):
                for value in batch.column(0):
                    yield next(numbers), value.as_py()
    except (OSError, pyarrow.ArrowException) as error:
        raise RejectedError(f"{path} cannot be read: {error}") from error


def _dataset(name: str, split: str | None, column: str, index: int) -> bytes:
    return _bytes_in(_open_dataset(name, split, column)[index][column])


@lru_cache(maxsize=1)
def _open_dataset(name: str, split: str | None, column: str) -> Any:
    import datasets

    from clic.data.packing.readers.columnar import open_dataset

    data = open_dataset(name, split).select_columns([column])
    if isinstance(data.features[column], datasets.Image):
        data = data.cast_column(column, datasets.Image(decode=False))
    return data


def _bytes_in(value: Any) -> bytes:
    """Return the image in a cell that contains bytes or Hugging Face's {bytes, path}."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, bytes) and data:
        return data
    if isinstance(value, dict) and value.get("path"):
        raise RejectedError(
            "the cell names a file and holds no image; datasets' save_to_disk puts the images in"
        )
    raise RejectedError("the cell holds no image")


def release() -> None:
    """Close the parquet file that was read last."""
    _open_column.cache_clear()


FETCHERS: dict[str, Callable[..., bytes]] = {
    "file": _file,
    "slice": _slice,
    "base64": _base64,
    "parquet": _parquet,
    "dataset": _dataset,
}


def need(module: str) -> Any:
    """Return an optional library; raises `DataError` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise DataError(
            f"this source needs {name}, which is not installed; run: pip install {name}"
        ) from error


def kind_of(data: bytes) -> str:
    """Return PIL's name of an image's type, or '' if the bytes are not an image."""
    try:
        return images.open_image(data).format or ""
    except DataError:
        return ""


def encode(
    data: bytes, resize_short: int | None, quality: int | None
) -> tuple[str, bytes, int, int]:
    """Return the file ending, bytes, width and height with which an image is stored.

    Every image is decoded to its last pixel, so that broken ones are found here and not in a run.
    An upright RGB JPEG that is small enough keeps its bytes, since encoding it again would lose
    detail.

    Args:
        data: The encoded image.
        resize_short: Shorter side in pixels to which a larger image is shrunk with PIL's bicubic
            filter. None keeps the bytes as they are.
        quality: JPEG quality. None keeps the bytes as they are.

    Raises:
        RejectedError: The bytes are not an image, or it is broken or of a type not in `ENDINGS`.
    """
    try:
        width, height = images.dimensions(data)
        pixels = images.decode(data)
    except DataError as error:
        raise RejectedError(str(error)) from error
    kind = kind_of(data)
    if resize_short is None or quality is None:
        if kind not in ENDINGS:
            raise RejectedError(f"shards hold no images of type {kind}; leave out --keep-original")
        return ENDINGS[kind], data, width, height
    if min(width, height) <= resize_short and _is_plain_jpeg(data):
        return "jpg", data, width, height
    picture = Image.fromarray(pixels)
    if min(width, height) > resize_short:
        scale = resize_short / min(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if max(picture.size) > JPEG_SIDE:
        raise RejectedError(
            f"no JPEG can be {picture.width} x {picture.height} pixels large; cut the image up, "
            "or use --keep-original"
        )
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return "jpg", buffer.getvalue(), picture.width, picture.height


def _is_plain_jpeg(data: bytes) -> bool:
    image = images.open_image(data)
    try:
        return image.format == "JPEG" and image.mode == "RGB" and not image.getexif()
    except Exception:  # noqa: BLE001, PIL raises anything on broken metadata
        return False
