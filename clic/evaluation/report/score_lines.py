"""What every table, file and page shows: a panel for each benchmark, a line for each number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clic.evaluation.report.comparison import Comparison, Interval
from clic.evaluation.report.paired_rows import Path, leaves
from clic.evaluation.report.report import Report
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
"""What each metric is, in a line, with what guessing would give."""
_ONE_CAPTION = (
    "accuracy: the image is nearer to the true caption than to the false one; chance 50 %"
)
_CLASSES = "the class whose prompts are nearest is the image's; chance 1 / number of classes"
MANY = 12  # categories: beyond, tables show the means alone
TOGETHER = "zero-shot classification"


@dataclass(frozen=True)
class ScoreLine:
    """One number of every model.

    Attributes:
        bench: Its benchmark.
        path: Its place in the report.
        metric: Label of the metric, empty where there are no categories.
        category: Label of the category, or of the number itself.
        is_mean: Whether it is a mean over categories, or all of them as one.
        values: For each model, unrounded percent; None where it was not scored.
        counts: For each model the rows, images or queries that it is the percentage of.
        intervals: For each model its difference to the first one, where models are compared.
    """

    bench: str
    path: Path
    metric: str
    category: str
    is_mean: bool
    values: tuple[float | None, ...]
    counts: tuple[int | None, ...]
    intervals: tuple[Interval | None, ...]

    @property
    def label(self) -> str:
        """Metric and category in one."""
        return " ".join(filter(None, (self.metric, self.category)))

    @property
    def count(self) -> int | None:
        """The first known count."""
        return next((n for n in self.counts if n is not None), None)


@dataclass(frozen=True)
class Panel:
    """A benchmark's lines, those of a metric together.

    Attributes:
        name: The benchmark.
        size: How many rows, images or captions were scored, `4,700 of 4,757 rows` where some
            were left out; empty where every line has its count.
        every: All numbers, by metric, in the report's order.
    """

    name: str
    size: str
    every: tuple[ScoreLine, ...]

    @property
    def lines(self) -> list[ScoreLine]:
        """All numbers but those that repeat others: P1 where rows have one true caption."""
        one_caption = _one_caption(line.path for line in self.every)
        return [line for line in self.every if not (one_caption and line.path[1] == "p1")]

    @property
    def title(self) -> str:
        """Name and size."""
        return f"{self.name} ({self.size})" if self.size else self.name

    @property
    def counted(self) -> bool:
        """Whether lines have counts of their own, which the title does not give."""
        return self.name == TOGETHER or any(line.path[1] for line in self.lines)

    @property
    def sections(self) -> dict[str, list[ScoreLine]]:
        """The lines by metric."""
        found: dict[str, list[ScoreLine]] = {}
        for line in self.lines:
            found.setdefault(line.metric, []).append(line)
        return found

    @property
    def explained(self) -> list[str]:
        """What each metric is, a line each, with its chance level."""
        if _one_caption(line.path for line in self.every):
            return [_ONE_CAPTION]
        found = [line.path[1] or line.path[0].partition("@")[0] for line in self.lines]
        told = [EXPLAINED[key] for key in dict.fromkeys(found) if key in EXPLAINED]
        classes = any(not line.path[1] and "@" not in line.path[0] for line in self.lines)
        return [line for line in told if not classes] + [_CLASSES] * classes

    @property
    def by_category(self) -> dict[str, dict[str, ScoreLine]]:
        """The lines that are shown, by category and metric: one model's rows and columns."""
        found: dict[str, dict[str, ScoreLine]] = {}
        for line in self.shown:
            found.setdefault(line.category, {})[line.metric] = line
        return found

    @property
    def left_out(self) -> int:
        """How many categories `shown` leaves out."""
        categories = {line.category for line in self.lines if line.metric and not line.is_mean}
        any_means = any(line.is_mean for line in self.lines)
        return len(categories) if any_means and len(categories) > MANY else 0

    @property
    def shown(self) -> list[ScoreLine]:
        """The lines that a table has room for: of many categories their means alone."""
        return [line for line in self.lines if line.is_mean or not self.left_out]


def panels(reports: Sequence[Report], comparison: Comparison | None = None) -> list[Panel]:
    """Return a panel for each benchmark, those of a number or two in one panel.

    Args:
        reports: The models, in their order.
        comparison: Their differences, where they are compared.
    """
    names = dict.fromkeys(name for report in reports for name in report.benchmarks)
    made = [_panel(name, reports, comparison) for name in names]
    small = [panel for panel in made if _is_small(panel)]
    if len(small) < 2:
        return made
    together = Panel(TOGETHER, "", tuple(line for panel in small for line in _renamed(panel)))
    kept: list[Panel] = []
    for panel in made:
        if panel is small[0]:
            kept.append(together)
        elif panel not in small:
            kept.append(panel)
    return kept


def _is_small(panel: Panel) -> bool:
    return len(panel.lines) <= 2 and not any(line.metric for line in panel.lines)


def _renamed(panel: Panel) -> Iterator[ScoreLine]:
    """Yield the lines of a small panel, named by their benchmark."""
    for index, line in enumerate(panel.lines):
        name = panel.name if index == 0 else f"{panel.name} {line.category}"
        yield ScoreLine(**{**vars(line), "category": name})


def _panel(bench: str, reports: Sequence[Report], comparison: Comparison | None) -> Panel:
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
            metric=metric,
            category=labels[path][1],
            is_mean=bool(path[1]) and path[0] in means,
            values=tuple(found.get(path) for found in values),
            counts=tuple(_count(form, path) for form in forms),
            intervals=tuple(
                comparison.get(bench, path, index) if comparison is not None else None
                for index in range(len(reports))
            ),
        )
        for metric in dict.fromkeys(label for label, _ in labels.values())
        for path in order
        if labels[path][0] == metric
    ]
    return Panel(bench, _size(forms, sources), tuple(lines))


def _one_caption(paths: Iterable[Path]) -> bool:
    """Return whether rows have one true caption: ITT is P1 then, and what papers call accuracy."""
    metrics = {metric for _, metric in paths}
    return {"itt", "p1"} <= metrics and "tot" not in metrics


def _labels(path: Path) -> tuple[str, str]:
    """Return a number's metric and category as people write them; for recall direction and k."""
    name, metric = path
    if metric:
        return LABELS.get(metric, metric.replace("_", " ")), name
    direction, _, k = name.partition("@")
    plain = direction.replace("_", " ")
    return (plain, f"R@{k}") if k else ("", plain)


def mean_names(source: Mapping[str, Any]) -> Iterable[str]:
    """Return the names of a benchmark's means over categories, all rows as one included."""
    names = [*(source.get("groups") or {})]
    return [*names, source["overall"]] if source.get("overall") else names


def _count(form: Mapping[str, Any], path: Path) -> int | None:
    """Return of how many rows or queries a number is the percentage."""
    entry = form.get(path[0])
    if isinstance(entry, Mapping):
        return entry.get("n")
    return form.get("n_captions") if path[0].startswith("text_to_image") else form.get("n_images")


def _size(forms: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]) -> str:
    """Return what was scored: images and captions where lines have no rows, and what is reduced."""
    form = next(filter(None, forms), {})
    parts = [f"{form[key]:,} {what}" for key, what in COUNTS.items() if key in form]
    for source in sources:
        if source.get("rows") != source.get("rows_of_the_whole"):
            parts.append(f"{source['rows']:,} of {source['rows_of_the_whole']:,} rows")
            break
    return ", ".join(parts)


def shown(value: float | None) -> str:
    """Return a percentage with one decimal, a dash for none."""
    return "-" if value is None else f"{value:.1f}"


def difference(interval: Interval | None) -> str:
    """Return a difference with its sign."""
    return "" if interval is None else signed(interval.difference)


def signed(value: float) -> str:
    """Return a number with its sign and one decimal."""
    return f"{_zero(value):+.1f}"


def ends(interval: Interval | None) -> str:
    """Return the ends of an interval in brackets."""
    if interval is None:
        return ""
    return f"[{_zero(interval.low):.1f}, {_zero(interval.high):.1f}]"


def _zero(value: float) -> float:
    """Return a value without the sign of a zero that was rounded to."""
    return 0.0 if abs(value) < 0.05 else value


def count(line: ScoreLine) -> str:
    """Return the rows that a number stands on; where models differ, each of their numbers."""
    return "/".join(f"{n:,}" for n in dict.fromkeys(n for n in line.counts if n is not None))


def best(line: ScoreLine) -> list[bool]:
    """Return which models' shown values are the highest, none of them for a single model."""
    known = [shown(value) for value in line.values if value is not None]
    if len(known) < 2:
        return [False] * len(line.values)
    top = max(known, key=float)
    return [value is not None and shown(value) == top for value in line.values]
