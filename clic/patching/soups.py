"""One model made from several, as an open_clip folder: soups and merged differences from a base."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from clic import models, provenance, runs
from clic.config.patch_settings import DEFAULT_DENSITY, PatchConfig, check_patch
from clic.errors import ModelError
from clic.evaluation.benchmarks import catalogue
from clic.patching.blending import TensorSink, one_thread
from clic.patching.choice import completed, measure_of
from clic.patching.folders import (
    RECORD_FILE,
    Weights,
    check_apart,
    check_replaceable,
    open_weights,
    write_files_beside,
)
from clic.patching.interpolation import blended, check_architecture, check_names
from clic.patching.live_model import LiveModel
from clic.patching.merging import MergeSettings, merged
from clic.patching.search import build_live, plan_of, score, split_number
from clic.patching.tensor_files import Layout, new_tensors, spans


@dataclass(frozen=True)
class SoupStep:
    """One model that a greedy soup tried.

    Attributes:
        model: The model.
        alone: Its score alone, in percent.
        together: The score of the soup with it.
        taken: Whether it stayed in the soup.
    """

    model: str
    alone: float
    together: float
    taken: bool


@dataclass(frozen=True)
class Soup:
    """A model made from several.

    Attributes:
        folder: Its open_clip folder.
        steps: What a greedy soup tried, in order; empty for other methods.
    """

    folder: Path
    steps: tuple[SoupStep, ...] = ()


def soup(
    soup_of: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "uniform",
    base: str | Path | None = None,
    weights: Sequence[float] = (),
    scale: float | None = None,
    density: float | None = None,
    draw_seed: int = 0,
    select: Sequence[str] = (),
    progress: bool = False,
    **settings: Any,
) -> Path:
    """Write one model made from several as an open_clip folder.

    The folder appears complete or not at all, and replaces an earlier patched model.

    Args:
        soup_of: The models, as `patch` takes them.
        out: Folder to write.
        method: `uniform`, `weights`, `greedy` (arXiv 2203.05482), `task` (2212.04089), `ties`
            (2306.01708), `dare` (2311.03099), `stock` (2403.19522) or `slerp`; see `merging`.
        base: The model that all of them were tuned from, for `task`, `ties`, `dare` and `stock`.
        weights: One for each model, for `weights` and `slerp`.
        scale: Factor of the combined difference, 1 by default.
        density: Share of each difference that is kept, 0.2 for `ties` and 0.1 for `dare` by
            default.
        draw_seed: Seed of `dare`'s random masks.
        select: Benchmarks of a greedy soup, e.g. ``["shapes++@val"]``.
        progress: Show progress bars if stderr is a terminal.
        settings: Any other setting of `clic-patch` under its name, e.g. `data`, `device`.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: A setting is wrong or has no effect, or `out` cannot be written.
        ModelError: A model is missing, or they do not fit.
    """
    given = PatchConfig(
        soup=[str(one) for one in soup_of],
        out=str(out),
        method=method,
        base=None if base is None else str(base),
        weights=list(weights),
        scale=scale,
        density=density,
        draw_seed=draw_seed,
        select=list(select),
        **settings,
    )
    check_patch(given)
    return run_soup(given, progress).folder


def run_soup(settings: PatchConfig, progress: bool = True) -> Soup:
    """Write a model as `soup` does, from checked settings."""
    out = Path(settings.out or "").expanduser()
    how = _merge_settings(settings)
    how.check(len(settings.soup))
    check_replaceable(out)
    names = [*([settings.base] if settings.base is not None else []), *settings.soup]
    steps: tuple[SoupStep, ...] = ()
    with _opened(names) as opened:
        check_apart(out, *opened)
        pot = opened
        if settings.method == "greedy":
            pot, steps = _greedy(settings, opened, how, out, progress)
        with models.whole_folder(out, out.parent) as new:
            write_soup(new, pot, how)
            record = {**_record(settings, how, opened, steps), **provenance.code()}
            (new / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return Soup(out, steps)


def _merge_settings(settings: PatchConfig) -> MergeSettings:
    density = settings.density
    if density is None:
        density = DEFAULT_DENSITY.get(settings.method, 1.0)
    scale = 1.0 if settings.scale is None else settings.scale
    return MergeSettings(
        settings.method, tuple(settings.weights), scale, density, settings.draw_seed
    )


@contextmanager
def _opened(names: Sequence[str]) -> Iterator[list[Weights]]:
    """Open models for reading, after checking that all of them fit the first one."""
    with ExitStack() as stack:
        opened = [stack.enter_context(open_weights(name)) for name in names]
        for other in opened[1:]:
            check_architecture(opened[0], other)
        yield opened


def layout_of(pot: Sequence[Weights]) -> dict[str, Layout]:
    """Return the layout of a model made from several, in the widest of their types.

    Raises:
        ModelError: Their tensors do not fit; the message names the two models.
    """
    first = pot[0].tensors.layout
    for other in pot[1:]:
        try:
            check_names(first, other.tensors.layout)
            for name, layout in first.items():
                blended(name, layout, other.tensors.layout[name])
        except ModelError as error:
            raise ModelError(f"{pot[0].label} (base) and {other.label} (tuned): {error}") from None
    return {
        name: reduce(lambda a, b: blended(name, a, b), [one.tensors.layout[name] for one in pot])
        for name in first
    }


def write_soup(folder: Path, pot: Sequence[Weights], how: MergeSettings) -> None:
    """Fill an open_clip folder; everything except the weights comes from the last model."""
    layout = layout_of(pot)
    with new_tensors(folder / runs.OPEN_CLIP_WEIGHTS, layout) as writer:
        stir(pot, how, layout, writer.names, writer)
    write_files_beside(folder, pot[-1])


def stir(
    pot: Sequence[Weights],
    how: MergeSettings,
    layout: dict[str, Layout],
    names: Sequence[str],
    sink: TensorSink,
) -> None:
    """Merge tensors and hand them to a file or to a model in memory, in pieces where possible."""
    count = len(pot) - (how.method in ("task", "ties", "dare", "stock"))
    with one_thread():
        for name in names:
            combine = how.of_tensor(name, count)
            origins = [one.tensors.path_of(name) for one in pot]
            pieces = list(spans(layout[name].numel))
            if len(pieces) > 1 and how.in_pieces:
                for start, stop in pieces:
                    own = [one.tensors.chunk(name, start, stop) for one in pot]
                    sink.write(name, start, merged(name, own, combine, origins))
            else:
                whole = [one.tensors.whole(name) for one in pot]
                sink.write(name, 0, merged(name, whole, combine, origins))


def _greedy(
    settings: PatchConfig,
    opened: Sequence[Weights],
    how: MergeSettings,
    out: Path,
    progress: bool,
) -> tuple[list[Weights], tuple[SoupStep, ...]]:
    """Return the models of a greedy soup (arXiv 2203.05482, Recipe 1), and all that were tried.

    The models are sorted by their score alone; each stays in the soup if adding it to the average
    does not lower the soup's score.
    """
    measured = _scorer(settings, how, out, progress)
    alone = [measured([one]) for one in opened]
    order = sorted(range(len(opened)), key=lambda i: -alone[i])
    pot, best = [opened[order[0]]], alone[order[0]]
    steps = [SoupStep(pot[0].label, best, best, taken=True)]
    for i in order[1:]:
        together = measured([*pot, opened[i]])
        taken = together >= best
        steps.append(SoupStep(opened[i].label, alone[i], together, taken))
        if taken:
            pot, best = [*pot, opened[i]], together
    return pot, tuple(steps)


def _scorer(
    settings: PatchConfig, how: MergeSettings, out: Path, progress: bool
) -> Callable[[Sequence[Weights]], float]:
    """Return a function that scores the average of some models: the mean over the benchmarks."""
    words = [split_number(word) for word in settings.select]
    plan = plan_of(settings, [name for name, _ in words])
    numbers = {b.name: number for name, number in words for b in catalogue.select([name])}
    measures = [measure_of(item, numbers[item.benchmark.name]) for item in plan.prepared]
    live: list[LiveModel] = []

    def measured(pot: Sequence[Weights]) -> float:
        layout = layout_of(pot)
        if live and live[0].replaceable:
            stir(pot, how, layout, list(layout), live[0])
        else:
            live[:] = [
                build_live(settings, lambda new: write_soup(new, pot, how), out, layout, layout)
            ]
        label = " + ".join(one.label for one in pot)
        done = score(settings, plan, live[0].encoder(), label, progress, keep_rows=False)
        values = [
            completed(one, done.benchmarks[one.bench]).of(done.benchmarks) for one in measures
        ]
        return sum(values) / len(values)

    return measured


def _record(
    settings: PatchConfig, how: MergeSettings, opened: Sequence[Weights], steps: Sequence[SoupStep]
) -> dict[str, Any]:
    """Return the content of a soup's `patch.json`."""
    hashes = {one.label: one.tensors.sha256() for one in opened}
    found: dict[str, Any] = {"method": how.method, "soup": list(settings.soup)}
    if settings.base is not None:
        found["base"] = settings.base
    if how.weights:
        found["weights"] = list(how.weights)
    if how.method in ("task", "ties", "dare"):
        found["scale"] = how.scale
    if how.method in DEFAULT_DENSITY:
        found["density"] = how.density
    if how.method == "dare":
        found["draw_seed"] = how.seed
    if steps:
        found["select"] = list(settings.select)
        found["steps"] = [vars(step) for step in steps]
    return {**found, "file_sha256": hashes}
