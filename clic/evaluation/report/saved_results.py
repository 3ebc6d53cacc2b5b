"""Results that were written before, read again to be compared without scoring anything anew."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from clic import runs
from clic.errors import DataError
from clic.evaluation.report.report import JSON_FILE, ROWS_KEY, Report

MODEL_KEYS = ("model", "provenance", "benchmarks")


class SavedRows:
    """A model's rows in a file, read anew each time, so that they need never be held at once.

    Args:
        path: File that `clic-eval --rows` wrote.
        model: The name that its rows carry there.
        benches: Benchmarks whose rows are wanted.
    """

    def __init__(self, path: Path, model: str, benches: Iterable[str]) -> None:
        self.path, self.model, self.benches = path, model, set(benches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in _lines(self.path):
            if row.pop("model", None) == self.model and row.get("benchmark") in self.benches:
                yield row


def is_saved(name: str) -> bool:
    """Return whether a word means a result that was written before, and not a model."""
    path = Path(name).expanduser()
    if runs.is_run(path) or runs.is_open_clip_folder(path):
        return False
    return name.endswith(".json") or (path / JSON_FILE).is_file()


def load(name: str, benches: Collection[str] = (), with_rows: bool = True) -> list[Report]:
    """Read the models of a result: a folder that `--out` wrote, or a JSON file.

    Args:
        name: The folder or file.
        benches: Benchmarks to take; empty takes all.
        with_rows: Whether rows are needed, which the report must then name.

    Raises:
        DataError: A file is missing or broken, or lacks a benchmark.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / JSON_FILE
    content = _read(path)
    forms = content.get("reports", [content])
    if not isinstance(forms, list) or not all(_is_report(form) for form in forms):
        raise DataError(f"{path} is no report of clic-eval; write one with --out or --json")
    return [_report(path, form, benches, with_rows) for form in forms]


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


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the result {path} ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error}); write it anew") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is no report of clic-eval; write one with --out or --json")
    return content


def _is_report(form: object) -> bool:
    return isinstance(form, dict) and all(isinstance(form.get(key), dict) for key in MODEL_KEYS)


def _rows_file(path: Path, record: dict[str, Any]) -> Path:
    """Return where a report's rows are: in the file it names, as seen from its own folder."""
    named = record.get(ROWS_KEY)
    if not isinstance(named, str):
        raise DataError(
            f"{path} was written without rows, which intervals and galleries are made of; write it "
            "anew with --out DIR, or with --json and --rows"
        )
    rows = path.parent / named
    if not rows.is_file():
        raise DataError(f"the rows of {path} should be in {rows}, which is not there; copy it too")
    return rows


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: no row of a result")
            yield row
