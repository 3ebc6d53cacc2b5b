"""Decoding images to upright 8-bit RGB, and resizing them with PIL or with torch."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image, TiffImagePlugin

from clic.errors import Choices, DataError

MAX_PIXELS = 178_956_970  # PIL's own limit for a decompression bomb

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""The formats that are read, by PIL's names. PIL's other readers never see untrusted bytes: the one
for EPS starts Ghostscript. JPEG includes MPO, and AVIF needs a Pillow that supports it."""

_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
# Markers of a JPEG, without their first byte, 0xFF.
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all with Huffman codes
_SCAN, _PROFILE = 0xDA, 0xE2
_PLAIN = (0xC4, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE)  # tables, restarts, JFIF, Adobe's and comments
_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    data: bytes | np.ndarray, method: str = "exact", least: tuple[int, int] | None = None
) -> np.ndarray:
    """Return an image's pixels, upright and in 8-bit RGB.

    EXIF rotation is applied, transparent pixels are blended with white, and every mode (16 bits,
    CMYK, palette) is converted to RGB. Only the first frame of an animation is read.

    Args:
        data: An encoded image (JPEG, PNG, WebP, ...), or uint8 [H, W, 3] RGB, returned unchanged.
        method: ``"exact"`` decodes with PIL. ``"fast"`` decodes intact RGB and grey JPEGs with
            libjpeg-turbo and everything else with PIL. ``"scaled"`` does the same, but decodes
            JPEGs at the smallest n/8 of their size that `least` allows.
        least: Smallest height and width that ``"scaled"`` may return; None is the full size.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        DataError: The bytes are not an image, are broken, or have more than 178 megapixels.
        ConfigError: `method` is unknown.
    """
    METHODS[method]  # raises if the name is unknown
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or not data.size:
            raise DataError(
                f"pixels have shape {list(data.shape)} and type {data.dtype}; "
                "give uint8 [H, W, 3] RGB, or the encoded image"
            )
        return data
    if method != "exact" and _is_plain_jpeg(data):
        pixels = _decode_jpeg(data, least if method == "scaled" else None)
        if pixels is not None:
            return pixels
    image = open_image(data)
    try:
        return _pixels(image, data, method, least)
    except Exception as error:  # decoders raise anything, RuntimeError included
        raise DataError(
            f"image of {len(data)} bytes ({image.format}) cannot be decoded "
            f"({str(error) or type(error).__name__}); replace or drop it"
        ) from error


def _pixels(
    image: Image.Image, data: bytes, method: str, least: tuple[int, int] | None
) -> np.ndarray:
    if method != "exact" and image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        orientation = _exif_orientation(image)
        stored = least[::-1] if least and orientation >= 5 else least
        pixels = _decode_jpeg(data, stored if method == "scaled" else None)
        if pixels is not None:
            return _turned(Image.fromarray(pixels), orientation) if orientation > 1 else pixels
    image.load()
    # Read the orientation only now: PIL rotates a TIFF while loading it, and then drops the tag.
    return _turned(to_rgb(image), _exif_orientation(image))


def _is_plain_jpeg(data: bytes) -> bool:
    """Return whether a JPEG's header needs no parsing by PIL: no EXIF, XMP or second image.

    Such an image, 8-bit RGB or grey and within PIL's limit, is decoded without PIL, whose parsing
    takes a tenth as long as decoding. Anything unusual up to the first scan is left to PIL.
    """
    place, known = 2, data.startswith(b"\xff\xd8\xff")
    colours = pixels = 0
    while known and place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if marker in _FRAMES:
            height = data[place + 5] << 8 | data[place + 6]
            width = data[place + 7] << 8 | data[place + 8]
            pixels, colours = height * width, data[place + 9]
            known = data[place + 4] == 8
        elif marker == _SCAN:
            return colours in (1, 3) and 0 < pixels <= MAX_PIXELS // 2
        elif marker == _PROFILE:
            known = data.startswith(b"ICC_PROFILE\0", place + 4)
        else:
            known = marker in _PLAIN
        place += 2 + length
    return False


def _decode_jpeg(data: bytes, least: tuple[int, int] | None) -> np.ndarray | None:
    """Return the pixels, or None if the file is damaged, so that PIL has to decide."""
    height, width = least or (0, 0)
    try:
        return simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except Exception:  # noqa: BLE001, as in `decode`
        return None


def _turned(image: Image.Image, orientation: int) -> np.ndarray:
    turn = _EXIF_TURNS.get(orientation)
    return np.asarray(image if turn is None else image.transpose(turn))


def dimensions(data: bytes | np.ndarray) -> tuple[int, int]:
    """Return (width, height) after EXIF rotation from the header; raises `DataError`."""
    if isinstance(data, np.ndarray):
        height, width = decode(data).shape[:2]
        return width, height
    image = open_image(data)
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # newer PILs give the rotated size here
        width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
    return (height, width) if _exif_orientation(image) >= 5 else (width, height)


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image and read its header only; nothing else in the package opens images.

    Raises:
        DataError: The bytes are not an image in `FORMATS`, or it has more than 178 megapixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise DataError(f"image of {len(data)} bytes: {error}; drop or shrink it") from error
    except Exception as error:  # as in `decode`
        if kind := _other_format(data):
            raise DataError(
                f"{len(data)} bytes start as an image of type {kind}, which is not read; convert "
                "it to JPEG, PNG or WebP"
            ) from error
        raise DataError(
            f"{len(data)} bytes starting with {bytes(data[:8])!r} are not an image that PIL can "
            f"read as {', '.join(FORMATS)}; convert, replace or drop them"
        ) from error
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise DataError(
            f"image of {image.width} x {image.height} pixels is empty or above the limit of "
            f"{MAX_PIXELS} pixels; drop or shrink it"
        )
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Return the `FORMATS` that this PIL can read; it fails on unknown names."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _other_format(data: bytes) -> str:
    """Return PIL's name for an image outside `FORMATS`, judged by its first bytes."""
    for name, (_, accepts) in Image.OPEN.items():
        if name not in FORMATS and accepts and len(data) >= 16 and accepts(data[:16]) is True:
            return name
    return ""


def _exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if it is missing or unreadable."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
        return value if value in _EXIF_TURNS else 1
    except Exception:  # noqa: BLE001, as in `decode`
        return 1  # as every viewer does: broken metadata leaves the pixels intact


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB over a white background; raises ValueError for floats."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits, in any byte order, or a 16-bit PNG of older PILs
        deep = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(deep.clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed white; convert it to 8 or 16 bits")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")


Resize = Callable[[np.ndarray, int, int, str], np.ndarray]

INTERPOLATIONS: Choices[Image.Resampling] = Choices(
    "preprocess.interpolation",
    {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR},
)


def _resize_pil(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    filter_ = INTERPOLATIONS[interpolation]
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), filter_))


def _resize_torch(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resize in integer arithmetic as PIL does, vectorised, with the same bits on every processor.

    For a 640 x 480 photograph the result differs from PIL's by at most 1/255; where an image is
    enlarged or hardly shrunk, one value in a million differs by 2/255.
    """
    mode = INTERPOLATIONS[interpolation].name.lower()
    if image.shape[:2] == (height, width):
        return image
    if not (image.flags.writeable and image.flags.c_contiguous):  # torch warns or fails
        image = image.copy()
    # A view that torch recognises as channels-last, which makes its resize up to twice as fast.
    # torch also looks at the stride of the batch, which image[None] would leave at 0. numpy makes
    # the views at a tenth of the cost of torch.
    source = torch.from_numpy(image.reshape(1, *image.shape).transpose(0, 3, 1, 2))
    result = F.interpolate(source, (height, width), mode=mode, antialias=True)
    return result.numpy()[0].transpose(1, 2, 0)


# `exact` uses PIL throughout, `fast` libjpeg-turbo and torch; `scaled` also lets the JPEG decoder
# shrink the image, but to no less than the size needed.
METHODS: Choices[Resize] = Choices(
    "data.decode", {"exact": _resize_pil, "fast": _resize_torch, "scaled": _resize_torch}
)
