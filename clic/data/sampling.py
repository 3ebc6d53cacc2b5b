"""Which images make the batch of a step: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clic.data.order import Order, Part, Resampled, Shuffled
from clic.data.partners import Partners
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

    With `neighbours` (NegCLIP, arXiv 2210.01936, section 4) half of the rows are primary images,
    and each is followed by one of its nearest images: B counts both, and an epoch has twice the
    steps.

    Args:
        landscape: For each kind that is used, bool [N]: whether an image counts as landscape.
        kinds: `alternate` (composite first), `composite` or `single`.
        batch_size: Rows B on each rank.
        seed: The run's seed.
        rank: This rank.
        world_size: Number of ranks W.
        images: Images on a canvas.
        partner_self: Let an image be its own partner, as the published code does.
        parts: For each kind the sources that are mixed in it, in the order of the samples; one of
            all samples where it is not said.
        samples: Samples N of an epoch, None for all of them.
        replacement: Draw primary images with replacement.
        neighbours: int [N, K], the numbers of each image's nearest images.

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
        parts: Mapping[Kind, Sequence[Part]] | None = None,
        samples: int | None = None,
        replacement: bool = False,
        neighbours: np.ndarray | None = None,
    ) -> None:
        self.schedule: tuple[Kind, ...] = KINDS if kinds == "alternate" else (kinds,)  # type: ignore[assignment]
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self.global_batch = batch_size * world_size
        self.images, self.partner_self = images, partner_self
        self.neighbours = neighbours
        self._rows_each = 1 if neighbours is None else 2
        self.landscape = {kind: landscape[kind] for kind in self.schedule}
        self._counts, self._orders = {}, dict[Kind, Order]()
        for kind, wide in self.landscape.items():
            own = (parts or {}).get(kind) or [Part(len(wide))]
            count = samples or len(wide)
            self._counts[kind] = count // (self.global_batch // self._rows_each)
            self._check(kind, count)
            self._orders[kind] = Resampled(own, seed) if replacement else Shuffled(own, count, seed)
            if kind == "composite":
                self._partners = Partners(wide, own, images, partner_self)

    def _check(self, kind: Kind, count: int) -> None:
        if not self._counts[kind]:
            raise DataError(
                f"{count} {kind} samples are fewer than one batch of {self.global_batch} "
                "(train.batch_size times the number of ranks); use more data or a smaller batch"
            )

    def kind(self, step: int) -> Kind:
        """Return the kind of a step, the same on every rank."""
        return self.schedule[step % len(self.schedule)]

    def steps_per_epoch(self) -> int:
        """Return floor(N / (W * B)) of the first kind's samples."""
        return self._counts[self.schedule[0]]

    def total(self) -> int:
        """Return the number of samples of the kinds' sources; with W * B it decides the order."""
        return sum({id(wide): len(wide) for wide in self.landscape.values()}.values())

    def plan(self, step: int) -> Plan:
        """Return what this rank loads at a step."""
        kind = self.kind(step)
        wide = self.landscape[kind]
        epoch, place = divmod(step, self._counts[kind])
        each = self.batch_size // self._rows_each
        first = self.rank * each
        start = place * (self.global_batch // self._rows_each) + first
        primaries = self._orders[kind].at(epoch, np.arange(start, start + each))
        rows = []
        for slot, primary in zip(
            range(first * self._rows_each, self.global_batch, self._rows_each),
            primaries.tolist(),
            strict=False,
        ):
            orientation: Orientation = "landscape" if wide[primary] else "portrait"
            partners: tuple[int, ...] = ()
            if kind == "composite":
                rng = generator(self.seed, "partners", step, slot)
                partners = self._partners.draw(primary, bool(wide[primary]), rng)
            rows.append(Row((primary, *partners), orientation, slot))
            if self.neighbours is not None:
                rows.append(self._near(primary, step, slot + 1))
        return Plan(step, kind, tuple(rows))

    def _near(self, primary: int, step: int, slot: int) -> Row:
        """Return the row of one of an image's nearest images."""
        assert self.neighbours is not None
        rng = generator(self.seed, "hard_images", step, slot)
        near = int(self.neighbours[primary, rng.integers(self.neighbours.shape[1])])
        wide = self.landscape["single"][near]
        return Row((near,), "landscape" if wide else "portrait", slot)
