"""Samples that cannot be used: another takes their place, they are counted, too many end the run.

A substitute is a function of (seed, step, slot, place), so batches stay one whatever the number of
workers and wherever the run was resumed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import astuple
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch

from clic import distributed
from clic.captions.negatives import FOREIGN
from clic.errors import DataError, UnavailableError
from clic.seeding import generator
from clic.types import Batch, Fault, Tally

T = TypeVar("T")

MOST_IN_A_ROW = 100  # broken samples for one place, before the data are taken for broken as a whole
JUDGED_FROM = 1000  # samples
SHOWN = 10  # faults that are printed
WARNED_SHARE = 0.05  # of captions that are cut, of samples that are tagged anew
LARGE_SHARE = 0.2  # of captions that are cut, of rows without a false caption: told at the start

_SENTENCES = "pack the data as sentences: clic-data pack --prepare-sentences"
_CUT = f"captions are longer than the text tower's context and are cut ({_SENTENCES})"
_SHORTENED = (
    f"captions of composites leave images out, for which the context has no room ({_SENTENCES})"
)
_NEGATIVES = {
    "stored": "captions.single_negative=mixture makes them",
    "swap": "captions.single_negative=replace or mixture finds more",
    "replace": "captions.single_negative=mixture with swap in captions.mixture finds more",
}


def substitutes(
    wide: np.ndarray,
    landscape: bool | None,
    taken: Collection[int],
    seed: int,
    step: int,
    slot: int,
    place: int,
) -> Iterator[int]:
    """Yield samples that may stand in for a broken one, without end.

    Args:
        wide: bool [N], whether each image counts as landscape.
        landscape: Orientation that the others of the row have; None takes any.
        taken: Samples of the row, which are not drawn again where there are others.
        seed: The run's seed.
        step: Global step.
        slot: Row of the global batch.
        place: Place of the sample in its row.
    """
    rng = generator(seed, f"substitute/{place}", step, slot)
    pool = len(wide) if landscape is None else int((wide == landscape).sum())
    alone = pool <= len(taken)
    while True:
        for index in rng.integers(len(wide), size=64).tolist():
            if landscape is not None and bool(wide[index]) != landscape:
                continue
            if alone or index not in taken:
                yield index


def first_usable(
    load: Callable[[int], T], index: int, others: Iterator[int]
) -> tuple[T, list[Fault]]:
    """Return what `load` makes of a sample, or of the first substitute that is whole.

    Args:
        load: Reads and decodes a sample, raises `DataError` or `OSError` where it is broken.
        index: The sample asked for.
        others: Its substitutes.

    Returns:
        The sample and the faults of those before it.

    Raises:
        DataError: So many in a row are broken that it can be no chance.
        UnavailableError: A sample cannot be had just now; another would make another batch than
            the run has when all is well.
    """
    faults: list[Fault] = []
    for candidate in chain([index], islice(others, MOST_IN_A_ROW)):
        try:
            return load(candidate), faults
        except UnavailableError:
            raise
        except (DataError, OSError) as error:
            faults.append(Fault(candidate, " ".join(str(error).split())))
    raise DataError(f"{len(faults)} samples in a row are broken: {_listed(faults)}; mend the data")


def _listed(faults: list[Fault]) -> str:
    return "; ".join(f"number {number}: {reason}" for number, reason in faults[:SHOWN])


class FaultLog:
    """Counts over a whole run and all ranks what its batches met, and says when it is too much.

    Args:
        max_broken: Share of samples that may be broken.
        device: Where the ranks' counts are added.

    Attributes:
        total: Counts from the run's first step on, as of the last `gather`.
    """

    def __init__(self, max_broken: float, device: torch.device) -> None:
        self.max_broken, self.device, self.total = max_broken, device, Tally()
        self._since = Tally()
        self._shown: list[Fault] = []
        self._warned: set[str] = set()
        self._seen: dict[str, tuple[int, int]] = {}

    def add(self, batch: Batch) -> None:
        """Take up a batch of this rank; its faults are printed, the first few of the run."""
        self._since += batch.tally
        for fault in batch.faults[: SHOWN - len(self._shown)]:
            print(
                f"WARNING: sample number {fault.number} replaced: {fault.reason}", file=sys.stderr
            )
            self._shown.append(fault)
        if distributed.is_main():
            self._look(batch)

    def _look(self, batch: Batch) -> None:
        """Tell early of what makes training pointless, from what this rank alone has seen."""
        tally = batch.tally
        self._warn_early(_CUT, tally.cut, tally.captions)
        self._warn_early(_SHORTENED, tally.shortened, tally.joined)
        if batch.negative_mask is not None:
            rows, kinds = len(batch.negative_mask), ", ".join(dict.fromkeys(batch.negative_kinds))
            remedy = _NEGATIVES.get(kinds, "see what clic-data negatives makes of some captions")
            if 2 * tally.foreign > tally.no_negative:
                remedy = f"most captions are not in Latin script, and {FOREIGN}"
            what = f"{batch.kind} rows have no false caption"
            self._warn_early(what, tally.no_negative, rows, f" by {kinds} ({remedy})")

    def _warn_early(self, what: str, count: int, of: int, more: str = "") -> None:
        """Tell once of a share that is surely large, by three standard deviations of a count."""
        seen, total = self._seen.get(what, (0, 0))
        seen, total = self._seen[what] = seen + count, total + of
        spread = math.sqrt(total * LARGE_SHARE * (1 - LARGE_SHARE))
        if what not in self._warned and seen > LARGE_SHARE * total + 3 * spread:
            self._warned.add(what)
            print(f"WARNING: {seen / total:.0%} of the {what}{more}", file=sys.stderr)

    def gather(self) -> None:
        """Add up what every rank has met; each has to call it at the same step.

        Raises:
            DataError: Too many samples are broken.
        """
        counts = torch.tensor(astuple(self._since), dtype=torch.int64, device=self.device)
        self.total += Tally(*distributed.all_reduce_sum(counts).tolist())
        self._since = Tally()
        total = self.total
        if total.samples >= JUDGED_FROM and total.broken > self.max_broken * total.samples:
            raise DataError(
                f"{total.broken} of {total.samples} samples are broken, more than "
                f"data.max_broken={self.max_broken} allows; mend or drop them, or raise it: "
                f"{_listed(self._shown) or 'see the other ranks'}"
            )
        self._warn(_CUT, total.cut, total.captions)
        self._warn(_SHORTENED, total.shortened, total.joined)
        self._warn("samples lack stored tags of their own", total.retagged, total.samples)

    def _warn(self, what: str, count: int, of: int) -> None:
        """Tell once of something that a large share of the data has."""
        if of < JUDGED_FROM or count <= WARNED_SHARE * of or what in self._warned:
            return
        self._warned.add(what)
        if distributed.is_main():
            print(f"WARNING: {count / of:.0%} of the {what}", file=sys.stderr)

    def record(self) -> dict[str, float]:
        """Return the counts since the run began, for the metrics."""
        total = self.total
        return {
            "data/samples": total.samples,
            "data/broken": total.broken,
            "data/no_negative": total.no_negative,
            "data/retagged": total.retagged,
            "data/cut_captions": total.cut / max(total.captions, 1),
            "data/shortened_captions": total.shortened / max(total.joined, 1),
        }
