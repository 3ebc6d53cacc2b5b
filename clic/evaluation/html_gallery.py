"""The gallery of a page: a card for each of the worst failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from clic.evaluation import panels
from clic.evaluation.gallery import Failure, Picture, Text, Worst
from clic.evaluation.report import Report, letter

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
    outcomes = "".join(
        f'<span class="{"right" if right else "wrong"}">{escape(panels.LABELS.get(name, name))} '
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
