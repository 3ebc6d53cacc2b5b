"""What `clic-eval` shows: models scored now and results written before, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from clic.config.eval_settings import EvalConfig
from clic.errors import ConfigError, DataError

if TYPE_CHECKING:
    from clic.evaluation.evaluation_plan import EvaluationPlan
    from clic.evaluation.report.comparison import Comparison
    from clic.evaluation.report.html_page import Gallery
    from clic.evaluation.report.paired_rows import Observed
    from clic.evaluation.report.report import Report

# Settings that say how models are scored, which results that were written before no longer need.
SCORING = (
    "data", "batch_size", "workers", "device", "precision", "cache", "cache_dir", "cache_gb",
    "allow_missing", "text_only", "split", "seed",
)  # fmt: skip


@dataclass
class Results:
    """The models' numbers, and what is made of their rows.

    Attributes:
        reports: One for each model.
        comparison: Differences to the first, with `--compare`.
        galleries: Worst failures of each, where a page is written.
    """

    reports: list[Report] = field(default_factory=list)
    comparison: Comparison | None = None
    galleries: list[Gallery] = field(default_factory=list)


def names_of(settings: EvalConfig) -> list[str]:
    """Return the models and results that are named.

    Raises:
        ConfigError: They are named both ways, or there is nothing to compare with.
    """
    if settings.compare and settings.model:
        raise ConfigError("name the models either with --compare or with --model, not both")
    return settings.compare or settings.model


def gather(
    settings: EvalConfig,
    default_model: Callable[[], str],
    *,
    keep_rows: bool,
    with_gallery: bool,
) -> Results:
    """Score the models, read the results, and compare them where that is asked for.

    Args:
        settings: The command's.
        default_model: Finds a model where none is named.
        keep_rows: Whether rows are written; without, they are dropped as soon as they were used.
        with_gallery: Whether a page is written.

    Raises:
        ConfigError: A setting is wrong or has no effect.
        DataError: Data or a result is missing or broken, or results do not fit each other.
        ModelError: There is no such model.
    """
    from clic import distributed
    from clic.evaluation.report import comparison as compare
    from clic.evaluation.tables import gallery

    main, comparing = distributed.is_main(), bool(settings.compare)  # rank 0 alone knows rows
    needs_rows = main and (comparing or keep_rows or with_gallery)
    results, observed = Results(), []
    for report in _reports(settings, default_model, needs_rows):
        report.name = _free(report.name, [one.name for one in results.reports])
        if main and comparing:
            observed.append(compare.observe_report(report))
        if main and with_gallery:
            results.galleries.append(gallery.worst(report))
        if not keep_rows:
            report.rows, report.tables = (), {}
        results.reports.append(report)
    if main and comparing:
        results.comparison = _compare(results.reports, observed)
    return results


def _reports(
    settings: EvalConfig, default_model: Callable[[], str], with_rows: bool
) -> Iterator[Report]:
    """Yield the models' reports one by one; everything that can be wrong is noticed before."""
    from clic.evaluation.benchmarks import catalogue
    from clic.evaluation.report import result_files

    names = names_of(settings)
    saved = [result_files.is_saved(name) for name in names]
    benches = [b.name for b in catalogue.select(settings.bench)] if settings.bench else []
    loaded = _load(names, saved, benches, with_rows)
    if not benches and loaded:
        benches = _shared([report for reports in loaded for report in reports])
        loaded = _load(names, saved, benches, with_rows)
    if not benches:
        raise ConfigError("no benchmark named; give --bench NAME (--bench list shows them)")
    if settings.compare and sum(map(len, loaded)) + saved.count(False) < 2:
        raise ConfigError(
            f"compare={settings.compare[0]} is a single model; name at least two, the first of "
            "which the others are compared with"
        )
    if names and all(saved):
        _check_no_effect(settings)
        yield from (report for reports in loaded for report in reports)
        return
    plan = _prepare(settings, benches)
    if not names:
        names, saved = [default_model()], [False]
    check_models([name for name, done in zip(names[1:], saved[1:], strict=True) if not done])
    read = iter(loaded)
    for name, done in zip(names, saved, strict=True):
        yield from next(read) if done else [_score(settings, plan, name, with_rows)]


def _load(
    names: Sequence[str], saved: Sequence[bool], benches: Sequence[str], with_rows: bool
) -> list[list[Report]]:
    """Return the reports of each name that means a result written before."""
    from clic.evaluation.report import result_files

    found = [name for name, done in zip(names, saved, strict=True) if done]
    return [result_files.load(name, benches, with_rows) for name in found]


def _shared(reports: Sequence[Report]) -> list[str]:
    """Return the benchmarks that all results have."""
    found = [b for b in reports[0].benchmarks if all(b in r.benchmarks for r in reports)]
    if not found:
        have = "; ".join(f"{r.name}: {', '.join(r.benchmarks) or 'none'}" for r in reports)
        raise DataError(f"the results have no benchmark in common ({have})")
    return found


def _check_no_effect(settings: EvalConfig) -> None:
    """Refuse settings of scoring where nothing is scored."""
    default = EvalConfig()
    for name in (f.name for f in fields(EvalConfig) if f.name in SCORING):
        value = getattr(settings, name)
        if value != getattr(default, name):
            raise ConfigError(
                f"{name}={value} has no effect: everything named was scored before; leave it out"
            )


def _free(name: str, taken: Sequence[str]) -> str:
    """Return a name that no other model of the report has."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def check_models(names: Sequence[str]) -> None:
    """Find models whose turn comes later, so that a misspelt one does not waste the first one."""
    from clic import models, runs

    for name in names:
        folder = Path(name).expanduser()
        if folder.is_dir():
            runs.resolve(folder)
        else:
            models.resolve(name)


def _prepare(settings: EvalConfig, benches: Sequence[str]) -> EvaluationPlan:
    from clic import evaluation

    return evaluation.prepare(
        benches,
        settings.data,
        split=settings.split,
        seed=settings.seed,
        allow_missing=settings.allow_missing,
        text_only=settings.text_only,
    )


def _score(settings: EvalConfig, plan: EvaluationPlan, name: str, keep_rows: bool) -> Report:
    from clic import evaluation
    from clic.models import encoder

    model = encoder.load(
        name,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
    )
    return evaluation.run(
        model,
        plan,
        batch_size=settings.batch_size,
        workers=settings.workers,
        keep_rows=keep_rows,
        progress=True,
        name=name,
        cache=evaluation.FeatureCache.of(settings),
        all_ranks=True,
    )


def _compare(reports: Sequence[Report], observed: Sequence[dict[str, Observed]]) -> Comparison:
    from clic.evaluation.report import comparison as compare
    from clic.io.terminal import progress_bar

    with progress_bar(True, "intervals", len(reports[0].benchmarks)) as advance:
        return compare.compare(reports, observed, advance=advance)
