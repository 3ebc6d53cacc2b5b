"""A report on the terminal: rich tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clic.evaluation import panels
from clic.evaluation.compare import Comparison
from clic.evaluation.panels import Line, Panel
from clic.evaluation.report import Report, letter

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
MAX_WITH_DIFFERENCES = 4
NUMBER, COUNT, DIFFERENCE, ENDS = 5, 6, 5, 14  # widths of columns, in characters


def tables(reports: Sequence[Report], comparison: Comparison | None = None) -> list[Table]:
    """Return rich tables for each benchmark, the models side by side.

    One model has a column for each metric. Several have a column each, with the differences to the
    first; where they are compared, with their intervals, in as many tables as the width asks for.
    """
    made: list[Table] = []
    for panel in panels.panels(reports, comparison):
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


def _begin(panel: Panel, first: str) -> Table:
    more = panel.left_out
    below = f"{more} categories: in the files (--csv, --json, --html)" if more else ""
    return new_table(panel.title, first, below)


def _number(table: Table, title: str, width: int) -> None:
    table.add_column(title, justify="right", no_wrap=True, min_width=min(width, len(title)))


def _by_metric(panel: Panel) -> Table:
    """Return one model's numbers, a row for each category and a column for each metric."""
    table = _begin(panel, "category")
    metrics = list(panel.sections)
    for metric in metrics:
        _number(table, metric, NUMBER)
    if panel.counted:
        _number(table, "n", COUNT)
    in_means = False
    for category, found in panel.by_category.items():
        first = next(iter(found.values()))
        if first.is_mean and not in_means and table.row_count:
            table.add_section()
        in_means = first.is_mean
        cells = (panels.shown(found[m].values[0]) if m in found else "-" for m in metrics)
        table.add_row(category, *cells, *([panels.count(first)] if panel.counted else []))
    return table


def _side_by_side(panel: Panel, models: int) -> Table:
    """Return a line for each number, a column for each model, and differences to the first."""
    with_differences = 1 < models <= MAX_WITH_DIFFERENCES
    table = _begin(panel, "measure")
    for index in range(models):
        _number(table, letter(index) if models > 1 else "value", NUMBER)
        if index and with_differences:
            _number(table, f"{letter(index)} - A", DIFFERENCE)

    def cells(line: Line) -> list[str]:
        made: list[str] = []
        for index, value in enumerate(line.values):
            made.append(panels.shown(value))
            if index and with_differences:
                made.append(_difference(value, line.values[0]))
        return made

    _fill(table, panel, cells)
    return table


def _difference(value: float | None, first: float | None) -> str:
    return "" if value is None or first is None else f"{value - first:+.1f}"


def _compared(panel: Panel, models: int) -> list[Table]:
    """Return the first model with each of the others, as many to a table as there is room for."""
    label = max(len(line.label) for line in panel.shown)
    each = NUMBER + DIFFERENCE + ENDS + 3 * 2
    room = max(1, (WIDTH - label - NUMBER - COUNT - 4) // each)
    made = []
    for start in range(1, models, room):
        others = range(start, min(models, start + room))
        table = _begin(panel, "measure")
        _number(table, letter(0), NUMBER)
        for index in others:
            _number(table, letter(index), NUMBER)
            _number(table, f"{letter(index)} - A", DIFFERENCE)
            _number(table, "95 %", ENDS)

        def cells(line: Line, others: range = others) -> list[str]:
            found = [panels.shown(line.values[0])]
            for index in others:
                interval = line.intervals[index]
                found += [panels.shown(line.values[index]), panels.difference(interval)]
                found.append(panels.ends(interval))
            return found

        _fill(table, panel, cells)
        made.append(table)
    return made


def _fill(table: Table, panel: Panel, cells: Callable[[Line], list[str]]) -> None:
    """Add a row for each line, a rule where another metric begins, and the column of counts."""
    counted = panel.counted
    if counted:
        _number(table, "n", COUNT)
    previous: str | None = None
    for line in panel.shown:
        if previous is not None and line.metric != previous:
            table.add_section()
        previous = line.metric
        table.add_row(line.label, *cells(line), *([panels.count(line)] if counted else []))
