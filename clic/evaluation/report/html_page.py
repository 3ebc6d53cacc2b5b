"""A report as one self-contained page: bars, numbers, the worst failures, provenance.

The page runs no script and loads nothing: radio buttons and CSS filter its galleries. Its template,
`page.html`, escapes every caption and name, and its content security policy forbids running or
loading anything else.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from clic.evaluation.report.comparison import LEVEL, Comparison, interval_note
from clic.evaluation.report.report import Report, benchmark_facts, facts, letter, notes, warnings
from clic.evaluation.report.score_table import (
    LABELS,
    ScoreLine,
    ScoreTable,
    by_metric,
    ends,
    percent,
    score_tables,
)
from clic.evaluation.tables import kind_of
from clic.evaluation.tables.failure_cards import Failure, OtherRow
from clic.evaluation.tables.table import Row

Cell = tuple[str, str]
"""A table cell's CSS class and text."""
TableRow = tuple[ScoreLine, list[Cell]]
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLOURS = 6
LIMIT = 24  # failures of a benchmark; page.css has as many filters
OTHERS = 6  # other rows of an image, shown with a failure


@dataclass(frozen=True, eq=False)
class Worst:
    """What a model got wrong in one benchmark.

    Attributes:
        failures: The worst ones, the worst first.
        right: bool [N], whether each row's margin is above 0.
    """

    failures: list[Failure]
    right: np.ndarray


Gallery = Mapping[str, Worst]
"""A model's worst failures by benchmark."""


def worst_failures(report: Report, limit: int = LIMIT) -> Gallery:
    """Return the rows that a model got wrong by the widest margins, with their images.

    Args:
        report: With its rows, and with its tables if images are to be shown.
        limit: Failures of a benchmark; retrieval has half of them for each direction.
    """
    found = {}
    for bench, rows in groupby(report.rows, key=lambda row: row["benchmark"]):
        table = report.tables.get(bench)
        chosen, right = _choose(rows, limit)
        failures = _with_others(report, bench, chosen)
        if table is not None:
            failures = [table.illustrate(failure) for failure in failures]
        found[bench] = Worst(failures, right)
    return found


def _with_others(report: Report, bench: str, chosen: Sequence[tuple[int, Row]]) -> list[Failure]:
    """Return the cards of rows with the other rows about the same images.

    Retrieval has no other rows, because each image is a query only once.
    """
    failures = [kind_of(row).failure(row, number) for number, row in chosen]
    wanted = {image for _, row in chosen for image in _images(row)}
    found: dict[str, dict[int, OtherRow]] = {}
    own = (row for row in report.rows if row["benchmark"] == bench)
    for position, one_row in enumerate(own if wanted else ()):
        for image in wanted.intersection(_images(one_row)):
            found.setdefault(image, {})[position] = _other(one_row)
    made = []
    for failure, (number, row) in zip(failures, chosen, strict=True):
        others = {n: one for image in _images(row) for n, one in found[image].items()}
        others.pop(number, None)
        listed = [others[n] for n in sorted(others)]
        made.append(replace(failure, others=tuple(listed[:OTHERS]), more=len(listed[OTHERS:])))
    return made


def _images(row: Row) -> list[str]:
    """Return the names of a row's images; none for retrieval."""
    if "direction" in row:
        return []
    return row["images"] if "images" in row else [row["image"]] if "image" in row else []


def _other(row: Row) -> OtherRow:
    texts = kind_of(row).true_texts(row)
    return OtherRow(row.get("category") or row["task"], margin(row) > 0, " / ".join(texts))


def margin(row: Row) -> float:
    """Return the margin of the row's narrowest comparison; 0 or less is wrong.

    Margins are differences of cosines: for triplets those of ITT, or of TOT without an image; for
    two images and two captions those of the benchmark's strictest metric. For retrieval the margin
    is 1.5 less the rank.
    """
    return min(kind_of(row).margins(row).values())


def _choose(rows: Iterable[Row], limit: int) -> tuple[list[tuple[int, Row]], np.ndarray]:
    """Return the wrong rows with the lowest margins, and whether each row is right."""
    heaps: dict[str, list[tuple[float, int, Row]]] = {}
    right: list[bool] = []
    for number, row in enumerate(rows):
        how_wrong = -margin(row)
        right.append(how_wrong < 0)
        if how_wrong >= 0:
            heap = heaps.setdefault(row.get("direction", ""), [])
            entry = (how_wrong, -number, row)
            (heapq.heappush if len(heap) < limit else heapq.heappushpop)(heap, entry)
    each = max(1, limit // max(1, len(heaps)))
    chosen = [
        (-minus_number, row)
        for heap in heaps.values()
        for _, minus_number, row in sorted(heap, key=lambda entry: entry[:2], reverse=True)[:each]
    ]
    return chosen, np.array(right, dtype=bool)


def page(
    reports: Sequence[Report],
    comparison: Comparison | None = None,
    galleries: Sequence[Gallery] = (),
) -> Iterator[str]:
    """Yield the page piece by piece.

    Args:
        reports: The models.
        comparison: The differences between the models, if they are compared.
        galleries: Each model's worst failures by benchmark, see `worst_failures`.
    """
    # Imported here, because jinja2 loads slowly and only pages need it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(letter=letter, percent=percent, by_metric=by_metric, anchor=_anchor)
    title = " and ".join(report.name for report in reports[:2])
    return environment.get_template("page.html").generate(
        policy=POLICY,
        title=title + (" and others" if len(reports) > 2 else ""),
        date=str(reports[0].provenance.get("date", "")).split("T")[0],
        reports=reports,
        warnings=warnings(reports),
        notes=notes(reports),
        benchmarks=score_tables(reports, comparison),
        interval_note="" if comparison is None else interval_note(comparison),
        facts=[facts(report) for report in reports],
        benchmark_facts=benchmark_facts(reports),
        labels=LABELS,
        colour=lambda index: _colour(index, len(reports)),
        tables=lambda scores: _tables(scores, len(reports)),
        failures=lambda scores: _failures(scores, reports, galleries),
        verdict=lambda failure, bench, m: _verdict(failure, bench, m, reports, galleries),
        filters=lambda cards, bench, m: _filters(cards, bench, m, reports, galleries),
    )


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _colour(index: int, models: int) -> str:
    """Return a model's colour; the first of several is grey, as the others are compared with it."""
    number = index if index < COLOURS else 1 + (index - 1) % (COLOURS - 1)
    return f"--colour:var(--m{number if models > 1 else 1})"


def _tables(scores: ScoreTable, models: int) -> Iterator[tuple[str, list[str], list[TableRow]]]:
    """Yield title, heads and rows of one table for a single model, else of one for each metric."""
    if models == 1 and scores.has_metrics:
        heads, rows = scores.metric_columns(scores.lines)
        yield scores.title, heads, [(line, [("", x) for x in cells]) for line, cells in rows]
        return
    for metric, lines in by_metric(scores.lines).items():
        compared = any(any(line.intervals) for line in lines)
        heads = [metric or "measure"]
        for index in range(models):
            heads.append(letter(index) if models > 1 else "%")
            if index and compared:
                heads += [f"{letter(index)} − A", f"{LEVEL} % interval"]
        rows_of_cells = [(line, _cells(line, compared, scores.counted)) for line in lines]
        title = " ".join(filter(None, (scores.title, metric)))
        yield title, scores.with_count(heads), rows_of_cells


def _cells(line: ScoreLine, compared: bool, counted: bool) -> list[Cell]:
    cells = []
    for index, (value, is_best) in enumerate(zip(line.values, line.best, strict=True)):
        cells.append(("best" if is_best else "", percent(value)))
        if index and compared:
            cells += _interval(line, index)
    return [*cells, ("", line.count)] if counted else cells


def _interval(line: ScoreLine, index: int) -> list[Cell]:
    interval = line.intervals[index]
    if interval is None:
        return [("", ""), ("", "")]
    kind = "up" if interval.low > 0 else "down" if interval.high < 0 else "quiet"
    return [(kind, line.difference(index)), ("quiet", ends(interval))]


def _failures(
    scores: ScoreTable, reports: Sequence[Report], galleries: Sequence[Gallery]
) -> Iterator[tuple[str, str, int, list[Failure]]]:
    """Yield heading, benchmark, model and worst failures for each model that failed."""
    benches = dict.fromkeys(line.bench for line in scores.lines)
    for bench in benches:
        for index, gallery in enumerate(galleries):
            failures = gallery[bench].failures if bench in gallery else []
            if failures:
                what = "worst failure" if len(failures) == 1 else f"{len(failures)} worst failures"
                where = f" of {bench}" if len(benches) > 1 else ""
                name = f": {letter(index)} {reports[index].name}" if len(reports) > 1 else ""
                yield f"The {what}{where}{name}", bench, index, failures


def _verdict(
    failure: Failure,
    bench: str,
    index: int,
    reports: Sequence[Report],
    galleries: Sequence[Gallery],
) -> str:
    """Return how a model failed, and whether the other models are right on the same row."""
    parts = [failure.verdict]
    for other, right in _others(failure, bench, index, reports, galleries).items():
        parts.append(f"{letter(other)} is {'right' if right else 'wrong too'}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _others(
    failure: Failure,
    bench: str,
    index: int,
    reports: Sequence[Report],
    galleries: Sequence[Gallery],
) -> dict[int, bool]:
    """Return whether each other model that was scored on the same rows is right on this one."""
    sources = [
        report.provenance.get("benchmarks", {}).get(bench, {})
        for report in reports
        if bench in report.benchmarks
    ]
    if len({(source.get("sha256"), source.get("rows")) for source in sources}) != 1:
        return {}
    return {
        other: bool(gallery[bench].right[failure.number])
        for other, gallery in enumerate(galleries)
        if other != index and bench in gallery
    }


@dataclass(frozen=True)
class Filters:
    """The buttons above a gallery, and what each of its cards belongs to.

    Attributes:
        categories: Names of the cards' categories; empty if there is one.
        who: Whether cards differ in who is wrong.
        classes: For each card its CSS classes: `cN` by category, and `alone` or `shared`.
    """

    categories: tuple[str, ...]
    who: bool
    classes: tuple[str, ...]


def _filters(
    cards: Sequence[Failure],
    bench: str,
    index: int,
    reports: Sequence[Report],
    galleries: Sequence[Gallery],
) -> Filters:
    """Return what a gallery can be filtered by: category, and whether others are wrong too."""
    names = tuple(dict.fromkeys(card.category for card in cards))
    classes, kinds = [], set()
    for card in cards:
        others = _others(card, bench, index, reports, galleries)
        kind = "" if not others else "alone" if all(others.values()) else "shared"
        kinds.add(kind)
        classes.append(f"c{names.index(card.category)} {kind}".strip())
    return Filters(names if len(names) > 1 else (), len(kinds - {""}) > 1, tuple(classes))
