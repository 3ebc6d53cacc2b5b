"""Which images make the batch of a step: a pure function of (seed, step).

A composite's further images: any others of the primary's orientation.

The images of either orientation, in a bit each: which they are, how many, the k-th.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clic.data.sampling.order import EpochPart, Order, Resampled, Shuffled
from clic.errors import DataError
from clic.images import Orientation
from clic.seeding import generator
from clic.types import KINDS, Kind


@dataclass(frozen=True)
class BatchRow:
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
class BatchPlan:
    """What a rank loads for one step."""

    step: int
    kind: Kind
    rows: tuple[BatchRow, ...]


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
        parts: Mapping[Kind, Sequence[EpochPart]] | None = None,
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
            own = (parts or {}).get(kind) or [EpochPart(len(wide))]
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

    def plan(self, step: int) -> BatchPlan:
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
            rows.append(BatchRow((primary, *partners), orientation, slot))
            if self.neighbours is not None:
                rows.append(self._near(primary, step, slot + 1))
        return BatchPlan(step, kind, tuple(rows))

    def _near(self, primary: int, step: int, slot: int) -> BatchRow:
        """Return the row of one of an image's nearest images."""
        assert self.neighbours is not None
        rng = generator(self.seed, "hard_images", step, slot)
        near = int(self.neighbours[primary, rng.integers(self.neighbours.shape[1])])
        wide = self.landscape["single"][near]
        return BatchRow((near,), "landscape" if wide else "portrait", slot)


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
        self, landscape: np.ndarray, parts: Sequence[EpochPart], images: int, partner_self: bool
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

    def __init__(self, pool: SampleSet, parts: Sequence[EpochPart]) -> None:
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


BLOCK = 512
"""Images whose number is counted together."""


class SampleSet:
    """A set of samples among 0 to N - 1, of which any member is found by its place in the set.

    It takes N / 8 bytes: ten million samples fit each of the loader's processes many times over.

    Args:
        members: bool [N].
    """

    def __init__(self, members: np.ndarray) -> None:
        self._bits = np.packbits(members)
        counts = [int(members[i : i + BLOCK].sum()) for i in range(0, len(members), BLOCK)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.total = len(members)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __contains__(self, sample: int) -> bool:
        return bool(self._bits[sample >> 3] >> (7 - (sample & 7)) & 1)

    def nth(self, place: int) -> int:
        """Return the member at `place` of the set in ascending order."""
        block = int(np.searchsorted(self._starts, place, side="right")) - 1
        inside = np.flatnonzero(self._block(block))[place - int(self._starts[block])]
        return block * BLOCK + int(inside)

    def place(self, sample: int) -> int:
        """Return how many members are below `sample`."""
        block, rest = divmod(sample, BLOCK)
        if block >= len(self._starts) - 1:
            return len(self)
        return int(self._starts[block]) + int(self._block(block)[:rest].sum())

    def _block(self, block: int) -> np.ndarray:
        step = BLOCK // 8
        return np.unpackbits(self._bits[block * step : (block + 1) * step]).view(bool)
