"""`clic-eval` as a user types it, with models that cost nothing."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clic import models
from clic.cli.eval import main
from clic.models import encoder

Command = Callable[..., tuple[int, str, str]]
StandIn = Callable[[pytest.MonkeyPatch, Path], list[str]]


class Noise:
    """A model whose features depend on its name and the input's bytes."""

    def __init__(self, name: str) -> None:
        self.identity = {"name": name, "weights_sha256": "0" * 64}
        self.seed = zlib.crc32(name.encode())

    def encode_image(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([self._feature(image.tobytes()) for image in images])

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._feature(text.encode()) for text in texts])

    def _feature(self, data: bytes) -> np.ndarray:
        return np.random.default_rng([self.seed, zlib.crc32(data)]).normal(size=8)


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    """Return what puts `Noise` in every model's place and enters a folder.

    It returns a list, to which the names of the models that are loaded are added.
    """

    def replace(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
        names: list[str] = []

        def load(name: str, **settings: object) -> Noise:
            names.append(name)
            return Noise(name)

        patch.setattr(encoder, "load", load)
        patch.setattr(models, "resolve", lambda name: None)
        patch.chdir(folder)
        for variable in ("CLIC_DATA", "WORLD_SIZE"):
            patch.delenv(variable, raising=False)
        return names

    return replace


@pytest.fixture
def loaded(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the names of the stand-in models that were loaded; the current folder is empty."""
    return stand_in(monkeypatch, tmp_path)


@pytest.fixture
def clic_eval(loaded: list[str], capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs the command and gives its exit code, output and errors."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, captured.out, captured.err

    return call
