"""The content of all tables, files and pages: a table per benchmark, a line per number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clic.evaluation.report.comparison import Comparison, Ends, Interval
from clic.evaluation.report.paired_rows import Path, leaves
from clic.evaluation.report.report import Report, covered_by_any, mean_names
from clic.evaluation.report.significance import MARK
from clic.evaluation.tables import KINDS

COUNTS = {"n_images": "images", "n_captions": "captions"}
LABELS = {
    "itt": "ITT",
    "tot": "TOT",
    "p1": "P1",
    "i2t": "I2T",
    "t2i": "T2I",
}
EXPLAINED = {key: line for kind in KINDS for key, line in kind.EXPLAINED.items()}
"""The meaning and the chance level of each metric, in one line."""
_ONE_CAPTION = (
    "accuracy: the image is nearer to the true caption than to the false one; chance 50 %"
)
_CLASSES = "the class whose prompts are nearest is the image's; chance 1 / number of classes"
MANY = 12  # with more categories than this, tables show only the means
TOGETHER = "zero-shot classification"


@dataclass(frozen=True)
class ScoreLine:
    """One number, for every model.

    Attributes:
        bench: The benchmark.
        path: The number's place in the report.
        metric: Label of the metric, empty if there are no categories.
        category: Label of the category, or of the number itself.
        is_mean: Whether it is a mean over categories, or covers all rows at once.
        values: The unrounded percentage of each model, None if it was not scored.
        counts: For each model the number of rows, images or queries behind the percentage.
        intervals: For each model its difference to the first one, if models are compared.
        marked: For each model whether that difference is significant.
        levels: For each model the interval of its own number, if one was computed.
    """

    bench: str
    path: Path
    metric: str
    category: str
    is_mean: bool
    values: tuple[float | None, ...]
    counts: tuple[int | None, ...]
    intervals: tuple[Interval | None, ...]
    marked: tuple[bool, ...] = ()
    levels: tuple[Ends | None, ...] = ()

    def difference(self, index: int) -> str:
        """Return a model's difference to the first one, with the mark if it is significant."""
        mark = MARK if self.marked and self.marked[index] else ""
        return difference(self.intervals[index]) + mark

    @property
    def label(self) -> str:
        """Metric and category together."""
        return " ".join(filter(None, (self.metric, self.category)))

    @property
    def count(self) -> str:
        """The number of rows behind the percentage; all distinct numbers if models differ."""
        return "/".join(f"{n:,}" for n in dict.fromkeys(n for n in self.counts if n is not None))

    @property
    def best(self) -> list[bool]:
        """Whether each model's value, as shown, is the highest; never for a single model."""
        known = [percent(value) for value in self.values if value is not None]
        top = max(known, key=float) if len(known) > 1 else None
        return [value is not None and percent(value) == top for value in self.values]


@dataclass(frozen=True)
class ScoreTable:
    """A benchmark's lines, grouped by metric.

    Attributes:
        name: The benchmark.
        size: The number of images and captions if lines do not have their own counts, followed by
            `subset`.
        all_lines: All numbers, by metric, in the report's order.
        subset: `a covered subset of 4,700 rows of 4,757` if some were left out, else empty.
    """

    name: str
    size: str
    all_lines: tuple[ScoreLine, ...]
    subset: str = ""

    @property
    def lines(self) -> list[ScoreLine]:
        """All numbers, without P1 if it equals ITT because rows have one true caption."""
        one_caption = _one_caption(line.path for line in self.all_lines)
        return [line for line in self.all_lines if not (one_caption and line.path[1] == "p1")]

    @property
    def shown(self) -> list[ScoreLine]:
        """The lines of a compact table: only the means if there are many categories."""
        return [line for line in self.lines if line.is_mean or not self.left_out]

    @property
    def left_out(self) -> int:
        """The number of categories that `shown` leaves out."""
        categories = {line.category for line in self.lines if line.metric and not line.is_mean}
        any_means = any(line.is_mean for line in self.lines)
        return len(categories) if any_means and len(categories) > MANY else 0

    @property
    def title(self) -> str:
        """Name and size."""
        return f"{self.name} ({self.size})" if self.size else self.name

    @property
    def counted(self) -> bool:
        """Whether lines have their own counts, rather than one count in the title."""
        return self.name == TOGETHER or any(line.path[1] for line in self.lines)

    @property
    def has_metrics(self) -> bool:
        """Whether the numbers have metrics, so that metrics can be columns."""
        return any(line.metric for line in self.lines)

    @property
    def explained(self) -> list[str]:
        """A line for each metric: its meaning and its chance level."""
        if _one_caption(line.path for line in self.all_lines):
            return [_ONE_CAPTION]
        found = [line.path[1] or line.path[0].partition("@")[0] for line in self.lines]
        known = [EXPLAINED[key] for key in dict.fromkeys(found) if key in EXPLAINED]
        classes = any(not line.path[1] and "@" not in line.path[0] for line in self.lines)
        return [line for line in known if not classes] + [_CLASSES] * classes

    def with_count(self, cells: Sequence[str], count: str = "n") -> list[str]:
        """Return a table row's cells, followed by the count if the lines are counted."""
        return [*cells, count] if self.counted else [*cells]

    def metric_columns(
        self, lines: Sequence[ScoreLine]
    ) -> tuple[list[str], list[tuple[ScoreLine, list[str]]]]:
        """Return one model's numbers as a table with a row per category and a column per metric.

        Args:
            lines: All lines, or those that are shown.

        Returns:
            The heads of all columns; and for each category its first line, for its name, with the
            cells of the other columns.
        """
        metrics = list(by_metric(lines))
        categories: dict[str, dict[str, ScoreLine]] = {}
        for line in lines:
            categories.setdefault(line.category, {})[line.metric] = line
        rows = []
        for found in categories.values():
            first = next(iter(found.values()))
            cells = [percent(found[m].values[0] if m in found else None) for m in metrics]
            rows.append((first, self.with_count(cells, first.count)))
        return self.with_count(["category", *metrics]), rows


def by_metric(lines: Iterable[ScoreLine]) -> dict[str, list[ScoreLine]]:
    """Return lines by metric."""
    found: dict[str, list[ScoreLine]] = {}
    for line in lines:
        found.setdefault(line.metric, []).append(line)
    return found


def score_tables(
    reports: Sequence[Report], comparison: Comparison | None = None
) -> list[ScoreTable]:
    """Return a table for each benchmark; benchmarks with one or two numbers share one.

    Args:
        reports: The models, in their order.
        comparison: The differences between the models, if they are compared.
    """
    names = dict.fromkeys(name for report in reports for name in report.benchmarks)
    tables = [_score_table(name, reports, comparison) for name in names]
    small = [table for table in tables if len(table.lines) <= 2 and not table.has_metrics]
    if len(small) < 2:
        return tables
    renamed = [
        replace(line, category=table.name if index == 0 else f"{table.name} {line.category}")
        for table in small
        for index, line in enumerate(table.lines)
    ]
    subsets = "; ".join(f"{table.name}: {table.subset}" for table in small if table.subset)
    together = ScoreTable(TOGETHER, subsets, tuple(renamed), subsets)
    return [
        together if table is small[0] else table
        for table in tables
        if table is small[0] or table not in small
    ]


def _score_table(
    bench: str, reports: Sequence[Report], comparison: Comparison | None
) -> ScoreTable:
    forms = [report.benchmarks.get(bench, {}) for report in reports]
    sources = [report.provenance.get("benchmarks", {}).get(bench, {}) for report in reports]
    values = [leaves(form) for form in forms]
    order = list(dict.fromkeys(path for found in values for path in found))
    labels = {path: _labels(path) for path in order}
    if _one_caption(order):
        labels |= {path: ("accuracy", path[0]) for path in order if path[1] == "itt"}
    means = {name for source in sources for name in mean_names(source)}
    lines = [
        ScoreLine(
            bench=bench,
            path=path,
            metric=labels[path][0],
            category=labels[path][1],
            is_mean=bool(path[1]) and path[0] in means,
            values=tuple(found.get(path) for found in values),
            counts=tuple(_count(form, path) for form in forms),
            intervals=tuple(
                None if comparison is None else comparison.get(bench, path, index)
                for index in range(len(reports))
            ),
            marked=tuple(
                comparison is not None and comparison.differs(bench, path, index)
                for index in range(len(reports))
            ),
            levels=tuple(
                None if comparison is None else comparison.level(bench, path, index)
                for index in range(len(reports))
            ),
        )
        for path in order
    ]
    grouped = [line for of_metric in by_metric(lines).values() for line in of_metric]
    subset = covered_by_any(sources)
    return ScoreTable(bench, _size(forms, subset), tuple(grouped), subset)


def _one_caption(paths: Iterable[Path]) -> bool:
    """Return whether rows have one true caption; ITT then equals P1, which papers call accuracy."""
    metrics = {metric for _, metric in paths}
    return {"itt", "p1"} <= metrics and "tot" not in metrics


def _labels(path: Path) -> tuple[str, str]:
    """Return a number's metric and category as labels; for recall, its direction and k."""
    name, metric = path
    if metric:
        return LABELS.get(metric, metric.replace("_", " ")), name
    direction, _, k = name.partition("@")
    plain = direction.replace("_", " ")
    return (plain, f"R@{k}") if k else ("", plain)


def _count(form: Mapping[str, Any], path: Path) -> int | None:
    """Return the number of rows or queries behind a percentage."""
    entry = form.get(path[0])
    if isinstance(entry, Mapping):
        return entry.get("n")
    return form.get("n_captions") if path[0].startswith("text_to_image") else form.get("n_images")


def _size(forms: Sequence[Mapping[str, Any]], subset: str) -> str:
    """Return the numbers of images and captions, and the covered subset, if it is one."""
    form = next(filter(None, forms), {})
    parts = [f"{form[key]:,} {what}" for key, what in COUNTS.items() if key in form]
    return ", ".join(filter(None, [*parts, subset]))


def percent(value: float | None) -> str:
    """Return a percentage with one decimal, or a dash for None."""
    return "-" if value is None else f"{value:.1f}"


def difference(interval: Interval | None) -> str:
    """Return a difference with its sign."""
    return "" if interval is None else signed(interval.difference)


def signed(value: float) -> str:
    """Return a number with its sign and one decimal."""
    return f"{_unsigned_zero(value):+.1f}"


def ends(interval: Interval | None) -> str:
    """Return the ends of an interval in brackets."""
    if interval is None:
        return ""
    return f"[{_unsigned_zero(interval.low):.1f}, {_unsigned_zero(interval.high):.1f}]"


def _unsigned_zero(value: float) -> float:
    """Return 0 for a value that would be shown as -0.0."""
    return 0.0 if abs(value) < 0.05 else value
