"""A report as one self-contained page: bars, numbers, the worst failures, provenance.

No script, nothing from the network; captions and names are escaped, and the page's own policy
forbids whatever else could run or be loaded.

The gallery of a page: a card for each of the worst failures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources

from clic.evaluation.report import formats, score_lines
from clic.evaluation.report.comparison import Comparison, Interval
from clic.evaluation.report.report import Report, letter, notes
from clic.evaluation.report.score_lines import Panel, ScoreLine
from clic.evaluation.tables.failure_cards import Failure, Picture, Text
from clic.evaluation.tables.gallery import Worst

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLOURS = 6


def page(
    reports: Sequence[Report],
    comparison: Comparison | None = None,
    galleries: Sequence[Gallery] = (),
) -> Iterator[str]:
    """Yield the page's lines.

    Args:
        reports: The models.
        comparison: Their differences, where they are compared.
        galleries: Each model's worst failures by benchmark, see `gallery.worst`.
    """
    style = resources.files("clic.evaluation.report").joinpath("html.css").read_text("utf-8")
    title = " and ".join([reports[0].name, *(r.name for r in reports[1:2])])
    title += " and others" if len(reports) > 2 else ""
    yield "<!doctype html>\n"
    yield '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{escape(title)}: evaluation</title>\n<style>\n{style}</style>\n</head>\n"
    yield "<body>\n<main>\n"
    made = score_lines.panels(reports, comparison)
    yield from _header(reports, made)
    for panel in made:
        yield from _panel(panel, reports, galleries)
    yield from _provenance(reports, comparison)
    yield "</main>\n</body>\n</html>\n"


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _colour(index: int, models: int) -> str:
    """Return a model's colour: grey for the first of several, which the others are set against."""
    number = index if index < COLOURS else 1 + (index - 1) % (COLOURS - 1)
    return f"--colour:var(--m{number if models > 1 else 1})"


def _key(index: int, models: int) -> str:
    return f'<span class="key" style="{_colour(index, models)}"></span>'


def _header(reports: Sequence[Report], made: Sequence[Panel]) -> Iterator[str]:
    date = str(reports[0].provenance.get("date", "")).split("T")[0]
    yield "<header>\n<h1>Evaluation</h1>\n"
    yield '<p class="quiet">Percent right; ties count as wrong.'
    yield f" {escape(date)}</p>\n" if date else "</p>\n"
    yield '<ul class="models">\n'
    for index, report in enumerate(reports):
        name = f"<strong>{letter(index)}</strong> " if len(reports) > 1 else ""
        yield f"<li>{_key(index, len(reports))}{name}{escape(report.name)}</li>\n"
    yield "</ul>\n"
    for note in notes(reports):
        yield f'<p class="small"><strong>Note:</strong> {escape(note)}</p>\n'
    if len(made) > 1:
        yield '<nav aria-label="Benchmarks">\n<ul>\n'
        for panel in made:
            yield f'<li><a href="#{_anchor(panel.name)}">{escape(panel.name)}</a></li>\n'
        yield "</ul>\n</nav>\n"
    yield "</header>\n"


def _panel(panel: Panel, reports: Sequence[Report], galleries: Sequence[Gallery]) -> Iterator[str]:
    yield f'<section id="{_anchor(panel.name)}">\n<h2>{escape(panel.name)}</h2>\n'
    if panel.size:
        yield f'<p class="quiet small">{escape(panel.size)}</p>\n'
    if panel.explained:
        told = "".join(f"<li>{escape(line)}</li>\n" for line in panel.explained)
        yield f'<ul class="explained quiet small">\n{told}</ul>\n'
    # Screen readers have the table, which says the same.
    yield '<div class="charts" aria-hidden="true">\n'
    for metric, lines in panel.sections.items():
        kept = [line for line in lines if line.is_mean or not panel.left_out]
        yield '<div class="chart">\n'
        yield f"<h3>{escape(metric)}</h3>\n" if metric else ""
        for before, line in zip([None, *kept], kept, strict=False):
            yield _bars(line, len(reports), before is not None and line.is_mean > before.is_mean)
        yield "</div>\n"
    yield "</div>\n"
    if panel.left_out:
        yield f"<details>\n<summary>All {panel.left_out} categories</summary>\n"
        yield from _table(panel, reports)
        yield "</details>\n"
    else:
        yield from _table(panel, reports)
    benches = dict.fromkeys(line.bench for line in panel.lines)
    for bench in benches:
        for index, gallery in enumerate(galleries):
            if bench in gallery and gallery[bench].failures:
                where = f" of {bench}" if len(benches) > 1 else ""
                yield from section(bench, where, index, reports, galleries)
    yield "</section>\n"


def _bars(line: ScoreLine, models: int, is_first_mean: bool) -> str:
    kinds = [*(["mean"] if line.is_mean else []), *(["first"] if is_first_mean else [])]
    bars = "".join(
        f'<span class="bar" style="{_colour(index, models)};--v:{value or 0:.2f}">'
        f"<span><i></i></span><b>{score_lines.shown(value)}</b></span>"
        for index, value in enumerate(line.values)
    )
    return (
        f'<div class="{" ".join(["row", *kinds])}">'
        f'<span class="name">{escape(line.category)}</span>'
        f'<span class="bars">{bars}</span></div>\n'
    )


def _table(panel: Panel, reports: Sequence[Report]) -> Iterator[str]:
    """Yield the numbers: of one model in one table, of several in a table for each metric."""
    yield '<div class="tables">\n'
    if len(reports) == 1 and any(line.metric for line in panel.lines):
        yield from _framed(panel.title, _by_metric(panel))
    else:
        for metric, lines in panel.sections.items():
            title = " ".join(filter(None, (panel.title, metric)))
            yield from _framed(title, _by_model(metric or "measure", lines, panel.counted))
    yield "</div>\n"


def _framed(title: str, rows: Iterator[str]) -> Iterator[str]:
    """Yield a table that scrolls where it is too wide for the screen."""
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">\n'
    yield f'<table>\n<caption class="hidden">{escape(title)}</caption>\n'
    yield from rows
    yield "</table>\n</div>\n"


def _heads(heads: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return f"<thead><tr>{cells}</tr></thead>\n"


def _row(line: ScoreLine, cells: Sequence[str]) -> str:
    """Return a table's row, its name first."""
    kind = ' class="mean"' if line.is_mean else ""
    return f'<tr{kind}><th scope="row">{escape(line.category)}</th>{"".join(cells)}</tr>\n'


def _by_metric(panel: Panel) -> Iterator[str]:
    """Yield one model's cells: a row for each category, a column for each metric."""
    metrics = list(panel.sections)
    yield f"{_heads(['category', *metrics, *(['n'] if panel.counted else [])])}<tbody>\n"
    by_category: dict[str, dict[str, ScoreLine]] = {}
    for line in panel.lines:
        by_category.setdefault(line.category, {})[line.metric] = line
    for found in by_category.values():
        first = next(iter(found.values()))
        cells = [score_lines.shown(found[m].values[0]) if m in found else "-" for m in metrics]
        cells += [score_lines.count(first)] if panel.counted else []
        yield _row(first, [f"<td>{cell}</td>" for cell in cells])
    yield "</tbody>\n"


def _by_model(title: str, lines: Sequence[ScoreLine], counted: bool) -> Iterator[str]:
    """Yield the cells of several models: a row for each number, a column for each model."""
    compared = any(any(line.intervals) for line in lines)
    models = len(lines[0].values)
    heads = [title]
    for index in range(models):
        heads.append(letter(index) if models > 1 else "%")
        if index and compared:
            heads += [f"{letter(index)} − A", "95 % interval"]
    yield f"{_heads([*heads, *(['n'] if counted else [])])}<tbody>\n"
    for line in lines:
        cells = []
        for index, (value, is_best) in enumerate(
            zip(line.values, score_lines.best(line), strict=True)
        ):
            kind = ' class="best"' if is_best else ""
            cells.append(f"<td{kind}>{score_lines.shown(value)}</td>")
            if index and compared:
                cells.append(_interval(line.intervals[index]))
        cells += [f"<td>{score_lines.count(line)}</td>"] if counted else []
        yield _row(line, cells)
    yield "</tbody>\n"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "<td></td><td></td>"
    kind = "up" if interval.low > 0 else "down" if interval.high < 0 else "quiet"
    return (
        f'<td class="{kind}">{score_lines.difference(interval)}</td>'
        f'<td class="quiet">{score_lines.ends(interval)}</td>'
    )


def _provenance(reports: Sequence[Report], comparison: Comparison | None) -> Iterator[str]:
    yield '<section id="provenance">\n<h2>Where these numbers come from</h2>\n'
    if comparison is not None:
        yield f'<p class="small">{escape(formats.interval_note(comparison))}</p>\n'
    for index, report in enumerate(reports):
        own = formats.facts(report)
        yield f"<details{' open' if index == 0 else ''}>\n"
        yield f"<summary>{_key(index, len(reports))}{escape(own.pop('model'))}</summary>\n"
        yield from _facts(own)
        yield "</details>\n"
    scored = formats.benchmark_facts(reports)
    if scored:
        yield "<details>\n<summary>Benchmarks</summary>\n"
        yield from _facts(scored)
        yield "</details>\n"
    yield "</section>\n"


def _facts(facts: Mapping[str, str]) -> Iterator[str]:
    yield '<table class="facts">\n<tbody>\n'
    for label, value in facts.items():
        yield f'<tr><th scope="row">{escape(label)}</th><td>{escape(value)}</td></tr>\n'
    yield "</tbody>\n</table>\n"


Gallery = Mapping[str, Worst]
"""A model's worst failures by benchmark, see `gallery.worst`."""


def section(
    bench: str, where: str, index: int, reports: Sequence[Report], galleries: Sequence[Gallery]
) -> Iterator[str]:
    """Yield one model's worst failures, and whether the others are right where it is wrong."""
    failures = galleries[index][bench].failures
    name = f": {letter(index)} {reports[index].name}" if len(reports) > 1 else ""
    yield "<details open>\n" if len(reports) == 1 else "<details>\n"
    what = "worst failure" if len(failures) == 1 else f"{len(failures)} worst failures"
    yield f"<summary>{escape(f'The {what}{where}{name}')}</summary>\n"
    yield '<div class="gallery">\n'
    same = {_rows(bench, report) for report in reports if bench in report.benchmarks}
    for failure in failures:
        others = {
            letter(m): bool(gallery[bench].right[failure.number])
            for m, gallery in enumerate(galleries)
            if m != index and len(same) == 1 and bench in gallery
        }
        yield _card(failure, others)
    yield "</div>\n</details>\n"


def _rows(bench: str, report: Report) -> tuple[object, object]:
    """Return what is equal for models that were scored on the same rows."""
    source = report.provenance.get("benchmarks", {}).get(bench, {})
    return source.get("sha256"), source.get("rows")


def _card(failure: Failure, others: Mapping[str, bool]) -> str:
    labels = score_lines.LABELS
    outcomes = "".join(
        f'<span class="{"right" if right else "wrong"}">{escape(labels.get(name, name))} '
        f"{'right' if right else 'wrong'}</span>"
        for name, right in failure.outcomes.items()
    )
    told = [f"{name} is {'right' if right else 'wrong too'}" for name, right in others.items()]
    verdict = "; ".join([failure.verdict, *told])
    pictures = "".join(map(_picture, failure.pictures))
    return (
        '<article class="card">\n'
        + (f'<div class="pictures">{pictures}</div>\n' if pictures else "")
        + '<div class="said">'
        + f'<div class="tags"><strong>{escape(failure.category)}</strong>{outcomes}</div>'
        + f'<p class="small">{escape(_sentence(verdict))}</p>'
        + f"<ul>{''.join(map(_text, failure.texts))}</ul></div>\n</article>\n"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _picture(picture: Picture) -> str:
    about = escape(" ".join(filter(None, (picture.label, picture.name))))
    label = f"<figcaption>{escape(picture.label)}</figcaption>" if picture.label else ""
    if picture.uri is None:
        return f'<figure><div class="none">{escape(picture.name)}</div>{label}</figure>'
    shown = f'<img src="{escape(picture.uri)}" alt="{about}" title="{about}" loading="lazy">'
    return f"<figure>{shown}{label}</figure>"


def _text(text: Text) -> str:
    kind, mark = ("true", "✓") if text.is_true else ("false", "✗")
    scores = " · ".join(f"{score:.3f}" for score in text.scores)
    return (
        f'<li class="{kind}"><span class="mark" aria-hidden="true">{mark}</span>'
        f'<span><span class="hidden">{kind}: </span>{escape(text.text)}</span>'
        + (f'<data value="{escape(scores)}">{scores}</data>' if scores else "")
        + "</li>"
    )
