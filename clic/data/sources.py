"""Sources: numbered samples with the orientation of each image known beforehand."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from clic import shapes
from clic.data.order import Part
from clic.errors import pick
from clic.seeding import generator
from clic.types import Sample


class Source(ABC):
    """Samples 0 to N - 1, each of which can be read by itself."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number N of samples."""

    @abstractmethod
    def sizes(self) -> np.ndarray:
        """Return width and height of each image in pixels, int32 [N, 2], without decoding."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return sample `index`.

        Raises:
            DataError: It is broken.
        """

    def aspects(self) -> np.ndarray:
        """Return the sign of width - height of each image, int8 [N]."""
        width, height = self.sizes().T
        return np.sign(width - height).astype(np.int8)

    def parts(self) -> list[Part]:
        """Return the sources that are mixed in this one, in the order of their samples."""
        return [Part(len(self))]

    def landscape(self, square: str, seed: int) -> np.ndarray:
        """Return which images count as landscape, bool [N].

        Args:
            square: `landscape` counts square images as landscape, as the published code does;
                `either` throws a fair coin for each.
            seed: The run's seed, for the coins.
        """
        aspects = self.aspects()
        wide = aspects >= 0
        if square == "either":
            coins = generator(seed, "square").random(len(self)) < 0.5
            wide = np.where(aspects == 0, coins, wide)
        return wide


class ShapesSource(Source):
    """The embedded world: scenes rendered when they are read.

    Args:
        split: `train`, `validation` or `test`.
        objects: Things in each scene, 1 or 2.
        count: Number of scenes N.
        seed: Seed of the world.

    Raises:
        ConfigError: There is no such split.
    """

    def __init__(self, split: str, objects: int, count: int, seed: int = 0) -> None:
        pick(dict.fromkeys(shapes.SPLITS), split, "split")
        self.split, self.objects, self.count, self.seed = split, objects, count, seed

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> np.ndarray:
        height, width = self.read(0).image.shape[:2]  # type: ignore[union-attr]
        return np.tile(np.array([width, height], dtype=np.int32), (self.count, 1))

    def read(self, index: int) -> Sample:
        return shapes.sample(self.split, index, self.objects, self.seed)
