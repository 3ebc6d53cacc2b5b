"""Which images make the batch of a step: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clic.errors import DataError
from clic.images import Orientation
from clic.seeding import generator
from clic.types import KINDS, Kind


@dataclass(frozen=True)
class Row:
    """The images of one row of a batch.

    Attributes:
        indices: Sample numbers, the primary image first.
        orientation: Orientation that all of them have.
        slot: Place in the global batch, 0 to W * B - 1.
    """

    indices: tuple[int, ...]
    orientation: Orientation
    slot: int


@dataclass(frozen=True)
class Plan:
    """What a rank loads for one step."""

    step: int
    kind: Kind
    rows: tuple[Row, ...]


class Sampler:
    """Plans every step of a run on one rank.

    An epoch is floor(N / (W * B)) steps; its primary images are a seeded permutation, of which
    rank r takes places r * B to (r + 1) * B of each step, whatever the step's kind. A composite's
    partners are drawn, in addition, from all images of its orientation. Nothing depends on what
    was planned before.

    Args:
        landscape: For each kind that is used, bool [N]: whether an image counts as landscape.
        kinds: `alternate` (composite first), `composite` or `single`.
        batch_size: Images B on each rank.
        seed: The run's seed.
        rank: This rank.
        world_size: Number of ranks W.
        images: Images on a canvas.
        partner_self: Let an image be its own partner, as the published code does.

    Raises:
        DataError: There are too few images for one batch, or for a partner.
    """

    def __init__(
        self,
        landscape: Mapping[Kind, np.ndarray],
        kinds: str,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        images: int = 2,
        partner_self: bool = False,
    ) -> None:
        self.schedule: tuple[Kind, ...] = KINDS if kinds == "alternate" else (kinds,)  # type: ignore[assignment]
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self.global_batch = batch_size * world_size
        self.images, self.partner_self = images, partner_self
        self.landscape = {kind: landscape[kind] for kind in self.schedule}
        for kind, wide in self.landscape.items():
            self._check(kind, wide)
        # For each kind the sample numbers of either orientation, from which partners are drawn.
        self._pools = {
            kind: {True: np.flatnonzero(wide), False: np.flatnonzero(~wide)}
            for kind, wide in self.landscape.items()
            if kind == "composite"
        }
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _check(self, kind: Kind, wide: np.ndarray) -> None:
        if len(wide) < self.global_batch:
            raise DataError(
                f"{len(wide)} {kind} samples are fewer than one batch of {self.global_batch} "
                "(train.batch_size times the number of ranks); use more data or a smaller batch"
            )
        if kind == "composite" and not self.partner_self:
            for name, count in (("landscape", wide.sum()), ("portrait", (~wide).sum())):
                if 0 < count < self.images:
                    raise DataError(
                        f"only {count} image(s) of {name} orientation, too few for composites of "
                        f"{self.images}; drop them, or allow sampling.partner_self=true"
                    )

    def kind(self, step: int) -> Kind:
        """Return the kind of a step, the same on every rank."""
        return self.schedule[step % len(self.schedule)]

    def steps_per_epoch(self) -> int:
        """Return floor(N / (W * B)) of the first kind's samples."""
        return len(self.landscape[self.schedule[0]]) // self.global_batch

    def plan(self, step: int) -> Plan:
        """Return what this rank loads at a step."""
        kind = self.kind(step)
        wide = self.landscape[kind]
        epoch, place = divmod(step, len(wide) // self.global_batch)
        order = self._order(len(wide), epoch)
        first = self.rank * self.batch_size
        rows = []
        for slot in range(first, first + self.batch_size):
            primary = int(order[place * self.global_batch + slot])
            partners = self._partners(primary, step, slot) if kind == "composite" else ()
            orientation: Orientation = "landscape" if wide[primary] else "portrait"
            rows.append(Row((primary, *partners), orientation, slot))
        return Plan(step, kind, tuple(rows))

    def _permutation(self, count: int, epoch: int) -> np.ndarray:
        # The same for both kinds: where they share their samples, a pass sees each one once.
        return generator(self.seed, "epoch", step=epoch).permutation(count)

    def _partners(self, primary: int, step: int, slot: int) -> tuple[int, ...]:
        wide = bool(self.landscape["composite"][primary])
        pool = self._pools["composite"][wide]
        rng = generator(self.seed, "partners", step, slot)
        if self.partner_self:
            return tuple(int(i) for i in pool[rng.integers(len(pool), size=self.images - 1)])
        # Draw places in the pool without the primary's own: those at or after it move up by one.
        own = int(np.searchsorted(pool, primary))
        places = rng.choice(len(pool) - 1, size=self.images - 1, replace=False)
        return tuple(int(pool[place + (place >= own)]) for place in places)
