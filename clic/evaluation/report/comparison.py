"""Differences between models, with paired bootstrap intervals.

The intervals are the percentile intervals of Efron and Tibshirani, An Introduction to the Bootstrap
(1993), section 13.3. They are paired: a resample draws units (usually rows) and uses the outcomes
of all models on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from clic.errors import DataError
from clic.evaluation.report.paired_rows import Observed, Path, leaves, observe
from clic.evaluation.report.report import Report, mean_names
from clic.evaluation.report.significance import ALPHA, NOTE, corrected, p_values
from clic.seeding import generator

RESAMPLES = 10_000
LEVEL = 95
SEED = 0
# Numbers in memory at a time while resampling: some tens of megabytes.
BLOCK = 1 << 21
MUST_AGREE = ("version", "sha256")
TOLERANCE = 1e-9  # percentage points: sums may be taken in another order


class Ends(NamedTuple):
    """The ends of the interval of a model's own number, in percent."""

    low: float
    high: float


class Interval(NamedTuple):
    """A difference to the first model and the ends of its interval, in percentage points."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The differences of models to the first one.

    Attributes:
        names: The models; the others are compared with the first.
        intervals: By benchmark and number, one for each of the other models.
        resamples: Number of resamples.
        seed: Seed of the resamples.
        p_values: By benchmark and number, one for each of the other models, corrected by Holm over
            the categories of a metric.
        levels: By benchmark and number, the ends of the interval of each model's own number.
    """

    names: tuple[str, ...]
    intervals: dict[str, dict[Path, list[Interval]]]
    resamples: int = RESAMPLES
    seed: int = SEED
    p_values: dict[str, dict[Path, list[float]]] = field(default_factory=dict)
    levels: dict[str, dict[Path, list[Ends]]] = field(default_factory=dict)

    def get(self, bench: str, path: Path, index: int) -> Interval | None:
        """Return the interval of the model with this index, or None."""
        found = self.intervals.get(bench, {}).get(path)
        return found[index - 1] if found and index else None

    def p_value(self, bench: str, path: Path, index: int) -> float | None:
        """Return the corrected p-value of the model with this index, or None."""
        found = self.p_values.get(bench, {}).get(path)
        return found[index - 1] if found and index else None

    def level(self, bench: str, path: Path, index: int) -> Ends | None:
        """Return the interval of the number of the model with this index, or None."""
        found = self.levels.get(bench, {}).get(path)
        return found[index] if found else None

    def differs(self, bench: str, path: Path, index: int) -> bool:
        """Return whether the model's difference to the first one is marked as significant."""
        p = self.p_value(bench, path, index)
        return p is not None and p < ALPHA

    def to_dict(self) -> dict[str, Any]:
        """Return the value of `comparison` in the JSON of several reports."""
        listed = [
            {
                "benchmark": bench,
                **({"category": name, "metric": metric} if metric else {"measure": name}),
                "model": self.names[index],
                **interval._asdict(),
                "p": self.p_value(bench, (name, metric), index),
            }
            for bench, numbers in self.intervals.items()
            for (name, metric), found in numbers.items()
            for index, interval in enumerate(found, start=1)
        ]
        return {
            "first": self.names[0],
            "method": "paired bootstrap, percentile interval",
            "level": LEVEL,
            "p": "two-sided, of the same resamples, Holm over the categories of a metric",
            "resamples": self.resamples,
            "seed": self.seed,
            "differences": listed,
        }


def interval_note(comparison: Comparison) -> str:
    """Return a sentence on how the intervals were computed."""
    return (
        f"Differences to {comparison.names[0]} in percentage points; in brackets the paired "
        f"bootstrap {LEVEL} % interval (percentile method, {comparison.resamples:,} resamples, "
        f"seed {comparison.seed}). {NOTE}"
    )


def compare(
    reports: Sequence[Report],
    observed: Sequence[Mapping[str, Observed]] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    advance: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Return every number's difference to the first model, with its 95 % interval.

    Args:
        reports: At least two models' numbers.
        observed: Each model's outcomes by benchmark, see `observe_report`; by default they are
            taken from the reports' rows.
        resamples: Number of resamples.
        seed: Seed of the resamples; each benchmark has its own generator.
        advance: Called after each benchmark.

    Raises:
        DataError: Two models were not scored on the same rows of the same version.
    """
    if observed is None:
        observed = [observe_report(report) for report in reports]
    names = [name for name in reports[0].benchmarks if all(name in r.benchmarks for r in reports)]
    made = Comparison(tuple(report.name for report in reports), {}, resamples, seed)
    for name in names:
        own = [one[name] for one in observed]
        check_pairs(name, reports, own)
        paths = [p for p in leaves(reports[0].benchmarks[name]) if all(one.has(p) for one in own)]
        drawn = resample(own, paths, generator(seed, f"bootstrap/{name}"), resamples)
        made.intervals[name] = _differences(own, paths, drawn)
        source = reports[0].provenance.get("benchmarks", {}).get(name, {})
        uncorrected = p_values(drawn[:, :, 1:] - drawn[:, :, :1])
        made.p_values[name] = corrected(paths, uncorrected, mean_names(source))
        made.levels[name] = _levels(paths, drawn)
        advance(1)
    return made


def observe_report(report: Report) -> dict[str, Observed]:
    """Return the outcomes of a report that kept its rows, by benchmark.

    Raises:
        DataError: The rows do not yield the report's numbers.
    """
    found: dict[str, Observed] = {}
    sources = report.provenance.get("benchmarks", {})
    for bench, rows in groupby(report.rows, key=lambda row: str(row["benchmark"])):
        try:
            found[bench] = observe(rows, report.benchmarks[bench], sources.get(bench, {}))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"a row of {report.name} on {bench} is not as this version writes it ({error}); "
                "score the model again"
            ) from error
    for bench, form in report.benchmarks.items():
        if bench not in found:
            raise DataError(f"there are no rows of {report.name} on {bench}; score it again")
        _check(report.name, bench, form, found[bench])
    return found


def _check(name: str, bench: str, form: dict[str, Any], observed: Observed) -> None:
    """Raise `DataError` if the rows do not yield the numbers of their report."""
    for path, value in leaves(form).items():
        if observed.has(path) and abs(observed.value(path) - value) > TOLERANCE:
            raise DataError(
                f"the rows of {name} do not belong to its report: {bench} "
                f"{' '.join(filter(None, path))} is {observed.value(path):.2f} by the rows and "
                f"{value:.2f} by the report; write both files again"
            )


def check_pairs(bench: str, reports: Sequence[Report], observed: Sequence[Observed]) -> None:
    """Check that all models were scored on the same rows.

    Raises:
        DataError: The benchmark's version or content, or the rows that were scored, differ.
    """
    sources = [report.provenance.get("benchmarks", {}).get(bench, {}) for report in reports]
    first = reports[0].name
    for report, source, one in zip(reports[1:], sources[1:], observed[1:], strict=True):
        for key in MUST_AGREE:
            if source.get(key) != sources[0].get(key):
                raise DataError(
                    f"{bench}: {first} and {report.name} were scored on different data ({key} "
                    f"{_short(sources[0].get(key))} and {_short(source.get(key))}); score both "
                    "with one version of the files, one --split and one --seed"
                )
        if one.digest != observed[0].digest:
            counts = [
                f"{s.get('rows')} of {s.get('rows_of_the_whole')}" for s in (sources[0], source)
            ]
            raise DataError(
                f"{bench}: {first} and {report.name} were scored on different rows ({counts[0]} "
                f"and {counts[1]}); score both on the same images"
            )


def _short(value: object) -> str:
    return str(value)[:12]


def bootstrap(
    models: Sequence[Observed],
    paths: Sequence[Path],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[Path, list[Interval]]:
    """Return each number's differences to the first model with their percentile intervals.

    A resample draws as many units as there are, with replacement, within strata: the units that
    contribute to the same numbers. Rows in categories are thus drawn within their category, whose
    size never changes. Units with the same outcomes for all models are exchangeable, so a
    multinomial draw gives their counts in a resample.

    Args:
        models: M models' outcomes, on the same units.
        paths: The numbers.
        generator: Random generator.
        resamples: Number of resamples R.
    """
    return _differences(models, paths, resample(models, paths, generator, resamples))


def _differences(
    models: Sequence[Observed], paths: Sequence[Path], values: np.ndarray
) -> dict[Path, list[Interval]]:
    """Return each number's differences and intervals from the numbers of all resamples."""
    low, high = _quantiles(values[:, :, 1:] - values[:, :, :1])
    return {
        path: [
            Interval(model.value(path) - models[0].value(path), float(low[i, m]), float(high[i, m]))
            for m, model in enumerate(models[1:])
        ]
        for i, path in enumerate(paths)
    }


def _levels(paths: Sequence[Path], values: np.ndarray) -> dict[Path, list[Ends]]:
    """Return the interval of each number and model from the numbers of all resamples."""
    low, high = _quantiles(values)
    models = range(values.shape[2])
    return {
        path: [Ends(float(low[i, m]), float(high[i, m])) for m in models]
        for i, path in enumerate(paths)
    }


def _quantiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not values.shape[2]:  # a single model has no differences
        return np.empty(values.shape[1:]), np.empty(values.shape[1:])
    tail = (100 - LEVEL) / 200
    # NaN: if units span categories, a resample may miss a rare category entirely.
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return low, high


def resample(
    models: Sequence[Observed],
    paths: Sequence[Path],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Return float64 [R, numbers, M]: the numbers of each model in each resample, in percent.

    All models share the same resamples. The arguments are those of `bootstrap`. A number is NaN in
    a resample that misses its category.
    """
    series = [path for path in models[0].series if all(path in one.series for one in models)]
    strata = _strata(models, series)
    columns = len(series) * (1 + len(models))
    widest = max(len(stratum.counts) for stratum in strata)
    block = max(1, min(resamples, BLOCK // (widest + 2 * columns)))
    parts = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        sums = np.zeros((size, columns))
        for stratum in strata:
            total = int(stratum.counts.sum())
            drawn = generator.multinomial(total, stratum.counts / total, size=size)
            sums[:, stratum.columns] += drawn @ stratum.patterns
        parts.append(_values(models, paths, series, sums))
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Stratum:
    """The units that contribute to the same K series, as distinct patterns with their counts.

    Attributes:
        counts: int64 [P].
        patterns: float64 [P, K * (1 + M)]: the number of observations in each of the K series,
            then for each model the number of right ones.
        columns: int64 [K * (1 + M)], their columns among the sums over all S series.
    """

    counts: np.ndarray
    patterns: np.ndarray
    columns: np.ndarray


def _strata(models: Sequence[Observed], series: Sequence[Path]) -> list[_Stratum]:
    contributes: list[list[int]] = [[] for _ in range(models[0].units)]
    for s, path in enumerate(series):
        for unit in np.unique(models[0].series[path].unit).tolist():
            contributes[unit].append(s)
    members: dict[tuple[int, ...], list[int]] = {}
    for unit, mine in enumerate(contributes):
        members.setdefault(tuple(mine), []).append(unit)
    return [
        _stratum(models, series, np.array(mine), np.array(units)) for mine, units in members.items()
    ]


def _stratum(
    models: Sequence[Observed], series: Sequence[Path], mine: np.ndarray, units: np.ndarray
) -> _Stratum:
    position = np.full(models[0].units, -1)
    position[units] = np.arange(len(units))

    def count(unit: np.ndarray) -> np.ndarray:
        local = position[unit]
        return np.bincount(local[local >= 0], minlength=len(units))

    parts = [count(models[0].series[series[s]].unit) for s in mine]
    for model in models:
        own = [model.series[series[s]] for s in mine]
        parts += [count(one.unit[one.right]) for one in own]
    patterns, counts = np.unique(np.stack(parts, 1), axis=0, return_counts=True)
    columns = np.concatenate([mine + len(series) * m for m in range(1 + len(models))])
    return _Stratum(counts, patterns.astype(np.float64), columns)


def _values(
    models: Sequence[Observed], paths: Sequence[Path], series: Sequence[Path], sums: np.ndarray
) -> np.ndarray:
    """Return [block, numbers, M]: each model's numbers in each resample."""
    S = len(series)
    seen = sums[:, :S]
    column = {path: s for s, path in enumerate(series)}

    def percent(path: Path, m: int) -> np.ndarray:
        if path in models[0].means:
            of = models[0].means[path]
            return np.mean([percent(part, m) for part in of], axis=0)
        s = column[path]
        with np.errstate(invalid="ignore"):
            return 100 * sums[:, S * (1 + m) + s] / seen[:, s]

    everyone = range(len(models))
    return np.stack([np.stack([percent(path, m) for m in everyone], 1) for path in paths], 1)
