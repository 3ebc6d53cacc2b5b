"""What the tests of benchmarks share: models whose features are known, images, zips."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


class AngleModel:
    """A caption's last word is its angle, an image's mean red is its: near angles score high."""

    def encode_image(self, images: Sequence[Image.Image]) -> Tensor:
        return self._points([float(np.asarray(image)[..., 0].mean()) for image in images])

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        return self._points([float(caption.split()[-1]) for caption in captions])

    def _points(self, degrees: Sequence[float]) -> Tensor:
        angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return torch.stack([angles.cos(), angles.sin()], dim=1).float()


class AxisModel:
    """An image's red is the number of its class, a prompt the class whose name it holds."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.prompts: list[str] = []

    def encode_image(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.eye(len(self.classes))[[int(np.asarray(i)[0, 0, 0]) for i in images]]

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        self.prompts += captions
        return torch.eye(len(self.classes))[[self._number(caption) for caption in captions]]

    def _number(self, caption: str) -> int:
        held = [i for i, name in enumerate(self.classes) if name in caption]
        return max(held, key=lambda i: len(self.classes[i]))


@pytest.fixture
def angle_model() -> AngleModel:
    return AngleModel()


@pytest.fixture
def axis_model() -> type[AxisModel]:
    return AxisModel


@pytest.fixture
def paint() -> Callable[..., None]:
    """Return a function that writes an image of one red, or of several side by side."""

    def write(path: Path, *reds: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((6, 10 * len(reds), 3), dtype=np.uint8)
        for index, red in enumerate(reds):
            pixels[:, 10 * index : 10 * (index + 1), 0] = red
        Image.fromarray(pixels).save(path, format="PNG")  # lossless, whatever the ending

    return write


@pytest.fixture
def zipped() -> Callable[[dict[str, bytes]], bytes]:
    """Return what makes the bytes of a zip."""

    def pack(content: dict[str, bytes]) -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name, body in content.items():
                archive.writestr(name, body)
        return data.getvalue()

    return pack
