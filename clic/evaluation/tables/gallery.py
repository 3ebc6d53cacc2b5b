"""The worst failures of a model: the rows it got wrong by the widest margin, with their images."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from clic.evaluation.report.report import Report
from clic.evaluation.tables import kind_of
from clic.evaluation.tables.failure_cards import Failure
from clic.evaluation.tables.table import BenchmarkTable, Row

LIMIT = 24  # failures of a benchmark


@dataclass(frozen=True, eq=False)
class Worst:
    """What a model got wrong in one benchmark.

    Attributes:
        failures: The worst ones, the worst first.
        right: bool [N], the rows whose margin is above 0.
    """

    failures: list[Failure]
    right: np.ndarray


def worst(report: Report, limit: int = LIMIT) -> dict[str, Worst]:
    """Return each benchmark's worst failures.

    Args:
        report: With its rows, and with its tables if images are to be shown.
        limit: Failures of a benchmark; retrieval has half of them for each direction.
    """
    found = {}
    for bench, rows in groupby(report.rows, key=lambda row: row["benchmark"]):
        table = report.tables.get(bench)
        chosen, right = _choose(rows, limit)
        found[bench] = Worst([_failure(row, number, table) for number, row in chosen], right)
    return found


def margin(row: Row) -> float:
    """Return by how much the row's narrowest comparison was won; 0 or less is wrong.

    In cosines: triplets by ITT, or by TOT without an image; two images and two captions by every
    comparison of the benchmark's strictest metric. Retrieval: 1.5 less the rank.
    """
    return min(kind_of(row).margins(row).values())


def _failure(row: Row, number: int, table: BenchmarkTable | None) -> Failure:
    failure = kind_of(row).failure(row, number)
    return failure if table is None else table.illustrate(failure)


def _choose(rows: Iterable[dict[str, Any]], limit: int) -> tuple[list[tuple[int, Row]], np.ndarray]:
    """Return the wrong rows of the lowest margins, and for every row whether it is right."""
    heaps: dict[str, list[tuple[float, int, Row]]] = {}
    right: list[bool] = []
    for number, row in enumerate(rows):
        how_wrong = -margin(row)
        right.append(how_wrong < 0)
        if how_wrong >= 0:
            heap = heaps.setdefault(row.get("direction", ""), [])
            entry = (how_wrong, -number, row)
            (heapq.heappush if len(heap) < limit else heapq.heappushpop)(heap, entry)
    each = max(1, limit // max(1, len(heaps)))
    chosen = [
        (-minus_number, row)
        for heap in heaps.values()
        for _, minus_number, row in sorted(heap, key=lambda entry: entry[:2], reverse=True)[:each]
    ]
    return chosen, np.array(right, dtype=bool)
