"""One image at the model's size, and pixels as its vision tower expects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from clic.errors import DataError, pick
from clic.images.decoding import MAX_PIXELS, Resize, resizer


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


RESIZE_MODES: dict[str, Callable[[np.ndarray, int, str, Resize], np.ndarray]] = {
    "shortest": _shortest,
    "squash": _squash,
    "longest": _longest,
}


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
        resize_mode: ``"shortest"`` side to S and the centre cropped, ``"squash"`` to S x S, or
            ``"longest"`` side to S and black bars around.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        method: A name of `METHODS`: who resizes.

    Returns:
        uint8 [S, S, 3]; by ``"exact"`` bit for bit what open_clip makes of it.

    Raises:
        ConfigError: `resize_mode`, `interpolation` or `method` is unknown.
        DataError: The image is so narrow that resizing it would fill the memory.
    """
    mode = pick(RESIZE_MODES, resize_mode, "preprocess.resize_mode")
    return mode(image, size, interpolation, resizer(method))


def normalise(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (pixel / 255 - mean) / std, with the same bits on every device.

    Args:
        batch: uint8 [B, S, S, 3].
        mean, std: Of each colour channel, in 0..1.

    Returns:
        float32 [B, 3, S, S], contiguous.
    """
    pixels = batch.permute(0, 3, 1, 2).contiguous().to(torch.float32)
    # All of them tensors on the device: by a number, CUDA multiplies with its rounded inverse.
    white, offset, scale = (
        torch.tensor(v, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
        for v in ((255.0,), mean, std)
    )
    return pixels.div_(white).sub_(offset).div_(scale)
