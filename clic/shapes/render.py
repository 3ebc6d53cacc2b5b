"""Renders scenes with numpy, a few thousand images per second on one core."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from clic.shapes.scenes import COLOURS, IMAGE_SIDE, Scene, Thing

BACKGROUND: Final = 118.0  # a mid grey, far from every colour of the world
_BACKGROUND_SPREAD = 14.0
_BRIGHTNESS_SPREAD = 0.06
_PIXEL_NOISE = 9.0
_SUBSAMPLES = 6  # points per side of a pixel that antialiasing averages over


def _star() -> np.ndarray:
    """Return the corners of a five-pointed star, [10, 2]."""
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _in_polygon(u: np.ndarray, v: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return which points lie inside a polygon (even-odd rule)."""
    inside = np.zeros(u.shape, dtype=bool)
    for (u0, v0), (u1, v1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if v0 != v1:
            inside ^= ((v0 > v) != (v1 > v)) & (u < (u1 - u0) * (v - v0) / (v1 - v0) + u0)
    return inside


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return which points belong to a shape; u, v in units of its radius, with v down."""
    distance = np.hypot(u, v)
    if shape == "circle":
        return distance <= 0.95
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.84
    if shape == "triangle":
        return _in_polygon(u, v, np.array([(0.0, -0.95), (0.98, 0.85), (-0.98, 0.85)]))
    if shape == "diamond":
        return abs(u) / 0.7 + abs(v) <= 1
    if shape == "star":
        return _in_polygon(u, v, _star())
    if shape == "cross":
        return (np.minimum(abs(u), abs(v)) <= 0.27) & (np.maximum(abs(u), abs(v)) <= 0.95)
    if shape == "ring":
        return (distance <= 0.98) & (distance >= 0.58)
    if shape == "heart":
        x, y = 1.18 * u, 0.08 - 1.18 * v
        return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3
    if shape == "moon":
        return (distance <= 0.98) & (np.hypot(u - 0.48, v) >= 0.72)
    if shape == "bow":
        return (abs(u) <= 0.96) & (abs(v) <= 0.06 + 0.78 * abs(u))
    raise ValueError(f"no such shape: {shape!r}")


@cache
def _mask(shape: str, radius: float, x: float, y: float) -> np.ndarray:
    """Return the fraction of each pixel that a shape covers, float32 [side, side, 1].

    Args:
        shape: One of the world's shapes.
        radius: Pixels.
        x: Column of the shape's centre relative to the patch's middle; 0 or 0.5.
        y: The same for rows.
    """
    side = 2 * int(np.ceil(radius + 0.5))
    points = (np.arange(side * _SUBSAMPLES) + 0.5) / _SUBSAMPLES - side / 2
    v, u = np.meshgrid((points - y) / radius, (points - x) / radius, indexing="ij")
    inside = _inside(shape, u, v).reshape(side, _SUBSAMPLES, side, _SUBSAMPLES)
    return inside.mean(axis=(1, 3), dtype=np.float32)[:, :, None]


def _draw(canvas: np.ndarray, thing: Thing, brightness: float) -> None:
    """Blend one thing into a float canvas [64, 64, 3], in place."""
    column, row = int(thing.x), int(thing.y)
    mask = _mask(thing.shape, thing.radius, thing.x - column, thing.y - row)
    half = mask.shape[0] // 2
    patch = canvas[row - half : row + half, column - half : column + half]
    patch += mask * (
        np.float32(brightness) * np.array(COLOURS[thing.colour], dtype=np.float32) - patch
    )


def render_scene(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene on a grey background with jitter and noise.

    Args:
        scene: What to draw.
        rng: Draws the background's shade and tint, each thing's brightness and the noise.

    Returns:
        uint8 [64, 64, 3], RGB.
    """
    shade = BACKGROUND + _BACKGROUND_SPREAD * rng.uniform(-1, 1)
    tint = 0.3 * _BACKGROUND_SPREAD * rng.uniform(-1, 1, size=3)
    canvas = np.empty((IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.float32)
    canvas[:] = shade + tint
    for thing in scene.things:
        _draw(canvas, thing, 1 + _BRIGHTNESS_SPREAD * rng.uniform(-1, 1))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise *= _PIXEL_NOISE
    canvas += noise
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8)
