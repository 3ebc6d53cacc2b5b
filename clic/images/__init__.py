"""Pixels: decoding, the evaluation transform, and several images joined on one canvas."""

from clic.images.canvas import (
    FITS,
    LAYOUTS,
    Cell,
    Fit,
    Orientation,
    cells,
    compose,
    compose_pair,
    images_of,
    largest_cell,
    orientation,
    pair_cells,
)
from clic.images.decoding import (
    FORMATS,
    INTERPOLATIONS,
    MAX_PIXELS,
    METHODS,
    decode,
    dimensions,
    open_image,
    to_rgb,
)
from clic.images.transform import RESIZE_MODES, normalise, single

__all__ = [
    "FITS",
    "FORMATS",
    "INTERPOLATIONS",
    "LAYOUTS",
    "MAX_PIXELS",
    "METHODS",
    "RESIZE_MODES",
    "Cell",
    "Fit",
    "Orientation",
    "cells",
    "compose",
    "compose_pair",
    "decode",
    "dimensions",
    "images_of",
    "largest_cell",
    "normalise",
    "open_image",
    "orientation",
    "pair_cells",
    "single",
    "to_rgb",
]
