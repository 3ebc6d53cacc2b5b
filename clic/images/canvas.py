"""One image, or several on one canvas, at the model's size, and normalised pixels of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clic.errors import Choices, DataError
from clic.images.decoding import MAX_PIXELS, METHODS, Resize

Orientation = Literal["landscape", "portrait"]
Cell = tuple[int, int, int, int]  # top, left, height, width
_CACHED_IMAGES = 2
"""Images that a CPU normalises at once, so that they stay in its cache between operations."""


# --- several images on one canvas ---


_HALVES: Choices[Callable[[int, int], list[Cell]]] = Choices(
    "orientation",
    {
        "landscape": lambda size, half: [(0, 0, half, size), (half, 0, size - half, size)],
        "portrait": lambda size, half: [(0, 0, size, half), (0, half, size, size - half)],
    },
)


def _pair(orientation: Orientation, size: int) -> list[Cell]:
    """Return the upper and lower half (landscape), or the left and right half (portrait)."""
    return _HALVES[orientation](size, size // 2)


def _grid4(orientation: Orientation, size: int) -> list[Cell]:
    """Return the four quarters, row by row, for either orientation."""
    half = size // 2
    sides = ((0, half), (half, size - half))
    return [(top, left, height, width) for top, height in sides for left, width in sides]


def _alone(orientation: Orientation, size: int) -> list[Cell]:
    """Return the whole canvas, for one image in place of a composite."""
    return [(0, 0, size, size)]


# A layout gives the cell of each image on a square canvas, for images of one orientation.
LAYOUTS: Choices[Callable[[Orientation, int], list[Cell]]] = Choices(
    "compose.layout", {"pair": _pair, "grid4": _grid4, "alone": _alone}
)


def cells(layout: str, orientation: Orientation, size: int) -> list[Cell]:
    """Return the cells of a layout; raises `ConfigError` if it is unknown."""
    return LAYOUTS[layout](orientation, size)


def images_of(layout: str) -> int:
    """Return the number of images that a layout joins."""
    return len(cells(layout, "landscape", 2))


def _fill_cell(image: np.ndarray, height: int, width: int, resize: Resize) -> np.ndarray:
    return resize(image, height, width, "bicubic")


def _crop_middle(image: np.ndarray, height: int, width: int, resize: Resize) -> np.ndarray:
    side = max(height, width)
    square = resize(image, side, side, "bicubic")
    top, left = (side - height) // 2, (side - width) // 2
    return square[top : top + height, left : left + width]


FITS: Choices[Callable[[np.ndarray, int, int, Resize], np.ndarray]] = Choices(
    "compose.fit", {"squash": _fill_cell, "crop": _crop_middle}
)


def largest_cell(
    layout: str, orientation: Orientation, size: int, fit: str = "squash"
) -> tuple[int, int]:
    """Return the smallest height and width at which an image of a canvas may be decoded."""
    found = cells(layout, orientation, size)
    height, width = (max(cell[side] for cell in found) for side in (2, 3))
    return (height, width) if fit == "squash" else (max(height, width), max(height, width))


def compose(
    images: Sequence[np.ndarray],
    layout: str,
    orientation: Orientation,
    size: int,
    fit: str = "squash",
    method: str = "exact",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Join images on one square canvas, in the order given (CLIC, arXiv 2505.24424, section 3).

    Args:
        images: One uint8 [H, W, 3] for each cell of the layout, in the order of `cells`.
        layout: A name of `LAYOUTS`.
        orientation: Orientation of all of the images.
        size: Side S of the canvas in pixels.
        fit: ``"squash"`` resizes to the cell and ignores the aspect (the published rule);
            ``"crop"`` resizes to a square of the cell's longer side and takes its middle.
        method: A name of `METHODS`: how to resize.
        out: uint8 [S, S, 3] to write into; allocated if None.

    Returns:
        uint8 [S, S, 3].

    Raises:
        ConfigError: `layout`, `orientation`, `fit` or `method` is unknown.
    """
    found = cells(layout, orientation, size)
    place, resize = FITS[fit], METHODS[method]
    canvas = np.empty((size, size, 3), dtype=np.uint8) if out is None else out
    for image, (top, left, height, width) in zip(images, found, strict=True):
        canvas[top : top + height, left : left + width] = place(image, height, width, resize)
    return canvas


# --- one image ---


def _shortest(image: np.ndarray, size: int, interpolation: str, resize: Resize) -> np.ndarray:
    height, width = image.shape[:2]
    longer = int(size * max(height, width) / min(height, width))
    if size * longer > MAX_PIXELS:
        raise DataError(
            f"image of {width} x {height} pixels is too narrow: with a short side of {size} it "
            f"would be above the limit of {MAX_PIXELS} pixels; drop it"
        )
    new = (size, longer) if height <= width else (longer, size)
    resized = resize(image, *new, interpolation)
    top, left = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
    return resized[top : top + size, left : left + size]


def _squash(image: np.ndarray, size: int, interpolation: str, resize: Resize) -> np.ndarray:
    return resize(image, size, size, interpolation)


def _longest(image: np.ndarray, size: int, interpolation: str, resize: Resize) -> np.ndarray:
    height, width = image.shape[:2]
    ratio = max(height / size, width / size)
    new = max(1, round(height / ratio)), max(1, round(width / ratio))
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    canvas[top : top + new[0], left : left + new[1]] = resize(image, *new, interpolation)
    return canvas


RESIZE_MODES: Choices[Callable[[np.ndarray, int, str, Resize], np.ndarray]] = Choices(
    "preprocess.resize_mode",
    {"shortest": _shortest, "squash": _squash, "longest": _longest},
)


def single(
    image: np.ndarray,
    size: int,
    resize_mode: str = "shortest",
    interpolation: str = "bicubic",
    method: str = "exact",
) -> np.ndarray:
    """Return one image at the model's size: open_clip's evaluation transform before `normalise`.

    Args:
        image: uint8 [H, W, 3].
        size: Side S in pixels.
        resize_mode: ``"shortest"`` side to S and a centre crop, ``"squash"`` to S x S, or
            ``"longest"`` side to S and black borders.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        method: A name of `METHODS`: how to resize.

    Returns:
        uint8 [S, S, 3]; with ``"exact"`` bit for bit open_clip's result.

    Raises:
        ConfigError: `resize_mode`, `interpolation` or `method` is unknown.
        DataError: The image is so narrow that resizing it would fill the memory.
    """
    return RESIZE_MODES[resize_mode](image, size, interpolation, METHODS[method])


def normalise(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (pixel / 255 - mean) / std, with the same bits on every device.

    Args:
        batch: uint8 [B, S, S, 3].
        mean, std: One for each colour channel, of pixels in 0..1.

    Returns:
        float32 [B, 3, S, S], contiguous.
    """
    white, offset, scale = (_channels(tuple(v), batch.device) for v in ((255.0,), mean, std))
    found = torch.empty(
        (len(batch), batch.shape[3], *batch.shape[1:3]), dtype=torch.float32, device=batch.device
    )
    at_once = _CACHED_IMAGES if batch.device.type == "cpu" else max(len(batch), 1)
    for pixels, part in zip(found.split(at_once), batch.split(at_once), strict=True):
        pixels.copy_(part.permute(0, 3, 1, 2)).div_(white).sub_(offset).div_(scale)
    return found


@lru_cache(maxsize=32)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a value for each channel as a tensor [1, C, 1, 1], made once for each device.

    A tensor, because CUDA divides by a number by multiplying with its inverse; cached, because the
    copy to the device waits for the device.
    """
    with torch.inference_mode(False):  # even if the first caller is in inference mode
        return torch.tensor(values, dtype=torch.float32).to(device).view(1, -1, 1, 1)
