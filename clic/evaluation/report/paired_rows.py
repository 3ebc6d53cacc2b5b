"""The observations behind a bootstrap interval, gathered from the outcomes of rows.

A *unit* is resampled as a whole: a row, an image with its captions in retrieval, or a set of rows.
A *series* holds the observations of one number, which is the percentage of its series or a mean of
such percentages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from clic.evaluation.tables import kind_of
from clic.evaluation.tables.table import NumberPath, Row

Path = NumberPath
# What a row is about, whatever the model: two models' rows are pairs where these are equal.
SUBJECT = (
    "category", "task", "direction", "image", "images", "caption", "captions", "target", "sets",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Series:
    """One number's observations.

    Attributes:
        unit: int64 [n], the unit each belongs to.
        right: bool [n].
    """

    unit: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class Observed:
    """What one model did on one benchmark.

    Attributes:
        units: Number of units U.
        series: Observations by number; those of classes, which are no numbers of a report, too.
        means: Numbers that are the unweighted mean of others.
        digest: Equal for models that were scored on the same rows in the same order.
    """

    units: int
    series: dict[Path, Series]
    means: dict[Path, tuple[Path, ...]]
    digest: str

    def value(self, path: Path) -> float:
        """Return a number in percent, as the report has it."""
        if path in self.means:
            return sum(map(self.value, self.means[path])) / len(self.means[path])
        right = self.series[path].right
        return 100 * int(right.sum()) / len(right)

    def has(self, path: Path) -> bool:
        """Return whether the rows hold what a number is made of."""
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


@dataclass
class _Gathered:
    """Series while they are gathered; units are numbered as they appear."""

    units: dict[Hashable, int] = field(default_factory=dict)
    unit: dict[Path, list[int]] = field(default_factory=dict)
    right: dict[Path, list[bool]] = field(default_factory=dict)
    hashed: Any = field(default_factory=hashlib.sha256)

    def add(self, path: Path, unit: Hashable, right: bool) -> None:
        number = self.units.setdefault(unit, len(self.units))
        self.unit.setdefault(path, []).append(number)
        self.right.setdefault(path, []).append(right)

    def done(self, means: dict[Path, tuple[Path, ...]]) -> Observed:
        series = {
            path: Series(np.array(unit, dtype=np.int64), np.array(self.right[path], dtype=bool))
            for path, unit in self.unit.items()
        }
        return Observed(len(self.units), series, means, self.hashed.hexdigest())


def observe(rows: Iterable[Row], form: Mapping[str, Any], source: Mapping[str, Any]) -> Observed:
    """Return one benchmark's outcomes.

    Args:
        rows: As `BenchmarkTable.outcomes` yields them and `clic-eval --rows` writes them.
        form: The benchmark's numbers.
        source: Its entry in the provenance: `groups`, the categories of each macro mean, and
            `overall`, the name under which all rows stand as one, where there is one.
    """
    gathered = _Gathered()
    rows = iter(rows)
    first = next(rows)
    kind, rows = kind_of(first), chain([first], rows)
    for observation in kind.observations(_hashed(rows, gathered.hashed), form, source):
        gathered.add(*observation)
    return gathered.done(kind.means(gathered.unit, form, source))


def _hashed(rows: Iterable[Row], hashed: Any) -> Iterator[Row]:
    """Yield the rows while their subjects are hashed."""
    for row in rows:
        hashed.update(_subject(row))
        yield row


def _subject(row: Row) -> bytes:
    subject = {key: row[key] for key in SUBJECT if key in row}
    return json.dumps(subject, sort_keys=True).encode() + b"\n"
