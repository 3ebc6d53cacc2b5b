"""A report on the terminal: rich tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clic.evaluation.report.comparison import LEVEL, Comparison
from clic.evaluation.report.report import Report, letter
from clic.evaluation.report.score_table import (
    ScoreLine,
    ScoreTable,
    ends,
    percent,
    score_tables,
    signed,
)

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
MAX_WITH_DIFFERENCES = 4
GAP = 2  # characters between columns
SHORTEST = 8  # characters to which the names' column may shrink
FIRST_AND_COUNT = 18  # characters of the columns A and n of a comparison
COMPARED_MODEL = 30  # characters of the columns of each other model, interval included


def tables(reports: Sequence[Report], comparison: Comparison | None = None) -> list[Table]:
    """Return rich tables for each benchmark, with the models side by side.

    A single model has a column for each metric. Several models have a column each, with differences
    to the first. A comparison adds intervals, in as many tables as the width requires.
    """
    made: list[Table] = []
    for scores in score_tables(reports, comparison):
        if len(reports) == 1 and scores.has_metrics:
            heads, rows = scores.metric_columns(scores.shown)
            named = [(line.is_mean, [line.category, *cells]) for line, cells in rows]
            made.append(_grid(scores, heads, named))
        elif comparison is None:
            made.append(_side_by_side(scores, len(reports)))
        else:
            made += _compared(scores, len(reports))
    return made


def new_table(title: str, first: str, below: str = "") -> Table:
    """Return an empty table in the common style, with its first column."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    # Rich would wrap the title to the width of a narrow table.
    heading = Text(title, style="table.title", no_wrap=True, overflow="ignore")
    table = RichTable(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    if below:
        table.caption, table.caption_justify = below, "left"
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    return table


def _grid(
    scores: ScoreTable, heads: Sequence[str], rows: Sequence[tuple[object, list[str]]]
) -> Table:
    """Return a table of text; names are shortened if the numbers need the width.

    Args:
        scores: The numbers behind the table.
        heads: The columns' titles.
        rows: A section key and the cells of each row; a rule is drawn where the key changes.
    """
    more = scores.left_out
    below = f"{more} categories: in the files (--csv, --json, --html)" if more else ""
    table = new_table(scores.title, heads[0], below)
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


def _model_columns(
    scores: ScoreTable, heads: Sequence[str], cells: Callable[[ScoreLine], list[str]]
) -> Table:
    """Return a table with a row for each number; `cells` returns the row's cells."""
    rows = [
        (line.metric, scores.with_count([line.label, *cells(line)], line.count))
        for line in scores.shown
    ]
    return _grid(scores, scores.with_count(["measure", *heads]), rows)


def _side_by_side(scores: ScoreTable, models: int) -> Table:
    """Return a table with a column for each model; a few models also have differences to A."""
    with_differences = 1 < models <= MAX_WITH_DIFFERENCES
    heads: list[str] = []
    for index in range(models):
        heads.append(letter(index) if models > 1 else "value")
        heads += [f"{letter(index)} - A"] if index and with_differences else []

    def cells(line: ScoreLine) -> list[str]:
        made: list[str] = []
        first = line.values[0]
        for index, value in enumerate(line.values):
            made.append(percent(value))
            if index and with_differences:
                made.append("" if value is None or first is None else signed(value - first))
        return made

    return _model_columns(scores, heads, cells)


def _compared(scores: ScoreTable, models: int) -> list[Table]:
    """Return tables of the first model beside the others, as many per table as fit."""
    label = max(len(line.label) for line in scores.shown)
    fitting = max(1, (WIDTH - label - FIRST_AND_COUNT) // COMPARED_MODEL)
    made = []
    for start in range(1, models, fitting):
        others = range(start, min(models, start + fitting))
        heads = [letter(0)]
        for index in others:
            heads += [letter(index), f"{letter(index)} - A", f"{LEVEL} %"]

        def cells(line: ScoreLine, others: range = others) -> list[str]:
            found = [percent(line.values[0])]
            for index in others:
                interval = line.intervals[index]
                found += [percent(line.values[index]), line.difference(index), ends(interval)]
            return found

        made.append(_model_columns(scores, heads, cells))
    return made
