"""Where a run's numbers and pictures go besides its folder: TensorBoard, W&B and trackio.

Each package is imported only when its tracker is on. Another one needs a class with the
three methods of `Tracker` and an entry in `TRACKERS`.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clic import provenance
from clic.config.train_settings import Config
from clic.errors import ConfigError, redact


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker shows.

    Attributes:
        config: Its settings.
        folder: Its folder, whose name is the run's.
        start: The step from which it continues.
    """

    config: Config
    folder: Path
    start: int

    def settings(self) -> dict[str, Any]:
        """Return the settings without secrets."""
        kept: dict[str, Any] = redact(asdict(self.config))
        return kept


class Tracker(ABC):
    """Shows a run's numbers and pictures."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add numbers by name at a step."""

    @abstractmethod
    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Add a picture at a step."""

    @abstractmethod
    def close(self) -> None:
        """Send what has not been sent yet."""


class TensorBoard(Tracker):
    """Event files in `RUN/tensorboard`."""

    def __init__(self, run: TrackedRun) -> None:
        _package("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # Hide a killed process's steps after the checkpoint, or all of them if there is none.
        self._writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.start + 1)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class Wandb(Tracker):
    """A run of Weights & Biases with our run's name."""

    def __init__(self, run: TrackedRun) -> None:
        wandb, settings = _package("wandb", "wandb"), run.config.wandb
        self._image: Callable[..., Any] | None = getattr(wandb, "Image", None)
        words, sys.argv = sys.argv, provenance.command()  # W&B stores the command line: no secrets
        own = {"project": settings.project, "entity": settings.entity, "mode": settings.mode}
        name = run.folder.name
        try:
            self._run: Any = wandb.init(
                **own,
                name=name,
                id=name,
                resume="allow",
                dir=str(run.folder),
                config=run.settings(),
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"wandb cannot start ({error}); log in with `wandb login`, or set "
                "wandb.mode=offline or wandb.enabled=false: the same command then continues "
                f"{run.folder}"
            ) from error
        finally:
            sys.argv = words

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        assert self._image is not None
        self._run.log({name: self._image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio(Tracker):
    """A run of trackio, kept on this machine; `trackio show` displays it."""

    def __init__(self, run: TrackedRun) -> None:
        trackio = _package("trackio", "trackio")
        self._image: Callable[..., Any] = trackio.Image
        self._run: Any = trackio.init(
            project=run.config.trackio.project,
            name=run.folder.name,
            config=run.settings(),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        self._run.log({name: self._image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}
"""The trackers, by their group of settings."""


def start_trackers(run: TrackedRun) -> list[Tracker]:
    """Return the trackers that the settings turn on.

    Raises:
        ConfigError: One of them cannot start, or its package is missing.
    """
    started: list[Tracker] = []
    try:
        for name, tracker in TRACKERS.items():
            if getattr(run.config, name).enabled:
                started.append(tracker(run))
    except BaseException:
        for one in started:
            one.close()
        raise
    return started


def _package(name: str, group: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{group}.enabled=true needs the package {name}; pip install {name}"
        ) from error
