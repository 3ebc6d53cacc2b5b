"""An alpha sweep as tables and as a figure: what is gained and lost between base and tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clic.evaluation.report.report import covered_by_any, mean_names
from clic.evaluation.report.score_table import COUNTS
from clic.evaluation.report.terminal_tables import new_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

# The palette of Okabe and Ito, which colour-blind readers can distinguish.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
DASHES = {"itt": "-", "tot": "--"}
SUBPLOT = (4.6, 4.2)  # inches
PER_ROW = 3
TOP = 104  # Markers at 100 % need headroom.


class SweepLine(NamedTuple):
    """One line of a plot: its name in tables, its label, its values and its style."""

    name: str
    label: str
    values: list[float]
    colour: str
    marker: str
    dash: str


def lines_of(forms: Sequence[dict[str, Any]], means: Sequence[str] = ()) -> list[SweepLine]:
    """Return a benchmark's lines from its numbers at each alpha.

    Triplets have ITT (solid) and TOT (dashed) for each macro mean. Other rows in categories have
    every metric of the means, or only of the last mean if there are too many. Retrieval has recall
    at 1 in both directions, classification has every task.

    Args:
        forms: The numbers, one for each alpha.
        means: Names of the benchmark's means over categories.
    """
    first = forms[0]
    means = [name for name in first if name in means]
    lines = []
    for index, name in enumerate(reversed(means)):
        for metric, dash in DASHES.items():
            if metric in first[name]:
                values = [form[name][metric] for form in forms]
                upper = metric.upper()
                label = f"{name} {upper}"
                lines.append(_styled(index, index, f"{upper} {name}", label, values, dash))
    if lines:
        return lines
    if any(isinstance(entry, dict) for entry in first.values()):
        return _lines_of_entries(forms, means or list(first))
    names = [name for name in first if name.endswith("@1")]
    names = names or [name for name in first if name not in COUNTS]
    return [
        _styled(1 + index % 6, index, name, name.replace("_", " "), [form[name] for form in forms])
        for index, name in enumerate(names)
    ]


def _styled(
    colour: int, marker: int, name: str, label: str, values: list[float], dash: str = "-"
) -> SweepLine:
    """Return a line with the colour and marker of these indices."""
    colours, markers = COLOURS[colour % len(COLOURS)], MARKERS[marker % len(MARKERS)]
    return SweepLine(name, label, values, colours, markers, dash)


def _lines_of_entries(forms: Sequence[dict[str, Any]], names: Sequence[str]) -> list[SweepLine]:
    """Return a line for each metric of each entry."""
    pairs = [(name, metric) for name in names for metric in forms[0][name] if metric != "n"]
    if len(pairs) > len(MARKERS):
        pairs = [(name, metric) for name, metric in pairs if name == names[-1]]
    return [
        _styled(
            index,
            index,
            f"{metric} {name}",
            f"{name} {metric}".replace("_", " "),
            [form[name][metric] for form in forms],
        )
        for index, (name, metric) in enumerate(pairs)
    ]


def _lines(results: Sequence[dict[str, Any]], name: str) -> list[SweepLine]:
    """Return the lines of one benchmark of a sweep."""
    source = results[0]["provenance"]["benchmarks"].get(name, {})
    return lines_of([result["benchmarks"][name] for result in results], list(mean_names(source)))


def _subset(results: Sequence[dict[str, Any]], name: str) -> str:
    """Return the covered subset on which a benchmark was scored; empty if it was complete."""
    return covered_by_any([result["provenance"]["benchmarks"].get(name, {}) for result in results])


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return a rich table for each benchmark: a row for each alpha, a column for each line.

    Triplets also have the mean P1, an upper bound of ITT.
    """
    made = []
    for name in results[0]["benchmarks"]:
        forms = [result["benchmarks"][name] for result in results]
        columns = {line.name: line.values for line in _lines(results, name)}
        if "p1" in forms[0].get("mean", {}):
            columns["P1 mean"] = [form["mean"]["p1"] for form in forms]
        table = new_table(", ".join(filter(None, (name, _subset(results, name)))), "alpha")
        for measure in columns:
            # On two lines; otherwise the columns of SugarCrepe++ do not fit.
            table.add_column(measure.replace(" ", "\n"), justify="right")
        for index, result in enumerate(results):
            cells = (f"{values[index]:.1f}" for values in columns.values())
            table.add_row(f"{result['alpha']:g}", *cells)
        made.append(table)
    return made


def draw(results: Sequence[dict[str, Any]], title: str, path: str | Path) -> None:
    """Draw a sweep with a plot for each benchmark, and write it as a PNG.

    Args:
        results: For each alpha, ascending, ``{"alpha": alpha, ...}`` with the keys of a report.
        title: The figure's title, which should name the model.
        path: The file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(results[0]["benchmarks"])
    columns = min(PER_ROW, len(names))
    rows = math.ceil(len(names) / columns)
    size = (max(SUBPLOT[0] * columns, 5.6), SUBPLOT[1] * rows + 0.4)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    alphas = [result["alpha"] for result in results]
    for index, axis in enumerate(axes):
        if index >= len(names):
            axis.set_axis_off()
            continue
        heading = "\n".join(filter(None, (names[index], _subset(results, names[index]))))
        _panel(axis, heading, alphas, _lines(results, names[index]))
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def _panel(axis: Axes, name: str, alphas: Sequence[float], lines: Sequence[SweepLine]) -> None:
    for line in lines:
        hollow = line.dash != "-"
        axis.plot(
            alphas,
            line.values,
            label=line.label,
            color=line.colour,
            linestyle=line.dash,
            marker=line.marker,
            markerfacecolor="white" if hollow else line.colour,
            linewidth=1.8,
            markersize=5,
            clip_on=False,
        )
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("alpha (0 = base, 1 = fine-tuned)")
    axis.set_ylabel("right [%]")
    axis.set_ylim(0, TOP)
    axis.set_yticks(range(0, 101, 20))
    axis.margins(x=0.03)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=min(3, len(lines)) if len(lines) != 4 else 2,
        fontsize=8,
        frameon=False,
        handlelength=2.6,
    )
