"""The files of an evaluation: which there are, and writing those that were asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clic.errors import ConfigError
from clic.evaluation.report import formats, html_page, report
from clic.evaluation.report.comparison import Comparison
from clic.evaluation.report.html_page import Gallery
from clic.evaluation.report.report import Report

FILES = {
    "json": report.JSON_FILE,
    "rows": "rows.jsonl",
    "csv": "report.csv",
    "markdown": "report.md",
    "latex": "report.tex",
    "html": "report.html",
}
"""What each file is called in the folder of `--out`."""


def files(folder: str | None, named: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """Return the files to write by kind: all of them in `folder`, and those named singly."""
    found: dict[str, list[Path]] = {kind: [] for kind in FILES}
    for kind, name in FILES.items():
        if folder is not None:
            found[kind].append(Path(folder).expanduser() / name)
        single = named.get(kind)
        if single is not None:
            found[kind].append(Path(single).expanduser())
    return found


def write(
    wanted: Mapping[str, Sequence[Path]],
    reports: Sequence[Report],
    comparison: Comparison | None = None,
    galleries: Sequence[Gallery] = (),
) -> list[Path]:
    """Write the files; the rows first, so that a report never names rows that are not there.

    Args:
        wanted: Files by kind, see `files`.
        reports: The models, with their rows where rows are wanted.
        comparison: Their differences, where they are compared.
        galleries: Each model's worst failures, where a page is wanted.

    Returns:
        The files, in the order of `FILES`.

    Raises:
        ConfigError: A file cannot be written.
    """
    _make_folders(path.parent for paths in wanted.values() for path in paths)
    compared = None if comparison is None else comparison.to_dict()
    for path in wanted["rows"]:
        report.write_rows(path, reports)
    for path in wanted["json"]:
        named = [_with_rows_file(one, path, wanted["rows"]) for one in reports]
        report.write_json(path, named, compared)
    texts = {
        "csv": formats.csv_text, "markdown": formats.markdown, "latex": formats.latex,
    }  # fmt: skip
    for kind, made in texts.items():
        for path in wanted[kind]:
            report.write_text(path, [made(reports, comparison)])
    for path in wanted["html"]:
        report.write_text(path, html_page.page(reports, comparison, galleries))
    return [path for kind in FILES for path in wanted[kind]]


def _make_folders(folders: Iterable[Path]) -> None:
    for folder in dict.fromkeys(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {folder} ({error.strerror}); name another") from error


def _with_rows_file(one: Report, path: Path, rows: Sequence[Path]) -> Report:
    """Return a report that names itself and its rows' file, as seen from its own folder."""
    provenance = {key: value for key, value in one.provenance.items() if key != report.ROWS_KEY}
    provenance["name"] = one.name
    if rows:
        beside = [file for file in rows if file.parent == path.parent]
        target = (beside or [*rows])[0]
        provenance[report.ROWS_KEY] = os.path.relpath(target.absolute(), path.parent.absolute())
    return Report(one.name, one.model, provenance, one.benchmarks)
