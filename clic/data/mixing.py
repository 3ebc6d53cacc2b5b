"""Several sources as one, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clic.data.order import Part
from clic.data.sources import Source
from clic.types import Sample


class MixedSource(Source):
    """The samples of several sources, numbered through.

    Args:
        sources: The sources.
        weights: How much of an epoch comes from each, in proportion.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self.sources, self.weights = list(sources), list(weights)
        self._starts = np.cumsum([0, *map(len, self.sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sizes(self) -> np.ndarray:
        return np.concatenate([source.sizes() for source in self.sources])

    def aspects(self) -> np.ndarray:
        return np.concatenate([source.aspects() for source in self.sources])

    def parts(self) -> list[Part]:
        return [
            Part(len(source), weight)
            for source, weight in zip(self.sources, self.weights, strict=True)
        ]

    def read(self, index: int) -> Sample:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sources[number].read(index - int(self._starts[number]))
