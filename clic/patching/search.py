"""A sweep: score the models at several alphas, and choose one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clic import evaluation, models, runs
from clic.config.patch_settings import MAX_DROP, PatchConfig, check_patch, parse_alphas, parse_sweep
from clic.errors import ConfigError
from clic.evaluation import EvaluationPlan, Report
from clic.evaluation.benchmarks import catalogue, own_file
from clic.evaluation.report import comparison
from clic.models import encoder
from clic.models.encoder import Encoder
from clic.patching.alpha_rules import AlphaRules
from clic.patching.blending import check_fit, one_thread, write_blend, write_tensor
from clic.patching.choice import (
    AlphaChoice,
    Measure,
    check_measures,
    choose,
    completed,
    measure_of,
    points_of,
)
from clic.patching.folders import open_weights, patch_by_rules, write_files_beside
from clic.patching.interpolation import check_architecture
from clic.patching.live_model import LiveModel
from clic.patching.tensor_files import Layout, TensorFiles, spans
from clic.patching.trade_off import Curve


@dataclass
class Sweep:
    """The scores of the models between two models.

    Attributes:
        base: Model of alpha 0.
        tuned: Model of alpha 1.
        alphas: The alphas, ascending.
        reports: The numbers of each alpha.
        measures: What the benchmarks measure, if no alpha was to be chosen.
        choice: The chosen alpha, if one was to be chosen.
        best: The folder of its model, if it was to be kept.
    """

    base: str
    tuned: str
    alphas: list[float]
    reports: list[Report]
    measures: Sequence[Measure] = ()
    choice: AlphaChoice | None = None
    best: Path | None = None

    @property
    def results(self) -> list[dict[str, Any]]:
        """For each alpha ``{"alpha": alpha, ...}`` with the fields of its report."""
        pairs = zip(self.alphas, self.reports, strict=True)
        return [{"alpha": alpha, **report.to_dict()} for alpha, report in pairs]

    @property
    def curves(self) -> list[Curve]:
        """Composed against kept numbers, see `draw_trade_off`."""
        choice = self.choice
        if choice is None:
            if all(measure.preserved for measure in self.measures):
                return []
            numbers = [report.benchmarks for report in self.reports]
            points = points_of(self.measures, numbers, self.alphas, MAX_DROP)
            return [Curve("", self.measures, points)]
        found = [Curve("what the alpha is chosen by", choice.select, choice.points, choice.alpha)]
        if choice.report_points:
            other = None if choice.hindsight == choice.alpha else choice.hindsight
            title = "what is reported"
            found += [Curve(title, choice.report, choice.report_points, choice.alpha, other)]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `sweep.json`."""
        made = {"base": self.base, "tuned": self.tuned, "alphas": self.results}
        return made if self.choice is None else {**made, "choice": self.choice.to_dict()}


def sweep(
    base: str | Path,
    tuned: str | Path,
    alphas: str | Sequence[float],
    *,
    bench: Sequence[str] = (),
    select: Sequence[str] = (),
    report: Sequence[str] = (),
    max_drop: float | None = None,
    out: str | Path | None = None,
    keep_best: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Sweep:
    """Score the models between two models, and choose one of them.

    theta(alpha) = (1 - alpha) * theta_base + alpha * theta_tuned (arXiv 2109.01903). The model is
    built once and its weights are replaced in place; the inputs of a tower that no alpha changes
    are encoded once.

    Args:
        base: Model of alpha 0, as `patch` takes it.
        tuned: Model of alpha 1.
        alphas: `0:1:0.05`, or numbers from 0 to 1.
        bench: Benchmarks to score, if no alpha is chosen.
        select: Benchmarks to choose an alpha by, e.g. ``["shapes++@val"]``.
        report: Benchmarks to report the choice on.
        max_drop: Points that the choice may lose on each preserved benchmark; 1 by default.
        out: Folder for the chosen model, with `keep_best`, and for temporary files.
        keep_best: Write the chosen model to `out`/alpha-0.50.
        progress: Show progress bars if stderr is a terminal.
        settings: Any other setting of `clic-patch` under its name, e.g. `data`, `device`,
            `alpha_vision` (docs/settings.md).

    Raises:
        ConfigError: A setting is wrong, a benchmark is used both to choose and to report, or `out`
            cannot be written.
        DataError: Files of a benchmark are missing.
        ModelError: A model is missing, or the two do not fit.
    """
    words = [alphas] if isinstance(alphas, str) else [repr(float(alpha)) for alpha in alphas]
    given = PatchConfig(
        base=str(base),
        tuned=str(tuned),
        sweep=words,
        bench=list(bench),
        select=list(select),
        report=list(report),
        max_drop=max_drop,
        out=None if out is None else str(out),
        keep_best=keep_best,
        **settings,
    )
    check_patch(given)
    if keep_best and out is None:
        raise ConfigError("keep_best needs out, the folder of the chosen model")
    return run_sweep(given, str(base), str(tuned), None if out is None else Path(out), progress)


def run_sweep(
    settings: PatchConfig, base: str, tuned: str, folder: Path | None, progress: bool = True
) -> Sweep:
    """Score and choose as `sweep` does, from checked settings.

    Args:
        settings: The settings of `clic-patch`.
        base: Model of alpha 0.
        tuned: Model of alpha 1.
        folder: Where the chosen model goes, in a folder named after its alpha.
        progress: Whether to show progress bars.
    """
    alphas = parse_sweep(settings.sweep, settings.extrapolate)
    rules = rules_of(settings).at_each(alphas)
    for one in rules:
        one.check()
    select, report = [split_number(word) for word in settings.select], settings.report
    plan = _plan(settings, [name for name, _ in select])
    chosen_by = _measures(plan, select)
    max_drop = MAX_DROP if settings.max_drop is None else settings.max_drop
    if chosen_by:
        check_measures(chosen_by, alphas, settings.max_drop is not None)
    selected = {measure.bench for measure in chosen_by}
    reports: list[Report] = []
    observed: list[Mapping[str, comparison.Observed]] = []
    for done in score_models(settings, plan, base, tuned, rules, folder, progress, bool(select)):
        if not reports:  # so a misspelt number fails now, not after the last alpha
            by, on = _complete(plan, chosen_by, report, done.benchmarks)
        if selected:
            observed.append(observe(done, selected))
        done.rows, done.tables = (), {}
        reports.append(done)
    found = Sweep(base, tuned, alphas, reports)
    if not chosen_by:
        found.measures = on
    else:
        numbers = [one.benchmarks for one in reports]
        found.choice = choose(by, numbers, observed, alphas, max_drop, on)
        if settings.keep_best and folder is not None:
            chosen = rules[alphas.index(found.choice.alpha)]
            place = best_folder(folder, found.choice.alpha)
            found.best = patch_by_rules(base, tuned, chosen, place)
    return found


def _complete(
    plan: EvaluationPlan,
    chosen_by: Sequence[Measure],
    report: Sequence[str],
    scores: Mapping[str, Mapping[str, Any]],
) -> tuple[list[Measure], list[Measure]]:
    """Return the measures to choose by and those to report: all of them, if none is chosen by.

    Raises:
        ConfigError: A benchmark lacks the number that was asked for.
    """
    reported = {one.name for one in catalogue.select(report)} if report else set()
    items = [i for i in plan.prepared if not chosen_by or i.benchmark.name in reported]
    return (
        [completed(measure, scores[measure.bench]) for measure in chosen_by],
        [completed(m, scores[m.bench], "report") for m in map(measure_of, items)],
    )


def best_folder(folder: Path, alpha: float) -> Path:
    """Return the chosen model's folder; in a run, it lies among the patched models."""
    inside = folder / runs.PATCHED if runs.is_run(folder) else folder
    return inside / runs.alpha_folder(alpha)


def rules_of(settings: PatchConfig) -> AlphaRules:
    """Return the rules for the parts, without the alpha of the rest."""
    _, rules = parse_alphas(settings.alpha, settings.extrapolate)
    towers = settings.alpha_text, settings.alpha_vision
    return AlphaRules(None, None, *towers, tuple(rules), settings.extrapolate)


def split_number(word: str) -> tuple[str, str]:
    """Split `NAME/category/metric` into benchmark and number; the number may be missing.

    The name of a user's own file is its path, slashes included.
    """
    parts = word.split("/")
    starts = (("/".join(parts[:count]), count) for count in range(len(parts), 0, -1))
    length = next((count for start, count in starts if own_file.is_own_file(start)), 1)
    return "/".join(parts[:length]), "/".join(parts[length:])


def _plan(settings: PatchConfig, select: Sequence[str]) -> EvaluationPlan:
    """Find and read all benchmarks; refuse one that is used both to choose and to report."""
    plan = plan_of(settings, [*settings.bench, *select, *settings.report])
    if select and settings.report:
        chosen, reported = (
            {benchmark.name for benchmark in catalogue.select(names)}
            for names in (select, settings.report)
        )
        hashes = {item.benchmark.name: item.sha256 for item in plan.prepared}
        for name in sorted(chosen):
            same = [other for other in reported if hashes.get(other) == hashes.get(name)]
            if name in reported or same:
                raise ConfigError(
                    f"select={name} and report={name if name in reported else same[0]} are the "
                    "same rows: a number by which an alpha was chosen is no result; choose by a "
                    "validation split (NAME@val) or another benchmark"
                )
    return plan


def plan_of(settings: PatchConfig, names: Sequence[str]) -> EvaluationPlan:
    """Find and read benchmarks, as the settings specify."""
    return evaluation.prepare(
        names,
        settings.data,
        split=settings.split,
        seed=settings.seed,
        allow_missing=settings.allow_missing,
    )


def _measures(plan: EvaluationPlan, select: Sequence[tuple[str, str]]) -> list[Measure]:
    found: dict[str, Measure] = {}
    items = {item.benchmark.name: item for item in plan.prepared}
    for name, number in select:
        members = catalogue.select([name])
        if number and len(members) > 1:
            raise ConfigError(f"select={name}/{number}: {name} is a group; name one of its members")
        for benchmark in members:
            found[benchmark.name] = measure_of(items[benchmark.name], number)
    return list(found.values())


def observe(report: Report, names: set[str]) -> Mapping[str, comparison.Observed]:
    """Return the outcomes of some benchmarks of a report that kept its rows."""
    rows = [row for row in report.rows if row["benchmark"] in names]
    numbers = {name: form for name, form in report.benchmarks.items() if name in names}
    return comparison.observe_report(replace(report, rows=rows, benchmarks=numbers))


def score_models(
    settings: PatchConfig,
    plan: EvaluationPlan,
    base: str,
    tuned: str,
    rules: Sequence[AlphaRules],
    folder: Path | None,
    progress: bool,
    keep_rows: bool,
) -> Iterator[Report]:
    """Yield the report of each interpolated model."""
    source = f"between {base} and {tuned}"
    for one, model in _models(settings, base, tuned, rules, folder):
        name = runs.alpha_folder(one.alpha or 0.0).replace("-", " ", 1)
        done = score(settings, plan, model, name, progress, keep_rows)
        done.model = {**done.model, "name": name, "source": source}
        yield done


def score(
    settings: PatchConfig,
    plan: EvaluationPlan,
    model: Encoder,
    name: str,
    progress: bool,
    keep_rows: bool,
) -> Report:
    """Score one model, as the settings specify."""
    return evaluation.run(
        model,
        plan,
        batch_size=settings.batch_size,
        workers=settings.workers,
        keep_rows=keep_rows,
        progress=progress,
        name=name,
        cache=evaluation.FeatureCache.of(settings),
    )


def load_as(settings: PatchConfig) -> Callable[[Path], Encoder]:
    """Return a function that builds the model in a folder, as the settings specify."""

    def load(folder: Path) -> Encoder:
        return encoder.load(
            f"local-dir:{folder}",
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size,
        )

    return load


def _models(
    settings: PatchConfig,
    base: str,
    tuned: str,
    rules: Sequence[AlphaRules],
    folder: Path | None,
) -> Iterator[tuple[AlphaRules, Encoder]]:
    """Yield the encoder at each alpha: the tuned model, with the tensors that differ replaced."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_weights(name)) for name in (base, tuned))
        check_architecture(first, second)
        check_fit(first.tensors, second.tensors)
        resolved = [one.resolve(first.tensors.layout)[0] for one in rules]
        first.tensors.hashing = second.tensors.hashing = False
        changing = differing(first.tensors, second.tensors)
        live: LiveModel | None = None
        if runs.is_open_clip_folder(second.folder):
            live = LiveModel(second.folder, load_as(settings), first.tensors.layout, changing)
        for one, alphas in zip(rules, resolved, strict=True):
            if live is None or not live.replaceable:

                def write(new: Path, alphas: Mapping[str, float] = alphas) -> None:
                    weights = new / runs.OPEN_CLIP_WEIGHTS
                    write_blend(first.tensors, second.tensors, alphas, weights)
                    write_files_beside(new, second)

                live = build_live(settings, write, folder, first.tensors.layout, changing)
            else:
                with one_thread():
                    for name in changing:
                        write_tensor(name, first.tensors, second.tensors, alphas[name], live)
            yield one, live.encoder()


def build_live(
    settings: PatchConfig,
    write: Callable[[Path], None],
    near: Path | None,
    layout: Mapping[str, Layout],
    changing: Collection[str],
) -> LiveModel:
    """Write a model into a temporary folder and build it from there.

    Args:
        settings: How to build it.
        write: Fills the folder.
        near: Parent of the temporary folder, or the nearest existing folder above it; None for the
            system's default.
        layout: The tensors to be replaced later.
        changing: The ones among them that do change.
    """
    place = Path(tempfile.gettempdir()) if near is None else near.absolute()
    place = next(one for one in (place, *place.parents) if one.is_dir())
    with models.writing(place):
        work = tempfile.TemporaryDirectory(prefix=".sweep-", dir=place)
    with work:
        with models.writing(place):
            write(Path(work.name))
        return LiveModel(Path(work.name), load_as(settings), layout, changing)


def differing(base: TensorFiles, tuned: TensorFiles) -> list[str]:
    """Return the names of the tensors whose bytes differ between two models."""
    return [name for name in base.layout if not _same_bytes(name, base, tuned)]


def _same_bytes(name: str, base: TensorFiles, tuned: TensorFiles) -> bool:
    if base.layout[name] != tuned.layout[name]:
        return False
    return all(
        torch.equal(
            base.chunk(name, *bounds).view(torch.uint8),
            tuned.chunk(name, *bounds).view(torch.uint8),
        )
        for bounds in spans(base.layout[name].numel)
    )
