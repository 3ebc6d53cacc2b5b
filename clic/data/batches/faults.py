"""Broken samples: they are replaced and counted, and too many of them end the run.

A substitute is a function of (seed, step, slot, place), so that batches depend neither on the
number of workers nor on where the run was resumed.
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

MOST_IN_A_ROW = 100  # broken samples for one place, after which the data count as broken
JUDGED_FROM = 1000  # samples
SHARDS_JUDGED_FROM = 100
SHOWN = 10  # faults that are printed
WARNED_FRACTION = 0.05  # of captions that are cut, of samples that lack tags
EARLY_FRACTION = 0.2  # of captions that are cut, of rows without a false caption: warned at once

_SENTENCES = "pack the data as sentences: clic-data pack --prepare-sentences"
_CUT = f"captions are longer than the text tower's context and are cut ({_SENTENCES})"
_SHORTENED = f"captions of composites leave out images that do not fit the context ({_SENTENCES})"
_NEGATIVES = {
    "stored": "captions.single_negative=mixture makes them",
    "swap": "captions.single_negative=replace or mixture finds more",
    "replace": "captions.single_negative=mixture with swap in captions.mixture finds more",
}


def substitutes(
    landscape: np.ndarray,
    required: bool | None,
    taken: Collection[int],
    seed: int,
    step: int,
    slot: int,
    place: int,
) -> Iterator[int]:
    """Yield an endless sequence of samples that may replace a broken one.

    Args:
        landscape: bool [N]: True for landscape, False for portrait.
        required: Orientation of the row's other images, as in `landscape`; None accepts any.
        taken: Samples of the row, which are not drawn again unless there are no others.
        seed: The run's seed.
        step: Global step.
        slot: Row of the global batch.
        place: Position of the sample in its row.
    """
    rng = generator(seed, f"substitute/{place}", step, slot)
    fitting = len(landscape) if required is None else int((landscape == required).sum())
    alone = fitting <= len(taken)
    while True:
        for index in rng.integers(len(landscape), size=64).tolist():
            if required is not None and bool(landscape[index]) != required:
                continue
            if alone or index not in taken:
                yield index


def first_usable(
    load: Callable[[int], T], index: int, others: Iterator[int]
) -> tuple[T, list[Fault]]:
    """Load a sample or its first intact substitute; return it and the faults of those before it.

    `load` reads and decodes a sample; it raises `DataError` or `OSError` if the sample is broken.

    Raises:
        DataError: So many in a row are broken that it cannot be chance.
        UnavailableError: A sample is temporarily unreachable. A substitute would make the batch
            differ from that of the same run with the sample.
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


def _warn(message: str) -> None:
    print(f"WARNING: {message}", file=sys.stderr)


def _listed(faults: list[Fault]) -> str:
    return "; ".join(f"number {number}: {reason}" for number, reason in faults[:SHOWN])


class FaultLog:
    """Counts the faults of a whole run over all ranks, warns about them, and ends a hopeless run.

    The ranks' counts are summed on `device`; `total` covers the run from its first step to the last
    `gather`.
    """

    def __init__(self, max_broken: float, device: torch.device) -> None:
        self.max_broken, self.device, self.total = max_broken, device, Tally()
        self._since = self._before = Tally()
        self._shown: list[Fault] = []
        self._warned: set[str] = set()
        self._seen: dict[str, tuple[int, int]] = {}

    def add(self, batch: Batch) -> None:
        """Count a batch of this rank, and print its faults if they are among the run's first."""
        self._before = self._since
        self._since += batch.tally
        for fault in batch.faults[: SHOWN - len(self._shown)]:
            sample = f"sample number {fault.number} replaced: " if fault.number >= 0 else ""
            _warn(f"{sample}{fault.reason}")
            self._shown.append(fault)
        if not distributed.is_main():
            return
        # Warn early, from this rank's batches alone, about data that make training pointless.
        tally = batch.tally
        self._warn_early(_CUT, tally.cut, tally.captions)
        self._warn_early(_SHORTENED, tally.shortened, tally.joined)
        if batch.negative_mask is not None:
            rows, kinds = len(batch.negative_mask), ", ".join(dict.fromkeys(batch.negative_kinds))
            # Composites have no other generator to recommend, if they have swaps at all.
            known = _NEGATIVES if batch.kind == "single" else {}
            remedy = known.get(kinds, "see what clic-data negatives makes of some captions")
            if 2 * tally.foreign > tally.no_negative:
                remedy = f"most captions are not in Latin script, and {FOREIGN}"
            what = f"{batch.kind} rows have no false caption"
            self._warn_early(what, tally.no_negative, rows, f" by {kinds} ({remedy})")

    def take_back(self) -> None:
        """Uncount the last batch, because its step will be repeated."""
        self._since = self._before

    def _warn_early(self, what: str, count: int, of: int, more: str = "") -> None:
        """Warn once if a fraction exceeds `EARLY_FRACTION` by three standard deviations."""
        seen, total = self._seen.get(what, (0, 0))
        seen, total = self._seen[what] = seen + count, total + of
        spread = math.sqrt(total * EARLY_FRACTION * (1 - EARLY_FRACTION))
        if seen > EARLY_FRACTION * total + 3 * spread:
            self._warn_once(what, seen / total, more)

    def gather(self) -> None:
        """Add up the counts of all ranks, which must all call this at the same step.

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
        judged = total.shards >= SHARDS_JUDGED_FROM
        if judged and total.broken_shards > self.max_broken * total.shards:
            raise DataError(
                f"{total.broken_shards} of {total.shards} shards were given up, more than "
                f"data.max_broken={self.max_broken} allows; mend or drop them, or raise it: "
                f"{_listed(self._shown) or 'see the other ranks'}"
            )
        for what, count, of in (
            (_CUT, total.cut, total.captions),
            (_SHORTENED, total.shortened, total.joined),
            ("samples lack stored tags of their own", total.retagged, total.samples),
        ):
            if of >= JUDGED_FROM and count > WARNED_FRACTION * of:
                self._warn_once(what, count / of)

    def _warn_once(self, what: str, fraction: float, more: str = "") -> None:
        if what not in self._warned and distributed.is_main():
            _warn(f"{fraction:.0%} of the {what}{more}")
        self._warned.add(what)

    def record(self) -> dict[str, float]:
        """Return the counts since the start of the run, for the metrics."""
        total = self.total
        shards = {"data/shards": total.shards, "data/broken_shards": total.broken_shards}
        return {
            **(shards if total.shards else {}),
            "data/samples": total.samples,
            "data/broken": total.broken,
            "data/no_negative": total.no_negative,
            "data/retagged": total.retagged,
            "data/cut_captions": total.cut / max(total.captions, 1),
            "data/shortened_captions": total.shortened / max(total.joined, 1),
        }
