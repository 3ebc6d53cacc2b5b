"""The numbers that papers print, for `clic-eval --published` and `--published-table NAME`.

They are in `published.yaml`, each with its source, its table, how it was averaged, and whether it
was read there or is second-hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from clic.errors import ConfigError
from clic.evaluation.benchmarks.catalogue import select
from clic.evaluation.tables.table import NumberPath

if TYPE_CHECKING:
    from clic.evaluation.report.report import Report

HALF_A_DIGIT = 0.05
"""Published percentages have one decimal, or two."""


@dataclass(frozen=True)
class PublishedNumber:
    """A number that a paper prints.

    Attributes:
        model: The model, as `published.yaml` calls it.
        benchmark: The benchmark's name here.
        path: The number's place in a report of this package.
        value: Percent.
        source: The paper.
        table: Where in the paper, or in its authors' files.
        averaging: How it was averaged.
        mark: `read`, or `second-hand` if only notes on the paper were.
        mean: What a mean is over: `categories`, `rows` or `unknown`.
    """

    model: str
    benchmark: str
    path: NumberPath
    value: float
    source: str
    table: str
    averaging: str
    mark: str
    mean: str = "categories"


@dataclass(frozen=True)
class BesideNumber:
    """A published number beside the one scored here.

    Attributes:
        published: The paper's number.
        here: Percent, unrounded.
        within: How far the two may differ and still agree: half a digit of the paper's, and one
            row, which a different rounding of equal scores may flip.
        over_rows: For a mean over categories, the percentage of all their rows together, and how
            far it may differ from the paper's; else None.
        other_rows: How the scored rows visibly differ from those of the paper; else empty.
    """

    published: PublishedNumber
    here: float
    within: float
    over_rows: tuple[float, float] | None = None
    other_rows: str = ""

    @property
    def difference(self) -> float:
        """The number scored here minus the paper's."""
        return self.here - self.published.value

    @property
    def agrees(self) -> bool:
        """Whether the rows are the paper's and rounding and one row explain the difference."""
        return not self.other_rows and abs(self.difference) <= self.within

    @property
    def agrees_over_rows(self) -> bool:
        """Whether the paper's number agrees with the mean over rows, and not with this one."""
        if self.agrees or self.other_rows or self.over_rows is None:
            return False
        value, within = self.over_rows
        return abs(value - self.published.value) <= within

    @property
    def verdict(self) -> str:
        """`yes`, `no`, `by rows` if the mean over rows agrees, or `rows` if the rows differ."""
        if self.other_rows:
            return "rows"
        return "yes" if self.agrees else "by rows" if self.agrees_over_rows else "no"


@lru_cache(maxsize=1)
def _content() -> dict[str, Any]:
    from omegaconf import OmegaConf

    text = (files("clic.evaluation.report") / "published.yaml").read_text(encoding="utf-8")
    content = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


@lru_cache(maxsize=1)
def published_numbers() -> tuple[PublishedNumber, ...]:
    """Return all published numbers, in the file's order."""
    return tuple(
        PublishedNumber(
            model=model,
            benchmark=table["benchmark"],
            path=(column, table.get("metric", "")),
            value=float(value),
            source=table["source"],
            table=table["table"],
            averaging=table["averaging"],
            mark=table["mark"],
            mean=table.get("mean", "categories"),
        )
        for table in _content()["tables"]
        for model, values in table["models"].items()
        for column, value in zip(table["columns"], values, strict=True)
        if value is not None
    )


def known_as(identity: Mapping[str, Any]) -> str | None:
    """Return a model's name in `published.yaml`, None if it is not listed there.

    A model is recognised by open_clip's name and tag, or by the name of the weights file that its
    authors share, unless the file was renamed. A text encoder, which has no tag, is recognised by
    its `source`.
    """
    source, tag = str(identity.get("source", "")), str(identity.get("pretrained", ""))
    own = {f"{source}:{tag}", PurePath(tag).name} if tag else {source}
    names: Mapping[str, Sequence[str]] = _content()["names"]
    return next((model for model, of in names.items() if own & set(of)), None)


def beside(report: Report) -> list[BesideNumber]:
    """Return every published number of a report's model and benchmarks beside the report's own."""
    model = known_as(report.model)
    return [
        BesideNumber(
            one,
            here,
            HALF_A_DIGIT + _one_row(report, one),
            _over_rows(report, one),
            _other_rows(report, one),
        )
        for one in published_numbers()
        if one.model == model and (here := _number(report, one)) is not None
    ]


def _number(report: Report, one: PublishedNumber) -> float | None:
    entry = report.benchmarks.get(one.benchmark, {}).get(one.path[0])
    value = entry.get(one.path[1]) if isinstance(entry, Mapping) else entry
    return None if value is None else float(value)


def _one_row(report: Report, one: PublishedNumber) -> float:
    """Return how many points one row moves a number; for a mean, a row of its smallest category."""
    counts = [count for _, count in _members(report, one)]
    return 100 / (min(counts) * len(counts))


def _members(report: Report, one: PublishedNumber) -> list[tuple[str, int]]:
    """Return the categories that a number is the mean of, or itself, with their rows."""
    numbers = report.benchmarks[one.benchmark]
    source = report.provenance.get("benchmarks", {}).get(one.benchmark, {})
    members = (source.get("groups") or {}).get(one.path[0]) or [one.path[0]]
    return [
        (
            name,
            entry["n"] if isinstance(entry := numbers[name], Mapping) else _queries(numbers, name),
        )
        for name in members
    ]


def _over_rows(report: Report, one: PublishedNumber) -> tuple[float, float] | None:
    """Return the mean over the rows of a mean's categories, and how far it may differ."""
    members, numbers = _members(report, one), report.benchmarks[one.benchmark]
    if len(members) < 2:
        return None
    total = sum(count for _, count in members)
    value = sum(numbers[name][one.path[1]] * count for name, count in members) / total
    return value, HALF_A_DIGIT + 100 / total


def _other_rows(report: Report, one: PublishedNumber) -> str:
    """Return how the report's rows visibly differ from the published ones; empty if they do not.

    The count of each category is compared with the authors' own if that is known, else the number
    of rows of the benchmark if that is established.
    """
    source = report.provenance.get("benchmarks", {}).get(one.benchmark, {})
    known: Mapping[str, int] = _content()["rows"].get(one.benchmark, {}).get("counts", {})
    for name, count in _members(report, one):
        if name in known and count != known[name]:
            return f"{name} has {count:,} rows here and {known[name]:,} in the paper"
    rows, expected = source.get("rows"), source.get("rows_expected")
    if not known and None not in (rows, expected) and rows != expected:
        return f"{one.benchmark} has {rows:,} rows here and {expected:,} in the paper"
    return ""


def _queries(numbers: Mapping[str, Any], name: str) -> int:
    captions = name.startswith("text_to_image")
    return int(numbers["n_captions"] if captions else numbers["n_images"])


def beside_lines(report: Report) -> Iterator[str]:
    """Yield lines with the published numbers beside a report's own, and with their sources."""
    model, found = known_as(report.model), beside(report)
    if model is None:
        yield f"published: no numbers of {report.name} are known (--published-table lists models)"
        return
    yield f"published numbers of {model}, known by its name ({report.name}):"
    yield f"  {'':<34}{'here':>6}{'paper':>7}{'diff.':>7}  agrees"
    if not found:
        yield "  none of the benchmarks that were scored"
    sources: dict[str, None] = {}
    for one in found:
        paper = one.published
        label = " ".join(filter(None, (paper.benchmark, paper.path[1], paper.path[0])))
        number = list(sources).index(_source(paper)) + 1 if _source(paper) in sources else 0
        if not number:
            sources[_source(paper)] = None
            number = len(sources)
        yield (
            f"  {label:<34.34}{one.here:>6.1f}{paper.value:>7.1f}{one.difference:>+7.1f}  "
            f"{one.verdict:<7} [{number}]"
        )
    for number, source in enumerate(sources, start=1):
        yield f"  [{number}] {source}"
    if found:
        yield "  agrees: within half a digit of the paper's and one row"
    for one in found:
        if one.verdict == "by rows" and one.over_rows is not None:
            name = " ".join(filter(None, (one.published.path[1], one.published.path[0])))
            yield (
                f"  by rows: {one.published.benchmark} {name} over its rows is "
                f"{one.over_rows[0]:.1f} here, as the paper's {one.published.value:.1f}; its "
                f"mean over categories is {one.here:.1f}"
            )
    for reason in dict.fromkeys(one.other_rows for one in found if one.other_rows):
        yield f"  rows: {reason}, so the two are not compared"
    for bench, source in report.provenance.get("benchmarks", {}).items():
        if source.get("covered_subset") and any(one.published.benchmark == bench for one in found):
            yield f"  {bench} is {source['covered_subset']} here, so its numbers need not agree"


def _source(one: PublishedNumber) -> str:
    return f"{one.source}, {one.table} ({one.mark}; {one.averaging})"


def field_lines(name: str) -> list[str]:
    """Return all published numbers on a benchmark or group, a block for each table, best first.

    Raises:
        ConfigError: The benchmark is unknown, or no published number on it is.
    """
    chosen = [benchmark.name for benchmark in select([name])]
    found = [one for one in published_numbers() if one.benchmark in chosen]
    if not found:
        have = ", ".join(dict.fromkeys(one.benchmark for one in published_numbers()))
        raise ConfigError(
            f"--published-table {name}: no published numbers on it are kept; some are on {have}"
        )
    lines = []
    blocks: dict[tuple[str, str, str], list[PublishedNumber]] = {}
    for one in found:
        blocks.setdefault((one.benchmark, one.path[1], _source(one)), []).append(one)
    for (benchmark, metric, source), numbers in blocks.items():
        columns = list(dict.fromkeys(one.path[0] for one in numbers))
        rows: dict[str, dict[str, float]] = {}
        for one in numbers:
            rows.setdefault(one.model, {})[one.path[0]] = one.value
        widths = [max(len(_short(column)), 6) + 1 for column in columns]
        lines += ["", f"{benchmark} {metric}".rstrip(), f"  {source}"]
        heads = zip(map(_short, columns), widths, strict=True)
        lines.append(f"  {'':<24}" + "".join(f"{head:>{width}}" for head, width in heads))
        last = columns[-1]
        for model in sorted(rows, key=lambda model: -rows[model].get(last, 0.0)):
            cells = [rows[model].get(column) for column in columns]
            shown = ["-" if value is None else f"{value:.1f}" for value in cells]
            pairs = zip(shown, widths, strict=True)
            lines.append(f"  {model:<24}" + "".join(f"{text:>{width}}" for text, width in pairs))
    return lines[1:]


_BRIEF = (
    ("image_to_text", "I2T"),
    ("text_to_image", "T2I"),
    ("replace_", "repl_"),
    ("piece_", ""),
    ("counting_", "count_"),
    ("coreference_", "coref_"),
    ("replacement", "repl"),
    ("adversarial", "advers"),
    ("quant", "q"),
    ("negative_", "neg_"),
    ("controlled_", "ctrl_"),
)


def _short(column: str) -> str:
    """Return a column's head: `I2T@1` for `image_to_text@1`, `repl_att` for `replace_att`."""
    for long, brief in _BRIEF:
        column = column.replace(long, brief)
    return column
