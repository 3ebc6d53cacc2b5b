"""Several images joined on one square canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from clic.errors import pick
from clic.images.decoding import Resize, resizer

Orientation = Literal["landscape", "portrait"]
Fit = Literal["squash", "crop"]
Cell = tuple[int, int, int, int]  # top, left, height, width


def orientation(width: int, height: int) -> Orientation:
    """Return ``"landscape"`` where width >= height, else ``"portrait"`` (CLIC's rule)."""
    return "landscape" if width >= height else "portrait"


def _squash(image: np.ndarray, height: int, width: int, resize: Resize) -> np.ndarray:
    return resize(image, height, width, "bicubic")


def _crop(image: np.ndarray, height: int, width: int, resize: Resize) -> np.ndarray:
    side = max(height, width)
    square = resize(image, side, side, "bicubic")
    top, left = (side - height) // 2, (side - width) // 2
    return square[top : top + height, left : left + width]


FITS: dict[str, Callable[[np.ndarray, int, int, Resize], np.ndarray]] = {
    "squash": _squash,
    "crop": _crop,
}


def pair_cells(orientation: Orientation, size: int) -> list[Cell]:
    """Return the two halves of the canvas: upper and lower (landscape), left and right."""
    half = size // 2
    halves: dict[str, list[Cell]] = {
        "landscape": [(0, 0, half, size), (half, 0, size - half, size)],
        "portrait": [(0, 0, size, half), (0, half, size, size - half)],
    }
    return pick(halves, orientation, "orientation")


def grid_cells(orientation: Orientation, size: int) -> list[Cell]:
    """Return the four quarters of the canvas, row by row, for either orientation."""
    half = size // 2
    sides = ((0, half), (half, size - half))
    return [(top, left, height, width) for top, height in sides for left, width in sides]


# A layout says where each image goes on a square canvas, for images of one orientation.
LAYOUTS: dict[str, Callable[[Orientation, int], list[Cell]]] = {
    "pair": pair_cells,
    "grid4": grid_cells,
}


def cells(layout: str, orientation: Orientation, size: int) -> list[Cell]:
    """Return the cells of a layout; raises `ConfigError` where it is unknown."""
    return pick(LAYOUTS, layout, "compose.layout")(orientation, size)


def images_of(layout: str) -> int:
    """Return how many images a layout joins."""
    return len(cells(layout, "landscape", 2))


def largest_cell(
    layout: str, orientation: Orientation, size: int, fit: Fit = "squash"
) -> tuple[int, int]:
    """Return the height and width below which no image of a canvas may be decoded."""
    found = cells(layout, orientation, size)
    height, width = (max(cell[side] for cell in found) for side in (2, 3))
    return (height, width) if fit == "squash" else (max(height, width), max(height, width))


def compose(
    images: Sequence[np.ndarray],
    layout: str,
    orientation: Orientation,
    size: int,
    fit: Fit = "squash",
    method: str = "exact",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Join images on one square canvas, in the order given.

    Args:
        images: One uint8 [H, W, 3] for each cell of the layout, in the order of `cells`.
        layout: A name of `LAYOUTS`.
        orientation: Orientation that all of the images have.
        size: Side S of the canvas in pixels.
        fit: ``"squash"`` resizes to the cell, whatever the aspect (the published rule);
            ``"crop"`` to a square of the cell's longer side, of which it takes the middle.
        method: A name of `METHODS`: who resizes.
        out: uint8 [S, S, 3] to write into; made where it is None.

    Returns:
        uint8 [S, S, 3].

    Raises:
        ConfigError: `layout`, `fit` or `method` is unknown.
    """
    found = cells(layout, orientation, size)
    place, resize = pick(FITS, fit, "compose.fit"), resizer(method)
    canvas = np.empty((size, size, 3), dtype=np.uint8) if out is None else out
    for image, (top, left, height, width) in zip(images, found, strict=True):
        canvas[top : top + height, left : left + width] = place(image, height, width, resize)
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
