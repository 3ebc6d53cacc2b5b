"""Sources of numbered samples: their interface, the embedded world, and mixtures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from clic import shapes
from clic.data.sampling.sampler import EpochPart
from clic.errors import pick
from clic.seeding import generator
from clic.types import Sample


class SampleSource(ABC):
    """Samples 0 to N - 1, which can be read in any order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number N of samples."""

    @abstractmethod
    def sizes(self) -> np.ndarray:
        """Return width and height of each image in pixels, int32 [N, 2], without decoding."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return sample `index`; raises `DataError` if it is broken."""

    def aspects(self) -> np.ndarray:
        """Return the sign of width - height of each image, int8 [N]."""
        width, height = self.sizes().T
        return np.sign(width - height).astype(np.int8)

    def parts(self) -> list[EpochPart]:
        """Return the sources that are mixed in this one, in the order of their samples."""
        return [EpochPart(len(self))]

    def landscape(self, square: str, seed: int) -> np.ndarray:
        """Return which images have landscape orientation, bool [N]; the others are portrait.

        CLIC's rule is width >= height. With `square` = `either`, a fair coin for each square image
        decides its orientation instead.
        """
        aspects = self.aspects()
        landscape = aspects >= 0
        if square == "either":
            coins = generator(seed, "square").random(len(self)) < 0.5
            landscape = np.where(aspects == 0, coins, landscape)
        return landscape


class ShapesSource(SampleSource):
    """`count` scenes of 1 or 2 objects of the embedded world, rendered when they are read.

    Raises:
        ConfigError: The split is not `train`, `validation` or `test`.
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


class MixedSource(SampleSource):
    """Several sources, numbered consecutively; `weights` are their proportions of an epoch."""

    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[float]) -> None:
        self.sources, self.weights = list(sources), list(weights)
        self._starts = np.cumsum([0, *map(len, self.sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sizes(self) -> np.ndarray:
        return np.concatenate([source.sizes() for source in self.sources])

    def aspects(self) -> np.ndarray:
        return np.concatenate([source.aspects() for source in self.sources])

    def parts(self) -> list[EpochPart]:
        return [EpochPart(len(s), w) for s, w in zip(self.sources, self.weights, strict=True)]

    def read(self, index: int) -> Sample:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sources[number].read(index - int(self._starts[number]))
