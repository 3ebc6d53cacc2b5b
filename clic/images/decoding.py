"""Encoded images to pixels as they are meant to be seen."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import simplejpeg
from PIL import Image

from clic.errors import DataError, pick
from clic.images.resizing import METHODS

MAX_PIXELS = 178_956_970  # where PIL itself sees a decompression bomb

_EXIF_ORIENTATION = 0x0112
_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What PIL's readers raise on broken files, beside OSError.
_BROKEN: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


def decode(
    data: bytes | np.ndarray, method: str = "exact", least: tuple[int, int] | None = None
) -> np.ndarray:
    """Return an image's pixels as they are meant to be seen.

    EXIF rotation is applied, transparency laid over white, every mode (16 bits, CMYK, palette)
    made 8-bit RGB, and of an animation the first frame is taken.

    Args:
        data: An encoded image (JPEG, PNG, WebP, ...), or uint8 [H, W, 3] RGB, returned as it is.
        method: ``"exact"`` decodes with PIL; ``"fast"`` whole RGB and grey JPEGs with libjpeg-turbo
            directly and everything else with PIL; ``"scaled"`` as that, at the smallest n/8 of the
            size that `least` allows.
        least: Height and width that ``"scaled"`` must leave; None leaves the whole size.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        DataError: The bytes are no image, are broken, or hold more than 178 megapixels.
        ConfigError: `method` is unknown.
    """
    pick(METHODS, method, "data.decode")
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or not data.size:
            raise DataError(
                f"pixels have shape {list(data.shape)} and type {data.dtype}; "
                "give uint8 [H, W, 3] RGB, or the encoded image"
            )
        return data
    image = _open(data)
    orientation = _exif_orientation(image)
    turn = _EXIF_TURNS.get(orientation)
    if method != "exact" and image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        stored = least[::-1] if least and orientation >= 5 else least
        pixels = _decode_jpeg(data, stored if method == "scaled" else None)
        if pixels is not None:
            return pixels if turn is None else _turned(Image.fromarray(pixels), turn)
    try:
        image.load()
        rgb = to_rgb(image)
    except _BROKEN as error:
        raise DataError(
            f"image of {len(data)} bytes ({image.format}) cannot be decoded ({error}); "
            "replace or drop it"
        ) from error
    return np.asarray(rgb) if turn is None else _turned(rgb, turn)


def _decode_jpeg(data: bytes, least: tuple[int, int] | None) -> np.ndarray | None:
    """Return the pixels, or None where the file is not whole: then PIL judges it."""
    height, width = least or (0, 0)
    try:
        return simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except ValueError:
        return None


def _turned(image: Image.Image, turn: Image.Transpose) -> np.ndarray:
    return np.asarray(image.transpose(turn))


def dimensions(data: bytes | np.ndarray) -> tuple[int, int]:
    """Return (width, height) after EXIF rotation from the header; raises `DataError`."""
    if isinstance(data, np.ndarray):
        height, width = decode(data).shape[:2]
        return width, height
    image = _open(data)
    turned = _exif_orientation(image) >= 5
    return (image.height, image.width) if turned else (image.width, image.height)


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DataError(f"image of {len(data)} bytes: {error}; drop or shrink it") from error
    except _BROKEN as error:
        raise DataError(
            f"{len(data)} bytes starting with {bytes(data[:8])!r} are no image that PIL can read; "
            "replace or drop them"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"image of {image.width} x {image.height} pixels is above the limit of "
            f"{MAX_PIXELS} pixels; drop or shrink it"
        )
    return image


def _exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or it is unreadable."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _BROKEN:
        return 1  # like every viewer: broken metadata does not make the pixels worse
    return value if value in _EXIF_TURNS else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB, transparency laid over white; raises ValueError for floats."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits, in any byte order, or a 16-bit PNG of older PILs
        wide = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(wide.clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed white; convert it to 8 or 16 bits")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")
