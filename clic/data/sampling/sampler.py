"""Which images make the batch of a step on each rank: a pure function of (seed, step).

An epoch is drawn from one source or a mixture, with or without replacement, by permutations that
are a pure function of the seed: short ones are tables, long ones computed position by position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clic.errors import DataError
from clic.images import Orientation
from clic.seeding import generator
from clic.types import KINDS, Kind

TRIES = 100
"""Random draws for each partner from a mixture before any other image is used."""
BLOCK = 512
"""Samples that a `SampleSet` counts together."""
TABLE = 1 << 20
"""Longest permutation that is stored as a table, 8 MB."""
ROUNDS = 8
_KEPT = 2  # permutations of each source, for steps on either side of an epoch's end


@dataclass(frozen=True)
class EpochPart:
    """A source of a mixture: the number of its samples, and its weight relative to the others."""

    count: int
    weight: float = 1.0


@dataclass(frozen=True)
class BatchRow:
    """The sample numbers of a row, the primary image first, and the orientation of all of them.

    `slot` is its position in the global batch, 0 to W * B - 1.
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
    rank r takes positions r * B to (r + 1) * B of each step, whatever the step's kind. The partners
    of a composite are drawn, in addition, from all images of its orientation. A plan does not
    depend on earlier ones.

    With `neighbours` (NegCLIP, arXiv 2210.01936, section 4) half of the rows are primary images,
    and each is followed by one of its nearest images: B counts both, and an epoch has twice the
    steps.

    Args:
        landscape: For each kind that is used, bool [N]: True for landscape, False for portrait.
        kinds: `alternate` (composite first), `composite` or `single`.
        batch_size: Rows B on each rank.
        seed: The run's seed.
        rank: This rank.
        world_size: Number of ranks W.
        images: Number of images on a canvas.
        partner_self: Let an image be its own partner, as the published code does.
        parts: For each kind the sources that are mixed in it, in the order of the samples; by
            default a single one.
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
        self.seed, self.neighbours = seed, neighbours
        self._partners: Partners | None = None
        self.landscape = {kind: landscape[kind] for kind in self.schedule}
        self._rows_each = 1 if neighbours is None else 2
        self._each = batch_size // self._rows_each  # primary images of a step on this rank
        self._all = batch_size * world_size // self._rows_each  # and on all ranks
        self._first = rank * self._each
        self._steps, self._orders = {}, dict[Kind, Shuffled | Resampled]()
        for kind, own_landscape in self.landscape.items():
            own = (parts or {}).get(kind) or [EpochPart(len(own_landscape))]
            count = samples or len(own_landscape)
            self._steps[kind] = count // self._all
            if not self._steps[kind]:
                raise DataError(
                    f"{count} {kind} samples are fewer than one batch of {batch_size * world_size} "
                    "(train.batch_size times the number of ranks); use more data or a smaller batch"
                )
            self._orders[kind] = Resampled(own, seed) if replacement else Shuffled(own, count, seed)
            if kind == "composite" and images > 1:
                self._partners = Partners(own_landscape, own, images, partner_self)

    def kind(self, step: int) -> Kind:
        """Return the kind of a step, the same on every rank."""
        return self.schedule[step % len(self.schedule)]

    def steps_per_epoch(self) -> int:
        """Return floor(N / (W * B)) of the first kind's samples."""
        return self._steps[self.schedule[0]]

    def total(self) -> int:
        """Return the number of samples in all sources; with W * B it determines the order."""
        return sum({id(array): len(array) for array in self.landscape.values()}.values())

    def summary(self) -> str:
        """Return a short description of the data."""
        return f"{self.total():,} samples"

    def plan(self, step: int) -> BatchPlan:
        """Return what this rank loads at a step."""
        kind = self.kind(step)
        landscape = self.landscape[kind]
        epoch, place = divmod(step, self._steps[kind])
        start = place * self._all + self._first
        primaries = self._orders[kind].at(epoch, np.arange(start, start + self._each))
        rows = []
        for number, primary in enumerate(primaries.tolist(), self._first):
            slot = number * self._rows_each
            partners: tuple[int, ...] = ()
            if kind == "composite" and self._partners is not None:
                rng = generator(self.seed, "partners", step, slot)
                partners = self._partners.draw(primary, bool(landscape[primary]), rng)
            rows.append(BatchRow((primary, *partners), _orientation(landscape[primary]), slot))
            if self.neighbours is not None:
                rng = generator(self.seed, "hard_images", step, slot + 1)
                near = int(self.neighbours[primary, rng.integers(self.neighbours.shape[1])])
                rows.append(BatchRow((near,), _orientation(landscape[near]), slot + 1))
        return BatchPlan(step, kind, tuple(rows))


def _orientation(landscape: bool) -> Orientation:
    return "landscape" if landscape else "portrait"


class Shuffled:
    """An epoch without replacement: no sample repeats before its whole source has been used.

    Each epoch of `samples` contains a fixed number of samples from each source, proportional to its
    weight and rounded, in random order; they are numbered consecutively in the order of `parts`. A
    source runs through one seeded permutation after another, regardless of where epochs end.
    """

    def __init__(self, parts: Sequence[EpochPart], samples: int, seed: int) -> None:
        self.parts, self.samples, self.seed = tuple(parts), samples, seed
        self._first = np.cumsum([0, *(part.count for part in parts)])
        self.quotas = quotas([part.weight for part in parts], samples)
        self._ends = np.cumsum(self.quotas)
        self._permutations: dict[tuple[int, str, int], Permutation] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_permutations": {}}

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return sample numbers, int64 [n], for positions 0 to `samples` - 1 of an epoch."""
        if len(self.parts) == 1:
            return self._stream(0, epoch * self.samples + positions)
        mixed = self._permutation(self.samples, "mix", epoch).at(positions)
        owners = np.searchsorted(self._ends, mixed, side="right")
        found = np.empty(len(positions), dtype=np.int64)
        for number in np.unique(owners).tolist():
            mine, quota = owners == number, self.quotas[number]
            within = mixed[mine] - (int(self._ends[number]) - quota)
            found[mine] = self._stream(number, epoch * quota + within)
        return found

    def _stream(self, number: int, positions: np.ndarray) -> np.ndarray:
        """Return the samples at positions of a source's endless order."""
        count = self.parts[number].count
        passes, positions = np.divmod(positions, count)
        purpose = "epoch" if len(self.parts) == 1 else f"epoch/{number}"
        found = np.empty(len(positions), dtype=np.int64)
        for one in np.unique(passes).tolist():
            mine = passes == one
            found[mine] = self._permutation(count, purpose, one).at(positions[mine])
        return found + self._first[number]

    def _permutation(self, count: int, purpose: str, number: int) -> Permutation:
        key = (count, purpose, number)
        if key not in self._permutations:
            while len(self._permutations) >= _KEPT * (len(self.parts) + 1):
                del self._permutations[next(iter(self._permutations))]
            self._permutations[key] = Permutation(count, self.seed, purpose, number)
        return self._permutations[key]


class Resampled:
    """An epoch with replacement: a position draws a source by weight, then one of its samples."""

    def __init__(self, parts: Sequence[EpochPart], seed: int) -> None:
        self.seed = seed
        self._counts = np.array([part.count for part in parts], dtype=np.int64)
        self._first = np.cumsum([0, *self._counts])[:-1]
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        self._ends = np.cumsum(weights / weights.sum())[:-1]

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return sample numbers, int64 [n], for positions of an epoch."""
        keys = generator(self.seed, "resample", step=epoch).integers(2**64, size=2, dtype=np.uint64)
        hashes = (mix64(positions.astype(np.uint64), key) for key in keys)
        first, second = ((bits >> np.uint64(11)) * 2.0**-53 for bits in hashes)  # from [0, 1)
        owners = np.searchsorted(self._ends, first, side="right")
        return self._first[owners] + (second * self._counts[owners]).astype(np.int64)


def quotas(weights: Sequence[float], samples: int) -> list[int]:
    """Divide samples in proportion to weights; the largest remainders are rounded up."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * samples
    whole = np.floor(exact).astype(int)
    missing = samples - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole.tolist()


class Permutation:
    """A permutation of 0 to `count` - 1, a pure function of seed, purpose and number (the epoch).

    Beyond `TABLE` numbers it is a keyed Feistel network on Z_a x Z_b with a * b >= count, iterated
    until the result is below `count` (the generalised Feistel cipher with cycle walking of Black
    and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002), so that ten million samples
    cost the loader processes neither time nor memory.
    """

    def __init__(self, count: int, seed: int, purpose: str, number: int) -> None:
        self.count = count
        rng = generator(seed, purpose, step=number)
        self._table = rng.permutation(count) if count <= TABLE else None
        self._keys = rng.integers(2**64, size=ROUNDS, dtype=np.uint64)
        self._a = math.isqrt(count - 1) + 1 if count else 1
        self._b = -(-count // self._a)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers, int64 [n], at positions 0 to `count` - 1, int64 [n]."""
        if self._table is not None:
            return self._table[positions]
        found = self._cipher(positions.astype(np.uint64))
        while (outside := found >= self.count).any():
            found[outside] = self._cipher(found[outside])
        return found.astype(np.int64)

    def _cipher(self, numbers: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = numbers // b, numbers % b
        for round, key in enumerate(self._keys):
            if round % 2:
                right = (right + mix64(left, key) % b) % b
            else:
                left = (left + mix64(right, key) % a) % a
        return left * b + right


def mix64(numbers: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hash each number with a key to 64 bits (SplitMix64's finaliser)."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Partners:
    """Draws partners from all images of an orientation, each source by its weight.

    The arguments are those of `Sampler`, for one kind.

    Raises:
        DataError: An orientation has too few images.
    """

    def __init__(
        self, landscape: np.ndarray, parts: Sequence[EpochPart], images: int, partner_self: bool
    ) -> None:
        self.count, self.partner_self, self._mixed = images - 1, partner_self, len(parts) > 1
        self._sets = {True: SampleSet(landscape), False: SampleSet(~landscape)}
        ends = np.cumsum([0, *(part.count for part in parts)]).tolist()
        each = np.array([part.weight / max(part.count, 1) for part in parts])
        self._bounds, self._chances = {}, {}
        for which, found in self._sets.items():
            # The first member of each source, and the probability of each source if images of this
            # orientation are drawn by weight.
            self._bounds[which] = [found.place(end) for end in ends]
            chances = np.diff(self._bounds[which]) * each
            self._chances[which] = chances / chances.sum() if len(found) else chances
            if not partner_self and 0 < len(found) < images:
                raise DataError(
                    f"only {len(found)} image(s) of {_orientation(which)} orientation, too few for "
                    f"composites of {images}; drop them, or allow sampling.partner_self=true"
                )

    def draw(self, primary: int, landscape: bool, rng: np.random.Generator) -> tuple[int, ...]:
        """Return the partners of an image of an orientation."""
        members = self._sets[landscape]
        own = members.place(primary)
        if self._mixed:
            places = self._draw_mixed(landscape, () if self.partner_self else (own,), rng)
        elif self.partner_self:
            places = rng.integers(len(members), size=self.count).tolist()
        else:
            # Draw from all places but the primary's: those at or after it move up by one.
            drawn = rng.choice(len(members) - 1, size=self.count, replace=False)
            places = (drawn + (drawn >= own)).tolist()
        return tuple(members.nth(place) for place in places)

    def _draw_mixed(
        self, landscape: bool, taken: Sequence[int], rng: np.random.Generator
    ) -> list[int]:
        """Return distinct places in the set outside `taken`; if that is empty, they may repeat."""
        bounds, chances = self._bounds[landscape], self._chances[landscape]
        drawn: list[int] = []
        for _ in range(TRIES * self.count):
            number = int(rng.choice(len(chances), p=chances))
            place = int(rng.integers(bounds[number], bounds[number + 1]))
            if not taken or place not in (*taken, *drawn):
                drawn.append(place)
            if len(drawn) == self.count:
                return drawn
        # The source that is nearly always drawn has no other image, so take any.
        free = np.setdiff1d(np.arange(bounds[-1]), [*taken, *drawn])
        return [*drawn, *rng.choice(free, size=self.count - len(drawn), replace=False).tolist()]


class SampleSet:
    """The samples among 0 to N - 1 where `members`, bool [N], is True.

    It finds its k-th member and a member's rank with N / 8 bytes, so that ten million samples fit
    into each loader process.
    """

    def __init__(self, members: np.ndarray) -> None:
        self._bits = np.packbits(members)
        counts = [int(members[i : i + BLOCK].sum()) for i in range(0, len(members), BLOCK)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def nth(self, place: int) -> int:
        """Return the member at `place` of the set in ascending order."""
        block = int(np.searchsorted(self._starts, place, side="right")) - 1
        inside = np.flatnonzero(self._block(block))[place - int(self._starts[block])]
        return block * BLOCK + int(inside)

    def place(self, sample: int) -> int:
        """Return the number of members below `sample`."""
        block, rest = divmod(sample, BLOCK)
        if block >= len(self._starts) - 1:
            return len(self)
        return int(self._starts[block]) + int(self._block(block)[:rest].sum())

    def _block(self, block: int) -> np.ndarray:
        step = BLOCK // 8
        return np.unpackbits(self._bits[block * step : (block + 1) * step]).view(bool)
