"""An alpha sweep as tables and as a picture: what is won and lost on the way to the tuned model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clic.evaluation.report.score_table import COUNTS, mean_names
from clic.evaluation.report.terminal_tables import new_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

# Okabe and Ito's colours, which the colour-blind tell apart.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
DASHES = {"itt": "-", "tot": "--"}
PANEL = (4.6, 4.2)
PER_ROW = 3
TOP = 104  # markers at 100 % need head room


class SweepLine(NamedTuple):
    """One line of a panel: its measure as tables name it, its label, its values and its look."""

    name: str
    label: str
    values: list[float]
    colour: str
    marker: str
    dash: str


def lines_of(forms: Sequence[dict[str, Any]], means: Sequence[str] = ()) -> list[SweepLine]:
    """Return a benchmark's lines from its numbers at each alpha.

    Triplets: each macro mean's ITT (solid) and TOT (dashed). Other rows in categories: each metric
    of the means, or of the last one where those would be too many. Retrieval: recall at 1, both
    ways. Classification: every task.

    Args:
        forms: The numbers, one for each alpha.
        means: Names of the benchmark's means over categories.
    """
    first = forms[0]
    means = [name for name in first if name in means]
    lines = []
    for index, name in enumerate(reversed(means)):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        for metric, dash in DASHES.items():
            if metric in first[name]:
                values = [form[name][metric] for form in forms]
                label = f"{name} {metric.upper()}"
                measure = f"{metric.upper()} {name}"
                lines.append(SweepLine(measure, label, values, colour, marker, dash))
    if lines:
        return lines
    if any(isinstance(entry, dict) for entry in first.values()):
        return _lines_of_entries(forms, means or list(first))
    names = [name for name in first if name.endswith("@1")]
    names = names or [name for name in first if name not in COUNTS]
    return [
        SweepLine(
            name,
            name.replace("_", " "),
            [form[name] for form in forms],
            COLOURS[1 + index % 6],
            MARKERS[index % 7],
            "-",
        )
        for index, name in enumerate(names)
    ]


def _lines_of_entries(forms: Sequence[dict[str, Any]], names: Sequence[str]) -> list[SweepLine]:
    """Return a line for each metric of each entry."""
    pairs = [(name, metric) for name in names for metric in forms[0][name] if metric != "n"]
    if len(pairs) > len(MARKERS):
        pairs = [(name, metric) for name, metric in pairs if name == names[-1]]
    return [
        SweepLine(
            f"{metric} {name}",
            f"{name} {metric}".replace("_", " "),
            [form[name][metric] for form in forms],
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            "-",
        )
        for index, (name, metric) in enumerate(pairs)
    ]


def _lines(results: Sequence[dict[str, Any]], name: str) -> list[SweepLine]:
    """Return the lines of one benchmark of a sweep."""
    source = results[0]["provenance"]["benchmarks"].get(name, {})
    return lines_of([result["benchmarks"][name] for result in results], list(mean_names(source)))


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return a rich table for each benchmark: a row for each alpha, a column for each line.

    Triplets have the mean P1 too, which bounds ITT from above.
    """
    made = []
    for name in results[0]["benchmarks"]:
        forms = [result["benchmarks"][name] for result in results]
        columns = {line.name: line.values for line in _lines(results, name)}
        if "p1" in forms[0].get("mean", {}):
            columns["P1 mean"] = [form["mean"]["p1"] for form in forms]
        table = new_table(name, "alpha")
        for measure in columns:
            # On two lines, or the columns of SugarCrepe++ would not fit.
            table.add_column(measure.replace(" ", "\n"), justify="right")
        for index, result in enumerate(results):
            cells = (f"{values[index]:.1f}" for values in columns.values())
            table.add_row(f"{result['alpha']:g}", *cells)
        made.append(table)
    return made


def draw(results: Sequence[dict[str, Any]], title: str, path: str | Path) -> None:
    """Draw a sweep, a panel for each benchmark, and write it as a PNG.

    Args:
        results: For each alpha, ascending, ``{"alpha": alpha, ...}`` with what a report has.
        title: What was swept; it should name the model.
        path: File to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(results[0]["benchmarks"])
    columns = min(PER_ROW, len(names))
    rows = math.ceil(len(names) / columns)
    size = (max(PANEL[0] * columns, 5.6), PANEL[1] * rows + 0.4)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    alphas = [result["alpha"] for result in results]
    for index, axis in enumerate(axes):
        if index >= len(names):
            axis.set_axis_off()
            continue
        _panel(axis, names[index], alphas, _lines(results, names[index]))
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
