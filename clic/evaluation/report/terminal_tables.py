"""A report on the terminal: rich tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clic.evaluation.report import score_lines
from clic.evaluation.report.comparison import LEVEL, Comparison
from clic.evaluation.report.report import Report, letter
from clic.evaluation.report.score_lines import Panel, ScoreLine

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
MAX_WITH_DIFFERENCES = 4
GAP = 2  # characters between columns
SHORTEST = 8  # to which the column of names may be cut
FIRST_AND_COUNT, EACH = 18, 30  # of a comparison: A and n, and another model with its interval


def tables(reports: Sequence[Report], comparison: Comparison | None = None) -> list[Table]:
    """Return rich tables for each benchmark, the models side by side.

    One model has a column for each metric. Several have a column each, with the differences to the
    first; where they are compared, with their intervals, in as many tables as the width asks for.
    """
    made: list[Table] = []
    for panel in score_lines.panels(reports, comparison):
        if len(reports) == 1 and any(line.metric for line in panel.lines):
            made.append(_by_metric(panel))
        elif comparison is None:
            made.append(_side_by_side(panel, len(reports)))
        else:
            made += _compared(panel, len(reports))
    return made


def new_table(title: str, first: str, below: str = "") -> Table:
    """Return an empty table in the house's style, with its first column."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    # A narrow table would break its title into short lines.
    heading = Text(title, style="table.title", no_wrap=True, overflow="ignore")
    table = RichTable(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    if below:
        table.caption, table.caption_justify = below, "left"
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    return table


def _grid(panel: Panel, heads: Sequence[str], rows: Sequence[tuple[object, list[str]]]) -> Table:
    """Return a table of texts; names give way where numbers need the room.

    Args:
        panel: Whose table it is.
        heads: The columns' titles.
        rows: Each with what it belongs to; a rule is drawn where that changes.
    """
    more = panel.left_out
    below = f"{more} categories: in the files (--csv, --json, --html)" if more else ""
    table = new_table(panel.title, heads[0], below)
    columns = list(zip(heads, *(cells for _, cells in rows), strict=True))[1:]
    widths = [max(map(len, column)) for column in columns]
    table.columns[0].max_width = max(SHORTEST, WIDTH - sum(widths) - GAP * (1 + len(widths)))
    for head, width in zip(heads[1:], widths, strict=True):
        table.add_column(head, justify="right", no_wrap=True, min_width=width)
    for before, (part, cells) in zip([None, *rows], rows, strict=False):
        if before is not None and before[0] != part:
            table.add_section()
        table.add_row(*cells)
    return table


def _by_metric(panel: Panel) -> Table:
    """Return one model's numbers, a row for each category and a column for each metric."""
    metrics = list(panel.sections)
    rows: list[tuple[object, list[str]]] = []
    for category, found in panel.by_category.items():
        first = next(iter(found.values()))
        cells = [score_lines.shown(found[m].values[0]) if m in found else "-" for m in metrics]
        counts = [score_lines.count(first)] if panel.counted else []
        rows.append((first.is_mean, [category, *cells, *counts]))
    return _grid(panel, ["category", *metrics, *(["n"] if panel.counted else [])], rows)


def _by_model(panel: Panel, heads: Sequence[str], cells: Callable[[ScoreLine], list[str]]) -> Table:
    """Return a row for each number, with these cells of the models, by metric."""
    counted = panel.counted
    rows = [
        (line.metric, [line.label, *cells(line), *([score_lines.count(line)] if counted else [])])
        for line in panel.shown
    ]
    return _grid(panel, ["measure", *heads, *(["n"] if counted else [])], rows)


def _side_by_side(panel: Panel, models: int) -> Table:
    """Return a column for each model, and the differences to the first of a few."""
    with_differences = 1 < models <= MAX_WITH_DIFFERENCES
    heads: list[str] = []
    for index in range(models):
        heads.append(letter(index) if models > 1 else "value")
        heads += [f"{letter(index)} - A"] if index and with_differences else []

    def cells(line: ScoreLine) -> list[str]:
        made: list[str] = []
        for index, value in enumerate(line.values):
            made.append(score_lines.shown(value))
            if index and with_differences:
                made.append(_difference(value, line.values[0]))
        return made

    return _by_model(panel, heads, cells)


def _difference(value: float | None, first: float | None) -> str:
    return "" if value is None or first is None else score_lines.signed(value - first)


def _compared(panel: Panel, models: int) -> list[Table]:
    """Return the first model with each of the others, as many to a table as there is room for."""
    label = max(len(line.label) for line in panel.shown)
    room = max(1, (WIDTH - label - FIRST_AND_COUNT) // EACH)
    made = []
    for start in range(1, models, room):
        others = range(start, min(models, start + room))
        heads = [letter(0)]
        for index in others:
            heads += [letter(index), f"{letter(index)} - A", f"{LEVEL} %"]

        def cells(line: ScoreLine, others: range = others) -> list[str]:
            found = [score_lines.shown(line.values[0])]
            for index in others:
                interval = line.intervals[index]
                found += [score_lines.shown(line.values[index]), score_lines.difference(interval)]
                found.append(score_lines.ends(interval))
            return found

        made.append(_by_model(panel, heads, cells))
    return made
