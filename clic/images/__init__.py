"""Pixels: from encoded images to what the vision tower reads.

In: encoded images, or uint8 [H, W, 3] RGB. Out: uint8 [S, S, 3] for one row of a batch, made of one
image (`single`) or of several (`compose`), and float32 [B, 3, S, S] for a batch (`normalise`).
Read `decoding` (bytes to pixels, and resizing) first, then `canvas`.
"""

from clic.images.canvas import (
    LAYOUTS,
    Cell,
    Orientation,
    cells,
    compose,
    images_of,
    largest_cell,
    normalise,
    single,
)
from clic.images.decoding import METHODS, decode, dimensions, open_image, to_rgb

__all__ = [
    "LAYOUTS",
    "METHODS",
    "Cell",
    "Orientation",
    "cells",
    "compose",
    "decode",
    "dimensions",
    "images_of",
    "largest_cell",
    "normalise",
    "open_image",
    "single",
    "to_rgb",
]
