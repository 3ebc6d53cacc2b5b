"""Pixels: decoding, the evaluation transform, and several images joined on one canvas."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clic.errors import DataError, pick

Orientation = Literal["landscape", "portrait"]
Fit = Literal["squash", "crop"]
Cell = tuple[int, int, int, int]  # top, left, height, width

MAX_PIXELS = 178_956_970  # where PIL itself sees a decompression bomb
INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

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


def decode(data: bytes | np.ndarray) -> np.ndarray:
    """Return an image's pixels as they are meant to be seen.

    EXIF rotation is applied, transparency laid over white, every mode (16 bits, CMYK, palette)
    made 8-bit RGB, and of an animation the first frame is taken.

    Args:
        data: An encoded image (JPEG, PNG, WebP, ...), or uint8 [H, W, 3] RGB, returned as it is.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        DataError: The bytes are no image, are broken, or hold more than 178 megapixels.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or not data.size:
            raise DataError(
                f"pixels have shape {list(data.shape)} and type {data.dtype}; "
                "give uint8 [H, W, 3] RGB, or the encoded image"
            )
        return data
    image = _open(data)
    try:
        turn = _EXIF_TURNS.get(_exif_orientation(image))
        image.load()
        rgb = to_rgb(image)
    except _BROKEN as error:
        raise DataError(
            f"image of {len(data)} bytes ({image.format}) cannot be decoded ({error}); "
            "replace or drop it"
        ) from error
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


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


def orientation(width: int, height: int) -> Orientation:
    """Return ``"landscape"`` where width >= height, else ``"portrait"`` (CLIC's rule)."""
    return "landscape" if width >= height else "portrait"


def _resize(
    image: np.ndarray, height: int, width: int, interpolation: Image.Resampling
) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), interpolation))


def _squash(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return _resize(image, height, width, Image.Resampling.BICUBIC)


def _crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    side = max(height, width)
    square = _resize(image, side, side, Image.Resampling.BICUBIC)
    top, left = (side - height) // 2, (side - width) // 2
    return square[top : top + height, left : left + width]


FITS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {"squash": _squash, "crop": _crop}


def pair_cells(orientation: Orientation, size: int) -> list[Cell]:
    """Return the two halves of the canvas: upper and lower (landscape), left and right."""
    half = size // 2
    halves: dict[str, list[Cell]] = {
        "landscape": [(0, 0, half, size), (half, 0, size - half, size)],
        "portrait": [(0, 0, size, half), (0, half, size, size - half)],
    }
    return pick(halves, orientation, "orientation")


# A layout says where each image goes on a square canvas, for images of one orientation.
LAYOUTS: dict[str, Callable[[Orientation, int], list[Cell]]] = {"pair": pair_cells}


def compose(
    images: Sequence[np.ndarray],
    layout: str,
    orientation: Orientation,
    size: int,
    fit: Fit = "squash",
) -> np.ndarray:
    """Join images on one square canvas, in the order given.

    Args:
        images: One uint8 [H, W, 3] for each cell of the layout.
        layout: A name of `LAYOUTS`.
        orientation: Orientation that all of the images have.
        size: Side S of the canvas in pixels.
        fit: ``"squash"`` resizes to the cell, whatever the aspect (the published rule);
            ``"crop"`` to a square of the cell's longer side, of which it takes the middle.

    Returns:
        uint8 [S, S, 3].

    Raises:
        ConfigError: `layout` or `fit` is unknown.
    """
    cells = pick(LAYOUTS, layout, "compose.layout")(orientation, size)
    place = pick(FITS, fit, "compose.fit")
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    for image, (top, left, height, width) in zip(images, cells, strict=True):
        canvas[top : top + height, left : left + width] = place(image, height, width)
    return canvas


def compose_pair(
    first: np.ndarray,
    second: np.ndarray,
    orientation: Orientation,
    size: int,
    fit: Fit = "squash",
    swapped: bool = False,
) -> np.ndarray:
    """Join two images on one square canvas (CLIC, arXiv 2505.24424, section 3).

    Landscape images are stacked, S/2 high and S wide; portrait ones, S high and S/2 wide, stand
    side by side.

    Args:
        first, second: uint8 [H, W, 3], go to the top and bottom, or the left and right.
        orientation: Orientation that both have.
        size: Side S of the canvas in pixels.
        fit: As in `compose`; for a pair ``"crop"`` takes the middle half of the rows (landscape)
            or columns (portrait) of the image after it was resized to S x S.
        swapped: Whether the two change places.

    Returns:
        uint8 [S, S, 3].

    Raises:
        ConfigError: `fit` is unknown.
    """
    images = (second, first) if swapped else (first, second)
    return compose(images, "pair", orientation, size, fit)


def _single_shortest(image: np.ndarray, size: int, interpolation: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    longer = int(size * max(height, width) / min(height, width))
    new = (size, longer) if height <= width else (longer, size)
    resized = _resize(image, *new, interpolation)
    top, left = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
    return resized[top : top + size, left : left + size]


def _single_squash(image: np.ndarray, size: int, interpolation: Image.Resampling) -> np.ndarray:
    return _resize(image, size, size, interpolation)


def _single_longest(image: np.ndarray, size: int, interpolation: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    ratio = max(height / size, width / size)
    new = max(1, round(height / ratio)), max(1, round(width / ratio))
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    canvas[top : top + new[0], left : left + new[1]] = _resize(image, *new, interpolation)
    return canvas


RESIZE_MODES: dict[str, Callable[[np.ndarray, int, Image.Resampling], np.ndarray]] = {
    "shortest": _single_shortest,
    "squash": _single_squash,
    "longest": _single_longest,
}


def single(
    image: np.ndarray, size: int, resize_mode: str = "shortest", interpolation: str = "bicubic"
) -> np.ndarray:
    """Return one image at the model's size: open_clip's evaluation transform before `normalise`.

    Args:
        image: uint8 [H, W, 3].
        size: Side S in pixels.
        resize_mode: ``"shortest"`` side to S and the centre cropped, ``"squash"`` to S x S, or
            ``"longest"`` side to S and black bars around.
        interpolation: ``"bicubic"`` or ``"bilinear"``.

    Returns:
        uint8 [S, S, 3], bit for bit what open_clip makes of it.

    Raises:
        ConfigError: `resize_mode` or `interpolation` is unknown.
    """
    resize = pick(RESIZE_MODES, resize_mode, "preprocess.resize_mode")
    return resize(image, size, pick(INTERPOLATIONS, interpolation, "preprocess.interpolation"))


def normalise(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (pixel / 255 - mean) / std.

    Args:
        batch: uint8 [B, S, S, 3].
        mean, std: Of each colour channel, in 0..1.

    Returns:
        float32 [B, 3, S, S], contiguous.
    """
    pixels = batch.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    offset, scale = (
        torch.tensor(v, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1)
        for v in (mean, std)
    )
    return pixels.sub_(offset).div_(scale)
