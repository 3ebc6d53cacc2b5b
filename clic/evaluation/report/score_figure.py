"""A figure of models on benchmarks for a paper: dots with intervals, or radar plots."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clic.errors import ConfigError
from clic.evaluation.report.comparison import LEVEL, Comparison
from clic.evaluation.report.report import Report
from clic.evaluation.report.score_table import ScoreLine, ScoreTable, by_metric, score_tables
from clic.evaluation.report.significance import MARK, NOTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
# The palette of Okabe and Ito, which colour-blind readers can distinguish; markers differ, too.
COLOURS = ("#777777", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
PER_ROW = 3
WIDTH, RADAR = 3.3, 2.7  # inches: a panel, and the height of a radar plot
LINE = 0.24  # inches of a category's line, and for each model beyond the first two a bit more
LEAST_AXES = 3  # of a radar plot
SPREAD, GAP = 0.27, 0.5  # of the models around a line; above the means
# Type 42 keeps a PDF's text as text; the salt keeps an SVG's ids the same in every run.
SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "clic",
    "font.size": 8,
    "text.parse_math": False,  # a category may contain $
}
Panel = tuple[str, str, list[ScoreLine]]


def check_figure(file: Path) -> None:
    """Refuse a file whose ending is not a supported image format.

    Raises:
        ConfigError: The ending is not .png, .svg or .pdf.
    """
    if file.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"figure={file} ends in {file.suffix or 'nothing'}; "
            f"name a file that ends in {', '.join(ENDINGS)}"
        )


def draw_figure(
    file: Path,
    form: str,
    reports: Sequence[Report],
    intervals: Comparison,
    kind: str,
    marked: bool,
) -> None:
    """Draw a figure of the models' numbers and write it.

    Args:
        file: The file.
        form: `.png`, `.svg` or `.pdf`.
        reports: The models.
        intervals: Those of each model's numbers, and of their differences to the first model.
        kind: `dots`, with intervals, or `radar`.
        marked: Whether significant differences to the first model are marked.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(form)
    with rc_context(SETTINGS):
        figure = Figure(dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        _fill(figure, reports, score_tables(reports, intervals), kind, marked)
        figure.savefig(file, format=form.removeprefix("."), metadata=undated)


def panels(tables: Sequence[ScoreTable]) -> list[Panel]:
    """Return a panel for each metric of each benchmark: heading, benchmark and lines."""
    found = []
    for table in tables:
        for metric, lines in by_metric(table.shown).items():
            heading = ", ".join(filter(None, (table.name, metric)))
            found.append(("\n".join(filter(None, (heading, table.subset))), table.name, lines))
    return found


def _fill(
    figure: Figure, reports: Sequence[Report], tables: Sequence[ScoreTable], kind: str, marked: bool
) -> None:
    """Lay the panels out in rows, and the legend and the note below them."""
    found = panels(tables)
    columns = min(PER_ROW, len(found))
    rows = [found[i : i + columns] for i in range(0, len(found), columns)]
    heights = [max(_height(lines, len(reports), kind) for _, _, lines in row) for row in rows]
    note = textwrap.wrap(_note(reports, kind, marked, found), width=int(46 * max(columns, 1.4)))
    below = 0.17 * (len(note) + 1 + -(-len(reports) // columns))
    figure.set_size_inches(max(WIDTH * columns, 4.4), sum(heights) + below + 0.1)
    cells = figure.add_gridspec(len(rows) + 1, columns, height_ratios=[*heights, below])
    for r, row in enumerate(rows):
        for c, (heading, _, lines) in enumerate(row):
            radar = kind == "radar" and len(_spokes(lines)) >= LEAST_AXES
            axis = figure.add_subplot(cells[r, c], projection="polar" if radar else None)
            (_radar if radar else _dots)(axis, lines, len(reports), marked)
            axis.set_title(heading, fontsize=9, pad=14 if radar else 5)
    foot = figure.add_subplot(cells[-1, :])
    foot.set_axis_off()
    handles = [_handle(index, report.name) for index, report in enumerate(reports)]
    foot.legend(
        handles=handles, loc="upper center", ncols=columns, frameon=False, borderaxespad=0,
        columnspacing=1.4,
    )  # fmt: skip
    foot.text(
        0.5, 0, "\n".join(note), ha="center", va="bottom", fontsize=6.5, color="#444444",
        transform=foot.transAxes,
    )  # fmt: skip


def _height(lines: Sequence[ScoreLine], models: int, kind: str) -> float:
    if kind == "radar" and len(_spokes(lines)) >= LEAST_AXES:
        return RADAR
    return 0.75 + len(lines) * LINE * (1 + 0.32 * max(0, models - 2))


def _note(reports: Sequence[Report], kind: str, marked: bool, found: Sequence[Panel]) -> str:
    dots = kind == "dots" or any(len(_spokes(lines)) < LEAST_AXES for _, _, lines in found)
    parts = ["Percent right, ties are wrong."]
    if dots:
        parts.append(f"Bars: bootstrap {LEVEL} % intervals over rows.")
    if marked and len(reports) > 1:
        some = " of some model" if kind == "radar" else ""
        parts.append(f"Differences{some} to {reports[0].name}: {NOTE}")
    return " ".join(parts)


def _style(index: int) -> tuple[str, str]:
    """Return colour and marker of a model; the first, which others are compared with, is grey."""
    number = index if index < len(COLOURS) else 1 + (index - 1) % (len(COLOURS) - 1)
    return COLOURS[number], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def _handle(index: int, name: str) -> Any:
    from matplotlib.lines import Line2D

    colour, marker = _style(index)
    return Line2D([], [], color=colour, marker=marker, linewidth=1.2, markersize=4, label=name)


def _dots(axis: Axes, lines: Sequence[ScoreLine], models: int, marked: bool) -> None:
    """Draw a line for each number, a dot with its interval for each model; means are set apart."""
    places, spread = _places(lines), SPREAD * min(1.0, models / 3)
    offsets = np.linspace(-spread, spread, models) if models > 1 else np.zeros(1)
    for index in range(models):
        colour, marker = _style(index)
        for line, place in zip(lines, places, strict=True):
            value, ends = line.values[index], line.levels[index] if line.levels else None
            if value is None:
                continue
            y = place + offsets[index]
            if ends is not None:
                axis.plot([ends.low, ends.high], [y, y], color=colour, linewidth=1.2, zorder=2)
            axis.plot([value], [y], marker, color=colour, markersize=4, zorder=3)
            if marked and line.marked and line.marked[index]:
                end = max(value, ends.high if ends is not None else value)
                axis.annotate(
                    MARK, (end, y), (3, -3.2), textcoords="offset points", color=colour, fontsize=9
                )
    for line, place in zip(lines, places, strict=True):
        axis.axhspan(
            place - 0.5, place + 0.5, color="#f2f2f2" if line.is_mean else "none", linewidth=0,
            zorder=0,
        )  # fmt: skip
    axis.set_yticks(places, [line.category for line in lines])
    axis.set_ylim(places[-1] + 0.6, -0.6)
    axis.set_xlim(*_limits(lines))
    axis.set_xticks([tick for tick in axis.get_xticks() if 0 <= tick <= 100])
    axis.set_xlim(*_limits(lines))
    axis.set_xlabel("right [%]")
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(left=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _places(lines: Sequence[ScoreLine]) -> list[float]:
    """Return the height of each line; there is a gap between categories and means."""
    place, places = 0.0, []
    for before, line in zip([None, *lines], lines, strict=False):
        if before is not None:
            place += 1 + (GAP if line.is_mean and not before.is_mean else 0)
        places.append(place)
    return places


def _limits(lines: Sequence[ScoreLine]) -> tuple[float, float]:
    """Return the ends of the axis: the drawn range, rounded outwards to tens, at least 20 wide."""
    ends = [end for line in lines for pair in line.levels if pair is not None for end in pair]
    drawn = [*ends, *(value for line in lines for value in line.values if value is not None)]
    low, high = 10 * np.floor(min(drawn) / 10), 10 * np.ceil(max(drawn) / 10)
    if high - low < 20:
        low, high = max(0.0, low - 10), min(100.0, high + 10)
    return float(low) - 1, float(high) + 3


def _spokes(lines: Sequence[ScoreLine]) -> list[ScoreLine]:
    """Return the lines of a radar plot: the categories if there are enough, else all."""
    categories = [line for line in lines if not line.is_mean]
    return categories if len(categories) >= LEAST_AXES else list(lines)


def _radar(axis: Any, lines: Sequence[ScoreLine], models: int, marked: bool) -> None:
    """Draw a spoke for each category and a closed line for each model."""
    spokes = _spokes(lines)
    angles = np.linspace(0, 2 * np.pi, len(spokes), endpoint=False)
    for index in range(models):
        values = [line.values[index] for line in spokes]
        if any(value is None for value in values):
            continue
        colour, marker = _style(index)
        closed = (np.append(angles, 0.0), [*values, values[0]])
        axis.plot(*closed, color=colour, marker=marker, markersize=3, linewidth=1.2)
        axis.fill(*closed, color=colour, alpha=0.07)
    axis.set_theta_offset(np.pi / 2)
    axis.set_theta_direction(-1)
    axis.set_rlim(0, 100)
    axis.set_rgrids([20, 40, 60, 80, 100], fontsize=6, color="#777777")
    axis.set_rlabel_position(180 / len(spokes))
    axis.set_xticks(angles, [_spoke(line, marked) for line in spokes])
    for label, angle in zip(axis.get_xticklabels(), angles, strict=True):
        side = np.sin(angle)
        label.set_horizontalalignment(
            "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
        )
    axis.tick_params(axis="x", pad=1)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines["polar"].set_color("#bbbbbb")


def _spoke(line: ScoreLine, marked: bool) -> str:
    """Return a spoke's label, with the mark if some model differs from the first one."""
    return line.category + (MARK if marked and any(line.marked) else "")
