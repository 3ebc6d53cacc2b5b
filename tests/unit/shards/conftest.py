"""What the tests of shards share: images, samples of the embedded world, tars of other tools."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clic import shapes
from clic.types import Sample


def encoded(width: int = 20, height: int = 10, format: str = "JPEG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(buffer, format, **settings)
    return buffer.getvalue()


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """Return what makes the bytes of an image."""
    return encoded


@pytest.fixture
def world() -> Callable[[int], list[Sample]]:
    """Return what makes samples of the embedded world, as many as are asked for."""
    return lambda count: [shapes.sample("train", i, objects=2) for i in range(count)]


@pytest.fixture
def tar() -> Callable[[Path, dict[str, bytes]], Path]:
    """Return what writes a tar as tools that are not ours do."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, "w") as file:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def members_with() -> Callable[..., dict[str, bytes]]:
    """Return what gives the members of one sample, some of them others than they should be."""

    def members(**changes: bytes) -> dict[str, bytes]:
        return {"a.jpg": encoded(), "a.json": b'{"caption": "x"}', **changes}

    return members
