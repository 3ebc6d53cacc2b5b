"""A report for other programs and for papers: CSV, Markdown and LaTeX.

CSV contains unrounded numbers; the tables show one decimal.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from clic.evaluation.report.comparison import LEVEL, Comparison, interval_note
from clic.evaluation.report.report import (
    Report,
    benchmark_facts,
    covered_subset,
    facts,
    letter,
    notes,
    warnings,
)
from clic.evaluation.report.score_table import (
    ScoreLine,
    ScoreTable,
    by_metric,
    ends,
    percent,
    score_tables,
)
from clic.evaluation.report.significance import MARK

RECORDED = ("commit", "date", "seconds", "device", "dtype", "seed")
CSV_COLUMNS = (
    "model", "benchmark", "category", "metric", "value", "n", "difference", "low", "high", "p_holm",
    "benchmark_version", "benchmark_sha256", "rows", "rows_of_the_whole", "subset",
    "weights_sha256",
    *RECORDED, "settings",
)  # fmt: skip
# Shrinks a table that is wider than the line, and leaves others unchanged.
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
_FORMULA = re.compile(r"[\s\0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


# CSV


def csv_text(reports: Sequence[Report], comparison: Comparison | None = None) -> str:
    """Return a line for each number of each model, unrounded, with its provenance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    lines = [line for table in score_tables(reports, comparison) for line in table.all_lines]
    for line in lines:
        for index, report in enumerate(reports):
            if line.values[index] is not None:
                row = _csv_row(report, line, index)
                if comparison is not None:
                    row["p_holm"] = comparison.p_value(line.bench, line.path, index)
                writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet runs as a formula, because names come from other people."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _csv_row(report: Report, line: ScoreLine, index: int) -> dict[str, Any]:
    record = report.provenance
    source = record.get("benchmarks", {}).get(line.bench, {})
    name, metric = line.path
    interval = line.intervals[index]
    return {
        "model": report.name,
        "benchmark": line.bench,
        "category": name if metric else "",
        "metric": metric or name,
        "value": line.values[index],
        "n": line.counts[index],
        **(interval._asdict() if interval is not None else {}),
        "benchmark_version": source.get("version"),
        "benchmark_sha256": source.get("sha256"),
        "rows": source.get("rows"),
        "rows_of_the_whole": source.get("rows_of_the_whole"),
        "subset": covered_subset(source) or None,
        "weights_sha256": report.model.get("weights_sha256"),
        **{key: record.get(key) for key in RECORDED},
        "settings": json.dumps(record.get("settings", {})),
    }


# Markdown


def markdown(reports: Sequence[Report], comparison: Comparison | None = None) -> str:
    """Return tables that read well both raw and on GitHub, followed by the provenance."""
    lines = ["# Evaluation", ""]
    if len(reports) > 1:
        lines += [f"- **{letter(i)}** = {_plain(r.name)}" for i, r in enumerate(reports)]
        lines.append("")
    for table in score_tables(reports, comparison):
        lines += [f"## {_plain(table.title)}", "", *_markdown_table(table, len(reports))]
        if table.left_out:
            lines += ["", f"{table.left_out} categories: in the CSV and JSON files."]
        lines.append("")
    lines += ["Percent right; ties are wrong."]
    if comparison is not None:
        lines.append(_plain(interval_note(comparison)))
    lines += [f"**Warning: {_plain(warning)}.**" for warning in warnings(reports)]
    lines += [f"Note: {_plain(note)}." for note in notes(reports)]
    lines += ["", "## Provenance", ""]
    for report in reports:
        own = facts(report)
        lines.append(f"- **{_plain(own.pop('model'))}**")
        lines += [f"  - {label}: {_plain(value)}" for label, value in own.items()]
    lines += [f"- {_plain(name)}: {_plain(f)}" for name, f in benchmark_facts(reports).items()]
    return "\n".join(lines) + "\n"


def _markdown_table(table: ScoreTable, models: int) -> list[str]:
    if models == 1 and table.has_metrics:
        heads, categories = table.metric_columns(table.shown)
        rows = [heads, *([_plain(line.category), *cells] for line, cells in categories)]
    else:
        rows = _model_columns(table, models)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    return [padded[0], rule, *padded[1:]]


def _model_columns(table: ScoreTable, models: int) -> list[list[str]]:
    """Return rows of cells: a row for each number, a column for each model."""
    compared = any(any(line.intervals) for line in table.lines)
    heads = ["measure"]
    for index in range(models):
        heads.append(letter(index) if models > 1 else "%")
        if index and compared:
            heads.append(f"{letter(index)} − A")
    rows = [table.with_count(heads)]
    for line in table.shown:
        cells = [_plain(line.label)]
        for index, (value, is_best) in enumerate(zip(line.values, line.best, strict=True)):
            cells.append(f"**{percent(value)}**" if is_best else percent(value))
            if index and compared:
                interval = line.intervals[index]
                cells.append(f"{_plain(line.difference(index))} {ends(interval)}".strip())
        rows.append(table.with_count(cells, line.count))
    return rows


def _plain(text: str) -> str:
    """Return a text on one line, escaped so that Markdown shows it verbatim."""
    text = re.sub(r"([\\`*|<\[\]])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # Within a word it is not emphasis.


# LaTeX


def latex(reports: Sequence[Report], comparison: Comparison | None = None) -> str:
    """Return a booktabs table for each benchmark, with models as rows and best values bold."""
    lines = ["% Written by clic-eval. In the preamble: \\usepackage{booktabs,graphicx}"]
    for report in reports:
        lines += [f"% {label}: {' '.join(value.split())}" for label, value in facts(report).items()]
    lines += [f"% {name}: {fact}" for name, fact in benchmark_facts(reports).items()]
    lines += [f"% WARNING: {warning}" for warning in warnings(reports)]
    lines += [f"% note: {note}" for note in notes(reports)]
    for table in score_tables(reports, comparison):
        lines += ["", *_latex_table(table, reports, comparison)]
    return "\n".join(lines) + "\n"


def _latex_table(
    table: ScoreTable, reports: Sequence[Report], comparison: Comparison | None
) -> Iterator[str]:
    sections = by_metric(table.shown)
    heads = [[line.category for line in lines] for lines in sections.values()]
    alike = all(one == heads[0] for one in heads)
    widest = max(map(len, heads))
    yield r"\begin{table}"
    yield r"  \centering"
    caption = f"{escape_latex(table.title)}: percent right, ties are wrong."
    if comparison is not None:
        caption += f" {escape_latex(interval_note(comparison))}"
    yield rf"  \caption{{{caption}}}"
    yield rf"  \label{{tab:{_latex_label(table.name)}}}"
    yield rf"  {SHRINK}{{%"
    yield rf"  \begin{{tabular}}{{l{'r' * widest}}}"
    yield r"    \toprule"
    for index, (metric, lines) in enumerate(sections.items()):
        if index:
            yield r"    \midrule"
        if index == 0 or not alike:
            yield _latex_row(["", *map(escape_latex, heads[index])], widest)
            yield r"    \midrule"
        if metric:
            yield rf"    \multicolumn{{{1 + widest}}}{{l}}{{\textit{{{escape_latex(metric)}}}}} \\"
        for cells in _latex_models(lines, reports, comparison):
            yield _latex_row(cells, widest)
        if table.counted and metric and (not alike or index == len(sections) - 1):
            yield r"    \midrule"
            yield _latex_row(["$n$", *(line.count for line in lines)], widest)
    yield r"    \bottomrule"
    yield r"  \end{tabular}}"
    if table.left_out:
        yield f"  % {table.left_out} categories: in the CSV and JSON files"
    yield r"\end{table}"


def _latex_models(
    lines: Sequence[ScoreLine], reports: Sequence[Report], comparison: Comparison | None
) -> Iterator[list[str]]:
    """Yield the cells of each model, followed by its differences to the first model."""
    for m, report in enumerate(reports):
        shown = [percent(line.values[m]) for line in lines]
        bold = [line.best[m] for line in lines]
        cells = [rf"\textbf{{{x}}}" if b else x for x, b in zip(shown, bold, strict=True)]
        yield [escape_latex(report.name), *cells]
        if m and comparison is not None:
            found = [line.intervals[m] for line in lines]
            shown = [line.difference(m).replace(MARK, f"^{{{MARK}}}") for line in lines]
            yield [r"\quad difference", *(f"${text}$" if text else "" for text in shown)]
            yield [rf"\quad {LEVEL}\,\% interval", *(f"${ends(i)}$" if i else "" for i in found)]


def _latex_label(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "p")).strip("-")


def _latex_row(cells: Sequence[str], widest: int) -> str:
    empty = [""] * (1 + widest - len(cells))
    return f"    {' & '.join([*cells, *empty]).rstrip()} \\\\"


def escape_latex(text: str) -> str:
    """Return a text escaped so that LaTeX prints it verbatim."""
    return "".join(_LATEX.get(character, character) for character in text)
