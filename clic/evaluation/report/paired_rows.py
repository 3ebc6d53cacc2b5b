"""The observations behind a bootstrap interval, gathered from the outcomes of rows.

A *unit* is resampled as a whole: a row, an image with its captions in retrieval, or a set of rows.
A *series* holds the observations of one number, which is the percentage of its series or a mean of
such percentages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Path = tuple[str, str]
"""A number's place in a report: (category, metric), or (name, "") where there are no categories."""
Row = Mapping[str, Any]

DIRECTIONS = ("image_to_text", "text_to_image")
PER_CLASS = "mean_per_class"
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
        rows: As `scoring.rows` gives them and `clic-eval --rows` writes them.
        form: The benchmark's numbers.
        source: Its entry in the provenance: `groups`, the categories of each macro mean, and
            `overall`, the name under which all rows stand as one, where there is one.
    """
    gathered = _Gathered()
    classes: dict[str, dict[Path, None]] = {}
    sets = _Sets(source.get("overall"))
    for number, row in enumerate(rows):
        gathered.hashed.update(_subject(row))
        if "direction" in row:
            _add_query(gathered, row, form)
        elif "task" in row:
            _add_image(gathered, row, number, form, classes)
        else:
            _add_row(gathered, row, number, source.get("overall"), sets)
    sets.add_to(gathered)
    means = {(name, ""): tuple(of) for name, of in classes.items()}
    groups = source.get("groups") or {}
    return gathered.done({**means, **_group_means(groups, gathered.unit)})


def _subject(row: Row) -> bytes:
    subject = {key: row[key] for key in SUBJECT if key in row}
    return json.dumps(subject, sort_keys=True).encode() + b"\n"


def _add_query(gathered: _Gathered, row: Row, form: Mapping[str, Any]) -> None:
    """Add a query of retrieval: an image and all its captions are one unit."""
    for name in form:
        direction, _, k = name.partition("@")
        if direction == row["direction"] and k.isdigit():
            gathered.add((name, ""), row["image"], row["rank"] <= int(k))


def _add_image(
    gathered: _Gathered,
    row: Row,
    number: int,
    form: Mapping[str, Any],
    classes: dict[str, dict[Path, None]],
) -> None:
    """Add a classified image; where a mean over classes is reported, to its class too."""
    task, right = row["task"], bool(row["right"])
    gathered.add((task, ""), number, right)
    for name in (PER_CLASS, f"{task}_{PER_CLASS}"):
        if name in form:
            path = (f"{task}: {row['target']}", "class")
            gathered.add(path, number, right)
            classes.setdefault(name, {})[path] = None


class _Sets:
    """Sets of rows, each right if all its rows are: within a category, and over all of them."""

    def __init__(self, overall: str | None) -> None:
        self.overall = overall
        self.right: dict[Path, dict[int, bool]] = {}

    def add(self, row: Row) -> None:
        """Note a row's outcome for its sets."""
        for metric, number in row.get("sets", {}).items():
            for category in filter(None, (row["category"], self.overall)):
                right = self.right.setdefault((category, metric), {})
                right[number] = right.get(number, True) and row["accuracy"]

    def add_to(self, gathered: _Gathered) -> None:
        """Add each set as an observation of its own unit."""
        for (category, metric), right in self.right.items():
            for number, whole in right.items():
                gathered.add((category, metric), ("set", number), whole)


def _add_row(gathered: _Gathered, row: Row, number: int, overall: str | None, sets: _Sets) -> None:
    """Add a row with its metrics to its category; the rows of a set are one unit."""
    member: Sequence[int] = [*row.get("sets", {}).values()]
    unit = ("set", member[0]) if member else number
    for metric, right in row.items():
        if isinstance(right, bool):
            gathered.add((row["category"], metric), unit, right)
            if overall is not None:
                gathered.add((overall, metric), unit, right)
    sets.add(row)


def _group_means(
    groups: Mapping[str, Sequence[str]], known: Iterable[Path]
) -> dict[Path, tuple[Path, ...]]:
    """Return the macro means over categories, of the metrics that all of them have."""
    metrics: dict[str, dict[str, None]] = {}
    for category, metric in known:
        metrics.setdefault(category, {})[metric] = None
    return {
        (name, metric): tuple((category, metric) for category in of)
        for name, of in groups.items()
        for metric in metrics.get(next(iter(of), ""), {})
        if all(metric in metrics.get(category, {}) for category in of)
    }
