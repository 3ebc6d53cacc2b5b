"""The observations behind a bootstrap interval, gathered from the outcomes of rows.

A *unit* is resampled as a whole: a row, a set of rows, or in retrieval an image with its captions.
A *series* contains the observations of one number. A reported number is the percentage of its
series, or a mean of such percentages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from clic.evaluation.tables import kind_of
from clic.evaluation.tables.table import NumberPath, Row

Path = NumberPath
# What a row is about, for any model: two models' rows are paired if these keys are equal.
SUBJECT = (
    "category", "task", "direction", "image", "images", "caption", "captions", "target", "sets",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Series:
    """One number's observations.

    Attributes:
        unit: int64 [n], the unit of each observation.
        right: bool [n], whether the model was right.
    """

    unit: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class Observed:
    """The outcomes of one model on one benchmark.

    Attributes:
        units: Number of units U.
        series: Observations by number, including those of single classes, which no report shows.
        means: Numbers that are unweighted means of others.
        digest: Equal for models that were scored on the same rows in the same order.
    """

    units: int
    series: dict[Path, Series]
    means: dict[Path, tuple[Path, ...]]
    digest: str

    def value(self, path: Path) -> float:
        """Return a number in percent, as in the report."""
        if path in self.means:
            return sum(map(self.value, self.means[path])) / len(self.means[path])
        right = self.series[path].right
        return 100 * int(right.sum()) / len(right)

    def has(self, path: Path) -> bool:
        """Return whether a number can be computed from the rows."""
        return path in self.series or path in self.means


def leaves(form: Mapping[str, Any]) -> dict[Path, float]:
    """Return a benchmark's percentages by their place, in the report's order."""
    found: dict[Path, float] = {}
    for name, value in form.items():
        if isinstance(value, Mapping):
            found.update({(name, metric): v for metric, v in value.items() if metric != "n"})
        elif not name.startswith("n_"):
            found[(name, "")] = value
    return found


def observe(rows: Iterable[Row], form: Mapping[str, Any], source: Mapping[str, Any]) -> Observed:
    """Return one benchmark's outcomes.

    Args:
        rows: As `BenchmarkTable.outcomes` yields them and `clic-eval --rows` writes them.
        form: The benchmark's numbers.
        source: Its entry in the provenance: `groups`, the categories of each macro mean, and
            `overall`, the name under which all rows are reported as one category, if any.
    """
    rows = iter(rows)
    first = next(rows)
    kind = kind_of(first)
    units: dict[Hashable, int] = {}  # numbered as they appear
    found: dict[Path, tuple[list[int], list[bool]]] = {}
    hashed = hashlib.sha256()

    def hashed_rows() -> Iterator[Row]:
        for row in chain([first], rows):
            hashed.update(_subject(row))
            yield row

    for path, unit, right in kind.observations(hashed_rows(), form, source):
        own_units, outcomes = found.setdefault(path, ([], []))
        own_units.append(units.setdefault(unit, len(units)))
        outcomes.append(right)
    series = {
        path: Series(np.array(own_units, dtype=np.int64), np.array(outcomes, dtype=bool))
        for path, (own_units, outcomes) in found.items()
    }
    return Observed(len(units), series, kind.means(found, form, source), hashed.hexdigest())


def _subject(row: Row) -> bytes:
    subject = {key: row[key] for key in SUBJECT if key in row}
    return json.dumps(subject, sort_keys=True).encode() + b"\n"
