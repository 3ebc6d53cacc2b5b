"""The figure of a sweep: composed against kept numbers, with alpha along the curve.

In the manner of CLoVe's Figure 3 (arXiv 2402.15021).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clic.evaluation.report.alpha_sweep import COLOURS, SUBPLOT
from clic.patching.choice import AlphaPoint, Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE, CHOSEN, HINDSIGHT = COLOURS[1], COLOURS[2], COLOURS[3]
LABELLED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Alphas that are labelled besides the chosen one if a sweep has many."""
FEW = 7


class Curve(NamedTuple):
    """One panel: every alpha on a set of benchmarks.

    Attributes:
        title: What the benchmarks are for.
        measures: The benchmarks.
        points: The alphas, ascending.
        chosen: The chosen alpha, if one was chosen.
        hindsight: The alpha that the panel's own numbers would choose, if it is another.
    """

    title: str
    measures: Sequence[Measure]
    points: Sequence[AlphaPoint]
    chosen: float | None = None
    hindsight: float | None = None

    @property
    def drawable(self) -> bool:
        """Whether there are numbers for both axes."""
        return all(point.kept is not None for point in self.points)


def draw_trade_off(curves: Sequence[Curve], title: str, paths: Sequence[Path]) -> None:
    """Draw a panel for each curve, and write the figure in the format of each path's extension.

    Args:
        curves: At least one; all of them `drawable`.
        title: The figure's title, which should name the model.
        paths: Files ending in .png or .svg.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (max(SUBPLOT[0] * 1.15 * len(curves), 5.6), SUBPLOT[1] + 0.9)
    with rc_context({"svg.hashsalt": "clic", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(curves), squeeze=False).ravel()
        for axis, curve in zip(axes, curves, strict=True):
            _panel(axis, curve)
        handles, labels = axes[0].get_legend_handles_labels()
        for axis in axes[1:]:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                if label not in labels:
                    handles, labels = [*handles, handle], [*labels, label]
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False
        )
        figure.suptitle(title, fontsize=11)
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axis: Axes, curve: Curve) -> None:
    kept = [point.kept or 0.0 for point in curve.points]
    composed = [point.composed for point in curve.points]
    axis.plot(kept, composed, color=LINE, linewidth=1.4, alpha=0.5, zorder=1)
    for pareto, face, label in (
        (True, LINE, "Pareto point"),
        (False, "white", "another alpha is as good on both, and better on one"),
    ):
        mine = [i for i, point in enumerate(curve.points) if point.pareto == pareto]
        if mine:
            places = [kept[i] for i in mine], [composed[i] for i in mine]
            axis.scatter(*places, s=26, facecolor=face, edgecolor=LINE, label=label, zorder=2)
    _marks(axis, curve, kept, composed)
    for i, text in _names(curve).items():
        offset = (7, -12) if i == 0 else (7, 5)  # the curve mostly rises from the base
        place = kept[i], composed[i]
        axis.annotate(text, place, offset, textcoords="offset points", fontsize=8, zorder=4)
    axis.set_title(curve.title, fontsize=10)
    axis.set_xlabel(_axis_label("kept", [m for m in curve.measures if m.preserved]), fontsize=8)
    axis.set_ylabel(
        _axis_label("composed", [m for m in curve.measures if not m.preserved]), fontsize=8
    )
    axis.margins(0.14)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _marks(axis: Axes, curve: Curve, kept: Sequence[float], composed: Sequence[float]) -> None:
    """Mark the chosen alpha, and the one that hindsight would choose."""
    marks = (
        (curve.chosen, CHOSEN, "*", 190, f"chosen: alpha {curve.chosen}"),
        (
            curve.hindsight,
            HINDSIGHT,
            "D",
            46,
            f"what these numbers would choose: alpha {curve.hindsight}",
        ),
    )
    for alpha, colour, marker, size, label in marks:
        for i, point in enumerate(curve.points):
            if point.alpha == alpha:
                axis.scatter(
                    [kept[i]], [composed[i]], s=size, color=colour, marker=marker, label=label,
                    edgecolor="white", linewidth=0.6, zorder=3,
                )  # fmt: skip


def _names(curve: Curve) -> dict[int, str]:
    """Return the labels of the points that have one, by index."""
    alphas = [point.alpha for point in curve.points]
    few = len(alphas) <= FEW
    named = {i: f"{alpha:g}" for i, alpha in enumerate(alphas) if few or alpha in LABELLED}
    named |= {i: f"{alpha:g}" for i, alpha in enumerate(alphas) if alpha == curve.chosen}
    for alpha, what in ((0.0, "base (alpha 0)"), (1.0, "fine-tuned (alpha 1)")):
        if alpha in alphas:
            named[alphas.index(alpha)] = what
    return named


def _axis_label(what: str, measures: Sequence[Measure]) -> str:
    names = [measure.label for measure in measures]
    mean = "mean of " if len(names) > 1 else ""
    lines = ",\n".join(", ".join(names[i : i + 2]) for i in range(0, len(names), 2))
    return f"{what} [%]: {mean}{lines}"
