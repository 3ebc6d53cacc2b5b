"""Scenes of the world: one or two things, each with a shape, a colour, a size and a place.

Places are pixels of a 64 x 64 image, x to the right and y down. A lone thing lies in the middle
half of the image, by rows and by columns. A pair is two such things, moved apart by half an image
along one axis, so that the middle halves of two images of lone things, set side by side or
stacked, have the layout of a genuine pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Size = Literal["small", "large"]
Relation = Literal["left", "right", "above", "below"]

IMAGE_SIDE = 64
SHAPES = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "star",
    "cross",
    "ring",
    "heart",
    "moon",
    "bow",
)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 30),
    "green": (25, 150, 45),
    "blue": (35, 60, 215),
    "yellow": (245, 225, 35),
    "purple": (125, 30, 150),
    "pink": (250, 145, 190),
    "cyan": (50, 220, 225),
    "brown": (130, 75, 20),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
RADII: dict[Size, tuple[float, ...]] = {
    "small": (7.0, 7.5, 8.0, 8.5),
    "large": (10.5, 11.0, 11.5, 12.0),
}
SIZES: tuple[Size, ...] = ("small", "large")
RELATIONS: tuple[Relation, ...] = ("left", "right", "above", "below")
INVERSE: dict[Relation, Relation] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}

CENTRE = IMAGE_SIDE / 2
STEP = 0.5  # places and radii are multiples of it, so that masks can be cached
_MAX_SHIFT = 5.0
# Half the side of the middle half, less the pixel that antialiasing touches.
_REACH = IMAGE_SIDE / 4 - 1
_APART = IMAGE_SIDE / 4


@dataclass(frozen=True)
class Thing:
    """One coloured shape.

    Attributes:
        shape: One of `SHAPES`.
        colour: A key of `COLOURS`.
        size: "small" or "large", which bounds the radius.
        x: Centre's column in pixels, a multiple of 0.5.
        y: Centre's row in pixels, a multiple of 0.5.
        radius: Pixels; the shape lies in the square of half side `radius` around the centre.
    """

    shape: str
    colour: str
    size: Size
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """One or two things."""

    things: tuple[Thing, ...]


def relation(first: Thing, second: Thing) -> Relation:
    """Return where `first` lies as seen from `second`, along the axis that parts them more."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def max_shift(radius: float) -> float:
    """Return how far a lone thing may lie from the image's centre along each axis, in pixels."""
    return min(_REACH - radius, _MAX_SHIFT)


def sample_thing(rng: np.random.Generator) -> Thing:
    """Draw a lone thing, wholly inside the middle half of the image."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    colour = tuple(COLOURS)[rng.integers(len(COLOURS))]
    size = SIZES[rng.integers(len(SIZES))]
    radius = RADII[size][rng.integers(len(RADII[size]))]
    steps = int(max_shift(radius) / STEP)
    dx, dy = rng.integers(-steps, steps + 1, size=2) * STEP
    return Thing(shape, colour, size, CENTRE + float(dx), CENTRE + float(dy), radius)


def sample_single(rng: np.random.Generator) -> Scene:
    """Draw a scene of one thing."""
    return Scene((sample_thing(rng),))


def sample_pair(rng: np.random.Generator, distinct: bool = False) -> Scene:
    """Draw a scene of two things that differ in colour, in shape or in both.

    Args:
        rng: Source of the draws.
        distinct: Whether they must differ in colour and in shape.

    Returns:
        The scene; the first thing is the left or the upper one.
    """
    while True:
        first, second = sample_thing(rng), sample_thing(rng)
        same = (first.colour == second.colour, first.shape == second.shape)
        if not (any(same) if distinct else all(same)):
            break
    if rng.integers(2):
        return Scene((replace(first, x=first.x - _APART), replace(second, x=second.x + _APART)))
    return Scene((replace(first, y=first.y - _APART), replace(second, y=second.y + _APART)))
