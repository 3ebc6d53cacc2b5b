"""The rule that chooses an alpha of a sweep, and how certain that choice is.

Among the alphas that lose at most `max_drop` points against alpha 0 on every preserved benchmark
(retrieval, classification), the rule takes the one with the largest composed number, the mean over
the compositional benchmarks; of equal ones, the smallest alpha.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from clic.errors import ConfigError
from clic.evaluation.evaluation_plan import Prepared
from clic.evaluation.report.comparison import LEVEL, resample
from clic.evaluation.report.paired_rows import Observed, leaves
from clic.evaluation.tables import Classification, Retrieval
from clic.evaluation.tables.table import NumberPath
from clic.seeding import generator

RESAMPLES = 2000
SEED = 0
METRICS = ("itt", "group", "p1", "tot")
"""A compositional benchmark counts by the first of these numbers that it has."""
_SAME = 1e-9  # points, to allow for sums taken in another order


@dataclass(frozen=True)
class Measure:
    """What a benchmark contributes: the mean of some of its numbers.

    Attributes:
        bench: The benchmark.
        paths: The numbers.
        preserved: Whether it measures what must be kept, rather than composition.
    """

    bench: str
    paths: tuple[NumberPath, ...]
    preserved: bool

    @property
    def label(self) -> str:
        """The benchmark, with the number's name if there is only one."""
        if len(self.paths) > 1:
            return f"{self.bench} (mean of {len(self.paths)})"
        category, metric = self.paths[0]
        metric = metric.upper() if len(metric) == 3 else metric
        return " ".join(filter(None, (self.bench, metric, category)))

    def of(self, benchmarks: Mapping[str, Mapping[str, Any]]) -> float:
        """Return the mean of the numbers in a report, in percent."""
        numbers = leaves(benchmarks[self.bench])
        return sum(numbers[path] for path in self.paths) / len(self.paths)


@dataclass(frozen=True)
class AlphaPoint:
    """One alpha on a set of measures.

    Attributes:
        alpha: The alpha.
        composed: Mean of the compositional benchmarks, in percent.
        kept: Mean of the preserved ones; None if there are none.
        drop: Points lost against alpha 0 on the preserved benchmark that lost most.
        allowed: Whether the drop is within the limit.
        pareto: Whether no other alpha is better on one of the two and not worse on the other.
    """

    alpha: float
    composed: float
    kept: float | None
    drop: float
    allowed: bool
    pareto: bool


@dataclass(frozen=True)
class AlphaChoice:
    """The alpha that was chosen, by which numbers, and how certain that is.

    Attributes:
        alpha: The chosen alpha.
        select: The measures it was chosen by.
        points: Every alpha on those measures.
        max_drop: The limit.
        certainty: Share of the bootstrap's resamples of rows that choose the same alpha.
        low: Lower end of the interval that contains 95 % of the alphas chosen in the resamples.
        high: Its upper end.
        report: What the choice is reported on.
        report_points: Every alpha on those.
        hindsight: The alpha that the same rule chooses on the reported numbers; None if none of
            them is compositional.
        lost: Reported composed number at that alpha minus that at the chosen one, in points; below
            0 if the chosen one is better, but loses more than `max_drop` there.
    """

    alpha: float
    select: tuple[Measure, ...]
    points: tuple[AlphaPoint, ...]
    max_drop: float
    certainty: float
    low: float
    high: float
    report: tuple[Measure, ...] = ()
    report_points: tuple[AlphaPoint, ...] = ()
    hindsight: float | None = None
    lost: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry `choice` of sweep.json."""
        return {
            "rule": "largest composed number with at most max_drop points lost on each preserved "
            "benchmark against alpha 0; of equal ones the smallest alpha",
            **asdict(self),
            "resamples": RESAMPLES,
            "level": LEVEL,
            "seed": SEED,
        }


def measure_of(item: Prepared, number: str = "") -> Measure:
    """Return what a benchmark contributes.

    Args:
        item: The benchmark.
        number: `category/metric`, or the name of a number without categories, instead of the usual
            one: ITT for triplets (TOT without images) and the group score for grids, as the mean
            over the categories; recall at 1 both ways for retrieval, every task for classification.

    Raises:
        ConfigError: The benchmark has no such number.
    """
    table, bench = item.table, item.benchmark.name
    preserved = isinstance(table, Retrieval | Classification)
    if number:
        category, _, metric = number.partition("/")
        return Measure(bench, ((category, metric),), preserved)
    if isinstance(table, Retrieval):
        return Measure(bench, (("image_to_text@1", ""), ("text_to_image@1", "")), True)
    if isinstance(table, Classification):
        return Measure(bench, tuple((task, "") for task in table.tasks), True)
    groups = list(getattr(table, "groups", {}))
    named = "mean" if "mean" in groups else (groups or [getattr(table, "overall", None)])[-1]
    names = [named] if named else list(getattr(table, "categories", ()))
    return Measure(bench, tuple((name, "") for name in names), False)


def completed(measure: Measure, form: Mapping[str, Any], setting: str = "select") -> Measure:
    """Return a measure with the metric filled in, once its numbers are found in the scores.

    Args:
        measure: What is asked for.
        form: The benchmark's scores.
        setting: The setting that asks for it, for the error message.

    Raises:
        ConfigError: The benchmark has no such number.
    """
    numbers = leaves(form)
    metrics = [m for m in METRICS if any(metric == m for _, metric in numbers)]
    paths = [
        path if path in numbers or not metrics else (path[0], path[1] or metrics[0])
        for path in measure.paths
    ]
    lacking = ["/".join(filter(None, path)) for path in paths if path not in numbers]
    if lacking:
        known = ", ".join("/".join(filter(None, path)) for path in numbers)
        raise ConfigError(
            f"{setting}={measure.bench}/{lacking[0]} is no number of it (it has {known})"
        )
    return Measure(measure.bench, tuple(paths), measure.preserved)


def check_measures(measures: Sequence[Measure], alphas: Sequence[float], drop_given: bool) -> None:
    """Check before any work that an alpha can be chosen by these benchmarks.

    Raises:
        ConfigError: No benchmark is compositional, alpha 0 is missing, or the limit has no effect.
    """
    names = ", ".join(measure.bench for measure in measures)
    if all(measure.preserved for measure in measures):
        raise ConfigError(
            f"select={names} says what is preserved alone; name a compositional benchmark, too, by "
            "whose gain the alpha is chosen"
        )
    preserved = any(measure.preserved for measure in measures)
    if preserved and 0.0 not in alphas:
        raise ConfigError(
            f"select={names} needs alpha 0 in the sweep, against which a drop is measured"
        )
    if drop_given and not preserved:
        raise ConfigError(
            f"max_drop has no effect: select={names} holds neither retrieval nor classification; "
            "name one, e.g. coco-retrieval@val, or leave max_drop out"
        )


def points_of(
    measures: Sequence[Measure],
    benchmarks: Sequence[Mapping[str, Any]],
    alphas: Sequence[float],
    max_drop: float,
) -> tuple[AlphaPoint, ...]:
    """Return a point for every alpha of a sweep on some measures.

    Args:
        measures: At least one of them compositional.
        benchmarks: The numbers of each alpha, see `Report`.
        alphas: The alphas, ascending.
        max_drop: Points that each preserved benchmark may lose.
    """
    composed = np.array(
        [np.mean([m.of(one) for m in measures if not m.preserved]) for one in benchmarks]
    )
    kept = np.array([[m.of(one) for m in measures if m.preserved] for one in benchmarks])
    has_kept = kept.shape[1] > 0
    drop = np.zeros(len(alphas))
    if has_kept and 0.0 in alphas:
        drop = (kept[list(alphas).index(0.0)] - kept).max(axis=1)
    mean = kept.mean(axis=1) if has_kept else np.zeros(len(alphas))
    better = (composed[:, None] >= composed) & (mean[:, None] >= mean)
    strictly = (composed[:, None] > composed) | (mean[:, None] > mean)
    pareto = np.logical_not(np.any(better & strictly, axis=0))
    return tuple(
        AlphaPoint(
            alpha,
            float(composed[i]),
            float(mean[i]) if has_kept else None,
            float(drop[i]),
            bool(drop[i] <= max_drop + _SAME),
            bool(pareto[i]),
        )
        for i, alpha in enumerate(alphas)
    )


def best(composed: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the index of the chosen alpha in the last dimension: [..., M] -> [...].

    If no alpha is allowed, as can happen in a sweep without alpha 0, all of them are.
    """
    none = np.logical_not(np.any(allowed, axis=-1, keepdims=True))
    allowed = np.logical_or(allowed, none)
    return np.argmax(np.where(allowed, np.round(composed, 9), -np.inf), axis=-1)


def choose(
    measures: Sequence[Measure],
    benchmarks: Sequence[Mapping[str, Any]],
    observed: Sequence[Mapping[str, Observed]],
    alphas: Sequence[float],
    max_drop: float,
    report: Sequence[Measure] = (),
) -> AlphaChoice:
    """Choose an alpha by the rule, and estimate by a bootstrap over rows how certain that is.

    Args:
        measures: What it is chosen by.
        benchmarks: The numbers of each alpha.
        observed: The outcomes of each alpha on the benchmarks of `measures`.
        alphas: The alphas, ascending.
        max_drop: Points that each preserved benchmark may lose.
        report: What the choice is reported on.
    """
    points = points_of(measures, benchmarks, alphas, max_drop)
    chosen = _place(points)
    drawn = np.array(alphas)[_resampled(measures, observed, alphas, max_drop)]
    tail = (100 - LEVEL) / 200
    low, high = np.quantile(drawn, [tail, 1 - tail], method="nearest")
    choice = AlphaChoice(
        alpha=alphas[chosen],
        select=tuple(measures),
        points=points,
        max_drop=max_drop,
        certainty=float((drawn == alphas[chosen]).mean()),
        low=float(low),
        high=float(high),
        report=tuple(report),
    )
    if all(measure.preserved for measure in report):
        return choice
    reported = points_of(report, benchmarks, alphas, max_drop)
    hindsight = _place(reported)
    return replace(
        choice,
        report_points=reported,
        hindsight=alphas[hindsight],
        lost=reported[hindsight].composed - reported[chosen].composed,
    )


def _place(points: Sequence[AlphaPoint]) -> int:
    composed, allowed = (
        np.array([getattr(p, key) for p in points]) for key in ("composed", "allowed")
    )
    return int(best(composed, allowed))


def _resampled(
    measures: Sequence[Measure],
    observed: Sequence[Mapping[str, Observed]],
    alphas: Sequence[float],
    max_drop: float,
) -> np.ndarray:
    """Return int64 [R], the index of the alpha that each resample of the rows chooses."""
    composed, allowed = [], np.ones((RESAMPLES, len(alphas)), dtype=bool)
    for measure in measures:
        models = [one[measure.bench] for one in observed]
        source = generator(SEED, f"choice/{measure.bench}")
        values = np.nanmean(resample(models, measure.paths, source, RESAMPLES), axis=1)
        if measure.preserved:
            base = values[:, [list(alphas).index(0.0)]]
            allowed &= base - values <= max_drop + _SAME
        else:
            composed.append(values)
    return best(np.mean(composed, axis=0), allowed)
