"""The files of an evaluation: writing those that were requested, and reading results back."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from clic import runs
from clic.errors import ConfigError, DataError
from clic.evaluation.report import formats, html_page
from clic.evaluation.report.comparison import Comparison
from clic.evaluation.report.html_page import Gallery
from clic.evaluation.report.report import Report
from clic.io.files import replacing

JSON_FILE = "report.json"
FILES = {
    "json": JSON_FILE,
    "rows": "rows.jsonl",
    "csv": "report.csv",
    "markdown": "report.md",
    "latex": "report.tex",
    "html": "report.html",
}
"""The kinds of files, and their names in the folder that `--out` writes."""
ROWS_KEY = "rows_file"
"""The key of a report's provenance that names its rows file, relative to the report's folder."""


# Writing


def files(folder: str | None, named: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """Return the files to write by kind: every kind in `folder`, and those in `named`."""
    found: dict[str, list[Path]] = {}
    for kind, name in FILES.items():
        in_folder = None if folder is None else os.path.join(folder, name)
        paths = (in_folder, named.get(kind))
        found[kind] = [Path(path).expanduser() for path in paths if path is not None]
    return found


def write(
    wanted: Mapping[str, Sequence[Path]],
    reports: Sequence[Report],
    comparison: Comparison | None = None,
    galleries: Sequence[Gallery] = (),
) -> list[Path]:
    """Write the files, the rows first, so that no report names rows that do not exist.

    Args:
        wanted: Files by kind, see `files`.
        reports: The models, with their rows if rows are wanted.
        comparison: The differences between the models, if they are compared.
        galleries: Each model's worst failures, if a page is wanted.

    Returns:
        The files, in the order of `FILES`.

    Raises:
        ConfigError: A file cannot be written.
    """
    paths = [path for kind in FILES for path in wanted[kind]]
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {folder} ({error.strerror}); name another") from error
    for path in wanted["rows"]:
        write_rows(path, reports)
    for path in wanted["json"]:
        named = [_with_rows_file(one, path, wanted["rows"]) for one in reports]
        write_json(path, named, comparison)
    for path in wanted["csv"]:
        write_text(path, [formats.csv_text(reports, comparison)])
    for path in wanted["markdown"]:
        write_text(path, [formats.markdown(reports, comparison)])
    for path in wanted["latex"]:
        write_text(path, [formats.latex(reports, comparison)])
    for path in wanted["html"]:
        write_text(path, html_page.page(reports, comparison, galleries))
    return paths


def write_figures(
    paths: Sequence[Path],
    reports: Sequence[Report],
    intervals: Comparison,
    kind: str,
    marked: bool,
) -> list[Path]:
    """Draw the figure into files, each completely or not at all; return the files.

    Raises:
        ConfigError: A file cannot be written.
    """
    from clic.evaluation.report import score_figure  # matplotlib loads slowly

    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as target:
                form = path.suffix.lower()
                score_figure.draw_figure(target, form, reports, intervals, kind, marked)
        except OSError as error:
            raise ConfigError(
                f"cannot write {path} ({error.strerror}); choose another file"
            ) from error
    return list(paths)


def write_object(path: str | Path, content: Any) -> None:
    """Write one JSON value.

    Raises:
        ConfigError: The file cannot be written.
    """
    write_text(path, [json.dumps(content, indent=1, allow_nan=False), "\n"])


def write_json(
    path: str | Path, reports: Sequence[Report], comparison: Comparison | None = None
) -> None:
    """Write one report as it is, several as ``{"reports": [...], "comparison": {...}}``."""
    content: dict[str, Any] = {"reports": [report.to_dict() for report in reports]}
    if comparison is not None:
        content["comparison"] = comparison.to_dict()
    write_object(path, content["reports"][0] if len(reports) == 1 else content)


def _with_rows_file(report: Report, path: Path, rows: Sequence[Path]) -> Report:
    """Return a report whose provenance contains its name and the path of its rows from `path`."""
    provenance = {key: value for key, value in report.provenance.items() if key != ROWS_KEY}
    provenance["name"] = report.name
    if rows:
        target = next((file for file in rows if file.parent == path.parent), rows[0])
        provenance[ROWS_KEY] = os.path.relpath(target.absolute(), path.parent.absolute())
    return replace(report, provenance=provenance)


def write_rows(path: Path, reports: Sequence[Report]) -> None:
    """Write every row's outcome as JSON lines, each with its model's name."""
    lines = (
        json.dumps({"model": report.name, **row}, ensure_ascii=False) + "\n"
        for report in reports
        for row in report.rows
    )
    write_text(path, lines)


def write_text(path: str | Path, lines: Iterable[str]) -> None:
    """Write a file completely or not at all.

    A link, a pipe or a device (``/dev/stdout``) is written to directly: replacing would remove it.
    """
    path = Path(path).expanduser()
    kept = path.is_symlink() or (path.exists() and not path.is_file())
    try:
        with (
            nullcontext(path) if kept else replacing(path) as target,
            target.open("w", encoding="utf-8") as file,
        ):
            file.writelines(lines)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); choose another file") from error


# Reading


class SavedRows:
    """A model's rows in a file, read anew on each iteration, so that they are never all in memory.

    Args:
        path: File that `clic-eval --rows` wrote.
        model: The model's name in that file.
        benches: Benchmarks whose rows are wanted.
    """

    def __init__(self, path: Path, model: str, benches: Iterable[str]) -> None:
        self.path, self.model, self.benches = path, model, set(benches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(
                        f"{self.path}, line {number}: no valid JSON ({error})"
                    ) from error
                if not isinstance(row, dict):
                    raise DataError(f"{self.path}, line {number}: not a row of a result")
                if row.pop("model", None) == self.model and row.get("benchmark") in self.benches:
                    yield row


def is_saved(name: str) -> bool:
    """Return whether an argument names a saved result rather than a model."""
    path = Path(name).expanduser()
    if runs.is_run(path) or runs.is_open_clip_folder(path):
        return False
    return name.endswith(".json") or (path / JSON_FILE).is_file()


def load(name: str, benches: Collection[str] = (), with_rows: bool = True) -> list[Report]:
    """Read the models of a saved result: a folder that `--out` wrote, or a JSON file.

    Args:
        name: The folder or file.
        benches: Benchmarks to read; empty for all.
        with_rows: Whether rows are needed; the report must then name their file.

    Raises:
        DataError: A file is missing or broken, or lacks a benchmark.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / JSON_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the result {path} ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error}); write it again") from error
    forms = content.get("reports", [content]) if isinstance(content, dict) else None
    if not isinstance(forms, list) or not all(map(_is_report, forms)):
        raise DataError(f"{path} is not a report of clic-eval; write one with --out or --json")
    return [_report(path, form, benches, with_rows) for form in forms]


def _is_report(form: object) -> bool:
    keys = ("model", "provenance", "benchmarks")
    return isinstance(form, dict) and all(isinstance(form.get(key), dict) for key in keys)


def _report(path: Path, form: dict[str, Any], benches: Collection[str], with_rows: bool) -> Report:
    numbers, record = form["benchmarks"], form["provenance"]
    lacking = [bench for bench in benches if bench not in numbers]
    if lacking:
        raise DataError(f"{path} has no {', '.join(lacking)}; it has {', '.join(numbers)}")
    kept = list(benches) or list(numbers)
    name = record.get("name") or str(form["model"].get("name"))
    sources = record.get("benchmarks", {})
    record = {**record, "benchmarks": {b: sources[b] for b in kept if b in sources}}
    own = {bench: numbers[bench] for bench in kept}
    rows = SavedRows(_rows_file(path, record), name, kept) if with_rows else ()
    return Report(name, form["model"], record, own, rows)


def _rows_file(path: Path, record: dict[str, Any]) -> Path:
    """Return the file of a report's rows; the report gives its path relative to its own folder."""
    named = record.get(ROWS_KEY)
    if not isinstance(named, str):
        raise DataError(
            f"{path} was written without rows, which intervals and galleries are made of; write it "
            "again with --out DIR, or with --json and --rows"
        )
    rows = path.parent / named
    if not rows.is_file():
        raise DataError(f"the rows of {path} should be in {rows}, which is missing; copy it too")
    return rows
