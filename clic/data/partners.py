"""A composite's further images: any others of the primary's orientation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clic.data.order import Part
from clic.data.sample_set import SampleSet
from clic.errors import DataError

TRIES = 100


class Partners:
    """Draws partners from all images of an orientation, each source by its weight.

    Args:
        landscape: bool [N]: whether an image counts as landscape.
        parts: The sources that are mixed, in the order of the samples.
        images: Images on a canvas.
        partner_self: Let an image be its own partner, as the published code does.

    Raises:
        DataError: An orientation has too few images.
    """

    def __init__(
        self, landscape: np.ndarray, parts: Sequence[Part], images: int, partner_self: bool
    ) -> None:
        self.images, self.partner_self = images, partner_self
        self._pools = {True: SampleSet(landscape), False: SampleSet(~landscape)}
        self._parts = {wide: _Parts(pool, parts) for wide, pool in self._pools.items()}
        for name, pool in (("landscape", self._pools[True]), ("portrait", self._pools[False])):
            if not partner_self and 0 < len(pool) < images:
                raise DataError(
                    f"only {len(pool)} image(s) of {name} orientation, too few for composites of "
                    f"{images}; drop them, or allow sampling.partner_self=true"
                )

    def draw(self, primary: int, wide: bool, rng: np.random.Generator) -> tuple[int, ...]:
        """Return the partners of an image.

        Args:
            primary: The image.
            wide: Its orientation.
            rng: Draws them.
        """
        pool, parts, count = self._pools[wide], self._parts[wide], self.images - 1
        if parts.mixed:
            taken = () if self.partner_self else (pool.place(primary),)
            return tuple(pool.nth(place) for place in parts.draw(count, taken, rng))
        if self.partner_self:
            return tuple(pool.nth(int(p)) for p in rng.integers(len(pool), size=count))
        # Draw places in the pool without the primary's own: those at or after it move up by one.
        own = pool.place(primary)
        places = rng.choice(len(pool) - 1, size=count, replace=False)
        return tuple(pool.nth(int(place) + int(place >= own)) for place in places)


class _Parts:
    """The places that each source has in a pool, and how likely it is there."""

    def __init__(self, pool: SampleSet, parts: Sequence[Part]) -> None:
        self.mixed = len(parts) > 1
        self._bounds = [pool.place(int(end)) for end in np.cumsum([0, *(p.count for p in parts)])]
        # The share of a source among images of this orientation, if images are drawn by weight.
        found = np.diff(self._bounds)
        chances = found * np.array([part.weight / max(part.count, 1) for part in parts])
        self._chances = chances / chances.sum() if len(pool) else chances

    def draw(self, count: int, taken: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Return `count` places; none twice, and none of `taken`, unless that is empty."""
        drawn: list[int] = []
        for _ in range(TRIES * count):
            number = int(rng.choice(len(self._chances), p=self._chances))
            place = int(rng.integers(self._bounds[number], self._bounds[number + 1]))
            if not taken or place not in (*taken, *drawn):
                drawn.append(place)
            if len(drawn) == count:
                return drawn
        # A source that is nearly always drawn has no other image: take any.
        free = np.setdiff1d(np.arange(self._bounds[-1]), [*taken, *drawn])
        return [*drawn, *rng.choice(free, size=count - len(drawn), replace=False).tolist()]
