"""Scenes of the world: one or two things, each with a shape, a colour, a size and a place.

Places are pixels of a 64 x 64 image, x to the right and y down. A single thing lies in the middle
half of the image, by rows and by columns. A pair is two such things, moved apart by half an image
along one axis, so that the middle halves of two images of single things, side by side or stacked,
have the layout of a genuine pair.

In a pair of `sample_pair`, as in a composite, each thing is in the middle of its own half of the
image. In pixels, along the axis that separates them and across it, with s = `max_shift(radius)` (5
for small things, 4.5 to 3 for large ones):

- distance along the axis: 32 - s1 - s2 to 32 + s1 + s2, so 22 to 42 (two large: 23 to 41);
- distance across it: 0 to s1 + s2, so at most 10, less than half of that along the axis;
- one pixel on either side of the image's middle line is free: the gap is 2 or more.

The samplers `near`, `diagonal` and `off_centre` start from such a pair and move it to places
that no composite of two single things can have: they change the distance along the axis, the
distance across it, and the place of the pair as a whole. Things still keep a gap of 2 along the
axis and stay 1 pixel away from the image's edge; the axis and the order (first the left or the
upper one) do not change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from clic.types import Relation

Size = Literal["small", "large"]

IMAGE_SIDE = 64
SHAPES = (
    *("circle", "square", "triangle", "diamond", "star"),
    *("cross", "ring", "heart", "moon", "bow"),
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
    """Return where `first` lies relative to `second`, along the axis of their larger distance."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def max_shift(radius: float) -> float:
    """Return how far a single thing may lie from the image's centre along each axis, in pixels."""
    return min(_REACH - radius, _MAX_SHIFT)


def sample_thing(rng: np.random.Generator) -> Thing:
    """Draw a single thing that lies entirely in the middle half of the image."""
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
        rng: Draws the scene.
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


_GAP = 2.0
_EDGE = CENTRE - 1  # how far from the image's centre things may reach
_LEAST_TILT = 12.0  # across the axis, for diagonal pairs
# Distance across the axis as a fraction of that along it: 1/2 is 27 degrees, 2/3 is 34.
_USUAL_TILT = 1 / 2
_GREATEST_TILT = 2 / 3
# For a pair off the centre: the least that the rear thing reaches over the image's middle line, and
# that the middle of the pair lies beyond it.
_LEAST_OVERLAP = 2.0
_LEAST_OFFSET = 6.0


@dataclass(frozen=True)
class _Layout:
    """A pair relative to the axis that separates it; along it, the first thing comes first.

    Attributes:
        beside: Whether the axis is the horizontal one.
        things: The pair.
        along: Each thing's offset from the image's centre along the axis, in pixels.
        across: The same along the other axis.
    """

    beside: bool
    things: tuple[Thing, Thing]
    along: tuple[float, float]
    across: tuple[float, float]

    @property
    def distance(self) -> float:
        """Pixels between the centres along the axis."""
        return self.along[1] - self.along[0]

    def scene(self) -> Scene:
        """Return the pair, placed at `along` and `across`."""
        placed = []
        for thing, along, across in zip(self.things, self.along, self.across, strict=True):
            x, y = (along, across) if self.beside else (across, along)
            placed.append(replace(thing, x=CENTRE + x, y=CENTRE + y))
        return Scene(tuple(placed))


def _layout(scene: Scene) -> _Layout:
    first, second = scene.things
    beside = relation(first, second) == "left"
    columns = (first.x - CENTRE, second.x - CENTRE)
    rows = (first.y - CENTRE, second.y - CENTRE)
    along, across = (columns, rows) if beside else (rows, columns)
    return _Layout(beside, (first, second), along, across)


def _whole(low: float, high: float, rng: np.random.Generator) -> int:
    """Draw a whole number from low..high."""
    return int(rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1))


def _place(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a place from low..high, a multiple of `STEP`."""
    return STEP * _whole(low / STEP, high / STEP, rng)


def _least_distance(things: tuple[Thing, Thing]) -> float:
    """Return the smallest distance along the axis of a usual pair of these radii."""
    return CENTRE - sum(max_shift(thing.radius) for thing in things)


def sample_near(rng: np.random.Generator) -> Scene:
    """Draw a pair that is closer together than usual pairs of its radii ever are.

    Usual pairs of two large things can touch the middle line from both sides, so they cannot be
    closer: here at least one thing is small. The distance along the axis is from r1 + r2 + 2 to
    32 - s1 - s2 - 0.5: 16 to 21.5 for two small things, 19.5 to 23.5 for a small and a large one,
    and never less than twice the distance across. The middle of the pair stays where it was.

    Args:
        rng: Draws the scene.

    Returns:
        The scene; the first thing is the left or the upper one.
    """
    while True:
        pair = _layout(sample_pair(rng))
        if any(thing.size == "small" for thing in pair.things):
            break
    tilt = abs(pair.across[1] - pair.across[0])
    closest = max(sum(thing.radius for thing in pair.things) + _GAP, tilt / _USUAL_TILT)
    farthest = _least_distance(pair.things) - STEP
    nearer = _whole(pair.distance - farthest, pair.distance - closest, rng)
    along = (pair.along[0] + nearer / 2, pair.along[1] - nearer / 2)
    return replace(pair, along=along).scene()


def sample_diagonal(rng: np.random.Generator) -> Scene:
    """Draw a pair that is also clearly displaced across its axis, but more so along it.

    The distance along the axis is the usual one; that across is from 12 (usual pairs: at most 10)
    to two thirds of it, so 12 to 28, an angle of 16 to 34 degrees, in either direction. The middle
    of the pair stays where it was, and every such pair lies inside the image.

    Args:
        rng: Draws the scene.

    Returns:
        The scene; the first thing is the left or the upper one.
    """
    pair = _layout(sample_pair(rng))
    tilt = pair.across[1] - pair.across[0]
    low, high = _LEAST_TILT, pair.distance * _GREATEST_TILT
    if rng.integers(2):
        low, high = -high, -low
    more = _whole(low - tilt, high - tilt, rng)
    return replace(pair, across=(pair.across[0] - more / 2, pair.across[1] + more / 2)).scene()


def sample_off_centre(rng: np.random.Generator) -> Scene:
    """Draw a pair that is moved along its axis until the middle line no longer separates it.

    The rear thing reaches over the image's middle line by 2 pixels or more, and the middle of the
    pair lies 6 to 13 pixels beyond it (usual pairs: at most 5). The other thing, of radius r, stays
    within 31 - r of the image's centre, which leaves distances along the axis from the smallest
    usual one, 32 - s1 - s2, to the smaller of 29 + r_rear - r and 2 (25 - r): 22 to 34 in all, 22
    to 30.5 for two small things, and only 24 if the rear one has radius 7 and the other 12.
    These are usual distances, so only the place is new; those across the axis do not change.

    Args:
        rng: Draws the scene.

    Returns:
        The scene; the first thing is the left or the upper one.
    """
    pair = _layout(sample_pair(rng))
    rear = int(rng.integers(2))
    # Direction towards the other thing; the second thing is on the positive side.
    sign = 1 if rear == 0 else -1
    inner, outer = pair.things[rear].radius, pair.things[1 - rear].radius
    utmost = _EDGE - outer  # the other thing's greatest offset from the image's centre
    farthest = min(utmost - _LEAST_OVERLAP + inner, 2 * (utmost - _LEAST_OFFSET))
    distance = _place(_least_distance(pair.things), farthest, rng)
    least = max(_LEAST_OVERLAP - inner + distance, _LEAST_OFFSET + distance / 2)
    place = _place(least, utmost, rng)
    along = (sign * (place - distance), sign * place)
    return replace(pair, along=along if rear == 0 else along[::-1]).scene()
