"""A report as files for other programs and for papers: CSV, Markdown and LaTeX.

CSV has every number unrounded; the tables show one decimal.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from clic.evaluation.report import score_lines
from clic.evaluation.report.comparison import LEVEL, Comparison
from clic.evaluation.report.report import Report, letter, notes
from clic.evaluation.report.score_lines import Panel, ScoreLine

RECORDED = ("commit", "date", "seconds", "device", "dtype", "seed")
CSV_COLUMNS = (
    "model", "benchmark", "category", "metric", "value", "n", "difference", "low", "high",
    "benchmark_version", "benchmark_sha256", "rows", "rows_of_the_whole", "weights_sha256",
    *RECORDED, "settings",
)  # fmt: skip
# A table that is too wide is made to fit; others keep their size.
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
_FORMULA = re.compile(r"[\s\0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


# Provenance


def facts(report: Report) -> dict[str, str]:
    """Return what a reader must know of a result, by label: one line each."""
    record, model = report.provenance, report.model
    found = {
        "model": report.name,
        "source": " ".join(
            str(part) for part in (model.get("source"), model.get("pretrained")) if part
        ),
        "activation": model.get("activation"),
        "weights SHA-256": model.get("weights_sha256"),
        "clic commit": record.get("commit"),
        "date": record.get("date"),
        "device": " ".join(
            str(record[key]) for key in ("device", "dtype", "platform") if record.get(key)
        ),
        "seconds": record.get("seconds"),
        "versions": ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items()),
        "settings": json.dumps(record["settings"]) if record.get("settings") else None,
    }
    return {label: str(value) for label, value in found.items() if value not in (None, "")}


def benchmark_facts(reports: Sequence[Report]) -> dict[str, str]:
    """Return what was scored, by benchmark: version, hash, rows and citation, one line each."""
    found: dict[str, str] = {}
    for report in reports:
        for name, source in report.provenance.get("benchmarks", {}).items():
            rows, whole = source.get("rows"), source.get("rows_of_the_whole")
            found[name] = "; ".join(
                str(part)
                for part in (
                    f"version {source.get('version')}",
                    f"SHA-256 {str(source.get('sha256'))[:16]}",
                    f"{rows:,} rows" if rows == whole else f"{rows:,} of {whole:,} rows",
                    source.get("citation"),
                    source.get("licence"),
                )
                if part
            )
    return found


def interval_note(comparison: Comparison) -> str:
    """Return how the intervals were made."""
    return (
        f"Differences to {comparison.names[0]} in percentage points; in brackets the paired "
        f"bootstrap {LEVEL} % interval (percentile method, {comparison.resamples:,} resamples, "
        f"seed {comparison.seed})."
    )


# CSV


def csv_text(reports: Sequence[Report], comparison: Comparison | None = None) -> str:
    """Return one line for each number of each model, unrounded, with its provenance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for panel in score_lines.panels(reports, comparison):
        for line in panel.every:
            for index, report in enumerate(reports):
                if line.values[index] is not None:
                    row = _csv_row(report, line, index)
                    writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; names come from others' reports."""
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
        "weights_sha256": report.model.get("weights_sha256"),
        **{
            key: record.get(key) for key in ("commit", "date", "seconds", "device", "dtype", "seed")
        },
        "settings": json.dumps(record.get("settings", {})),
    }


# Markdown


def markdown(reports: Sequence[Report], comparison: Comparison | None = None) -> str:
    """Return tables that read well as they stand and on GitHub, then the provenance."""
    lines = ["# Evaluation", ""]
    if len(reports) > 1:
        lines += [f"- **{letter(i)}** = {_plain(r.name)}" for i, r in enumerate(reports)]
        lines.append("")
    for panel in score_lines.panels(reports, comparison):
        lines += [f"## {_plain(panel.title)}", "", *_markdown_table(panel, len(reports))]
        if panel.left_out:
            lines += ["", f"{panel.left_out} categories: in the CSV and JSON files."]
        lines.append("")
    lines += ["Percent right; ties are wrong."]
    if comparison is not None:
        lines.append(_plain(interval_note(comparison)))
    lines += [f"Note: {_plain(note)}." for note in notes(reports)]
    lines += ["", "## Provenance", ""]
    for report in reports:
        own = facts(report)
        lines.append(f"- **{_plain(own.pop('model'))}**")
        lines += [f"  - {label}: {_plain(value)}" for label, value in own.items()]
    lines += [f"- {_plain(name)}: {_plain(f)}" for name, f in benchmark_facts(reports).items()]
    return "\n".join(lines) + "\n"


def _markdown_table(panel: Panel, models: int) -> list[str]:
    by_metric = models == 1 and any(line.metric for line in panel.lines)
    rows = _rows_by_metric(panel) if by_metric else _rows_by_model(panel, models)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    return [padded[0], rule, *padded[1:]]


def _rows_by_metric(panel: Panel) -> list[list[str]]:
    """Return one model's cells: a row for each category, a column for each metric."""
    metrics = list(panel.sections)
    rows = [["category", *metrics, *(["n"] if panel.counted else [])]]
    for category, found in panel.by_category.items():
        cells = [score_lines.shown(found[m].values[0]) if m in found else "-" for m in metrics]
        counts = [score_lines.count(next(iter(found.values())))] if panel.counted else []
        rows.append([_plain(category), *cells, *counts])
    return rows


def _rows_by_model(panel: Panel, models: int) -> list[list[str]]:
    """Return the cells of several models: a row for each number, a column for each model."""
    counted = panel.counted
    compared = any(any(line.intervals) for line in panel.lines)
    heads = ["measure"]
    for index in range(models):
        heads.append(letter(index) if models > 1 else "%")
        if index and compared:
            heads.append(f"{letter(index)} − A")
    rows = [[*heads, *(["n"] if counted else [])]]
    for line in panel.shown:
        strong = score_lines.best(line)
        cells = [_plain(line.label)]
        for index, value in enumerate(line.values):
            cells.append(
                f"**{score_lines.shown(value)}**" if strong[index] else score_lines.shown(value)
            )
            if index and compared:
                interval = line.intervals[index]
                cells.append(
                    f"{score_lines.difference(interval)} {score_lines.ends(interval)}".strip()
                )
        rows.append([*cells, *([score_lines.count(line)] if counted else [])])
    return rows


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    text = re.sub(r"([\\`*|<\[\]])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word it is no emphasis


# LaTeX


def latex(reports: Sequence[Report], comparison: Comparison | None = None) -> str:
    """Return a booktabs table for each benchmark: models as rows, the best of a column bold."""
    lines = ["% Written by clic-eval. In the preamble: \\usepackage{booktabs,graphicx}"]
    for report in reports:
        lines += [f"% {label}: {' '.join(value.split())}" for label, value in facts(report).items()]
    lines += [f"% {name}: {fact}" for name, fact in benchmark_facts(reports).items()]
    lines += [f"% note: {note}" for note in notes(reports)]
    for panel in score_lines.panels(reports, comparison):
        lines += ["", *_latex_table(panel, reports, comparison)]
    return "\n".join(lines) + "\n"


def _latex_table(
    panel: Panel, reports: Sequence[Report], comparison: Comparison | None
) -> Iterator[str]:
    sections: dict[str, list[ScoreLine]] = {}
    for line in panel.shown:
        sections.setdefault(line.metric, []).append(line)
    heads = [[line.category for line in lines] for lines in sections.values()]
    alike = all(one == heads[0] for one in heads)
    widest = max(map(len, heads))
    yield r"\begin{table}"
    yield r"  \centering"
    caption = f"{escape_latex(panel.title)}: percent right, ties are wrong."
    if comparison is not None:
        caption += f" {escape_latex(interval_note(comparison))}"
    yield rf"  \caption{{{caption}}}"
    yield rf"  \label{{tab:{_latex_label(panel.name)}}}"
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
        yield from _latex_models(lines, reports, comparison, widest)
        if panel.counted and metric and (not alike or index == len(sections) - 1):
            yield r"    \midrule"
            yield _latex_row(["$n$", *map(score_lines.count, lines)], widest)
    yield r"    \bottomrule"
    yield r"  \end{tabular}}"
    if panel.left_out:
        yield f"  % {panel.left_out} categories: in the CSV and JSON files"
    yield r"\end{table}"


def _latex_models(
    lines: Sequence[ScoreLine],
    reports: Sequence[Report],
    comparison: Comparison | None,
    widest: int,
) -> Iterator[str]:
    """Yield a row for each model, and below it its differences to the first one."""
    for m, report in enumerate(reports):
        cells = [_latex_cell(line, m) for line in lines]
        yield _latex_row([escape_latex(report.name), *cells], widest)
        if m and comparison is not None:
            found = [line.intervals[m] for line in lines]
            differences = [f"${score_lines.difference(i)}$" if i else "" for i in found]
            yield _latex_row([r"\quad difference", *differences], widest)
            ends = [f"${score_lines.ends(i)}$" if i else "" for i in found]
            yield _latex_row([rf"\quad {LEVEL}\,\% interval", *ends], widest)


def _latex_label(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "p")).strip("-")


def _latex_row(cells: Sequence[str], widest: int) -> str:
    empty = [""] * (1 + widest - len(cells))
    return f"    {' & '.join([*cells, *empty]).rstrip()} \\\\"


def _latex_cell(line: ScoreLine, index: int) -> str:
    text = score_lines.shown(line.values[index])
    return rf"\textbf{{{text}}}" if score_lines.best(line)[index] else text


def escape_latex(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)
