"""What came out: as a dictionary and as files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clic.errors import ConfigError
from clic.evaluation.tables.table import BenchmarkTable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
JSON_FILE = "report.json"
ROWS_KEY = "rows_file"
"""Where a report's provenance names the file of its rows, as seen from the report's own."""


@dataclass
class Report:
    """A model's numbers on some benchmarks.

    Attributes:
        name: What tables call the model.
        model: The model's identity.
        provenance: Code, versions, time, settings, and what the benchmarks were.
        benchmarks: Numbers by benchmark; percentages, unrounded, with their row counts.
        rows: Each row's outcome, where they were kept.
        tables: What was scored, by benchmark, where rows were kept.
    """

    name: str
    model: dict[str, Any]
    provenance: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    rows: Iterable[dict[str, Any]] = ()
    tables: dict[str, BenchmarkTable] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what `clic-eval --json FILE` writes."""
        return {
            "model": self.model,
            "provenance": self.provenance,
            "benchmarks": self.benchmarks,
        }


def write_text(path: str | Path, lines: Iterable[str]) -> None:
    """Write a file as a whole or not at all.

    A link, a pipe or a device (``/dev/stdout``) is written into: replacing it would remove it.

    Raises:
        ConfigError: The folder does not exist or cannot be written to.
    """
    path = Path(path).expanduser()
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            with path.open("w", encoding="utf-8") as file:
                file.writelines(lines)
        else:
            _replace(path, lines)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); choose another file") from error


def _replace(path: Path, lines: Iterable[str]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        try:
            file.writelines(lines)
            file.flush()  # where a disk is full, before the name is taken
            part.replace(path)
        except BaseException:
            part.unlink()
            raise


def write_object(path: str | Path, content: Any) -> None:
    """Write one JSON value."""
    write_text(path, [json.dumps(content, indent=1, allow_nan=False), "\n"])


def write_json(
    path: str | Path, reports: Sequence[Report], comparison: Mapping[str, Any] | None = None
) -> None:
    """Write one report in its own form, several as ``{"reports": [...], "comparison": {...}}``."""
    forms = [report.to_dict() for report in reports]
    compared = {} if comparison is None else {"comparison": comparison}
    write_object(path, forms[0] if len(forms) == 1 else {"reports": forms, **compared})


def write_rows(path: str | Path, reports: Sequence[Report]) -> None:
    """Write every row's outcome as JSON lines, each with its model's name."""
    lines = (
        json.dumps({"model": report.name, **row}, ensure_ascii=False) + "\n"
        for report in reports
        for row in report.rows
    )
    write_text(path, lines)


def notes(reports: Sequence[Report]) -> list[str]:
    """Return a line for each thing left out, each split but test, and each count not whole."""
    lines: dict[str, None] = {}
    for report in reports:
        for name, reason in report.provenance.get("left_out", {}).items():
            lines[f"{name}: left out, {reason}"] = None
        for name, source in report.provenance.get("benchmarks", {}).items():
            if source.get("split", "test") != "test":
                lines[
                    f"{name}: scored on the {source['split']} split, by which settings are chosen; "
                    "results are reported on the test split"
                ] = None
            lost = len(source["missing_images"]) + len(source["broken_images"])
            if lost:
                lines[
                    f"{name}: {lost} images missing or broken, "
                    f"{source['rows']:,} of {source['rows_of_the_whole']:,} rows scored"
                ] = None
            whole, expected = source["rows_of_the_whole"], source.get("rows_expected")
            if expected not in (None, whole):
                lines[f"{name}: its files hold {whole:,} rows, the benchmark {expected:,}"] = None
    return list(lines)


def timings(reports: Sequence[Report]) -> list[str]:
    """Return for each model what took how long, and what the cache spared."""
    lines = []
    for report in reports:
        stages = report.provenance.get("stages") or {}
        parts = [_stage(name, stage) for name, stage in stages.items()]
        if parts:
            seconds = report.provenance["seconds"]
            lines.append(f"{report.name}: {seconds:.1f} s ({', '.join(parts)})")
    return lines


def _stage(name: str, stage: Mapping[str, Any]) -> str:
    """Return one stage in a few words; scoring has no items."""
    if "items" not in stage:
        return f"{name} {stage['seconds']:.1f} s"
    cached, items = stage.get("cached", 0), stage["items"]
    known = "" if not cached else " from the cache" if cached == items else f", {cached:,} known,"
    return f"{items:,} {name}{known} {stage['seconds']:.1f} s"


def legend(reports: Sequence[Report]) -> list[str]:
    """Return which letter stands for which model, nothing for a single one."""
    if len(reports) == 1:
        return []
    return [f"{letter(i)}  {report.name}" for i, report in enumerate(reports)]


def letter(index: int) -> str:
    """Return the letter that stands for a model: A to Z, then AA, BB and so on."""
    return LETTERS[index % len(LETTERS)] * (1 + index // len(LETTERS))
