"""A model's scores on benchmarks, and the notes and provenance that tables and files show."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clic.evaluation.tables.table import BenchmarkTable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass
class Report:
    """A model's scores on benchmarks.

    Attributes:
        name: The model's name in tables.
        model: The model's identity.
        provenance: Code, versions, time, settings, and a description of each benchmark.
        benchmarks: Unrounded percentages with their row counts, by benchmark.
        rows: The outcome of each row, if rows were kept.
        tables: The scored tables by benchmark, if rows were kept.
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


def warnings(reports: Sequence[Report]) -> list[str]:
    """Return a line for each number that was scored on the split that chose its model."""
    lines: dict[str, None] = {}
    for report in reports:
        chose = {_split_of(name) for name in report.provenance.get("chosen_by", [])}
        for name, source in report.provenance.get("benchmarks", {}).items():
            plain = name.partition("@")[0]
            if (plain, source.get("split") or "test") in chose:
                lines[
                    f"{name} chose {report.name} (see its run or sweep), so its number here is "
                    "optimistic and no result: report another split or benchmark"
                ] = None
    return list(lines)


def _split_of(name: str) -> tuple[str, str]:
    plain, at, split = name.partition("@")
    return plain, "validation" if at and split.lower().startswith("val") else "test"


def notes(reports: Sequence[Report]) -> list[str]:
    """Return a line for each benchmark that was left out, is incomplete, or needs a comment.

    A validation split needs one, and so does a user's own file: how it was read.
    """
    lines: dict[str, None] = {}
    for report in reports:
        for name, reason in report.provenance.get("left_out", {}).items():
            lines[f"{name}: left out, {reason}"] = None
        for name, source in report.provenance.get("benchmarks", {}).items():
            if "own_file" in source:
                lines[f"{name}: {source['own_file']} is read as {source['read_as']}"] = None
            if source.get("split", "test") != "test":
                lines[
                    f"{name}: scored on the {source['split']} split, by which settings are chosen; "
                    "results are reported on the test split"
                ] = None
            lost = len(source["missing_images"]) + len(source["broken_images"])
            if lost:
                subset = covered_subset(source) or f"all {source['rows']:,} rows"
                lines[f"{name}: {subset}; {lost:,} images missing or broken"] = None
            whole, expected = source["rows_of_the_whole"], source.get("rows_expected")
            if expected not in (None, whole):
                lines[f"{name}: its files hold {whole:,} rows, the benchmark {expected:,}"] = None
    return list(lines)


def timings(reports: Sequence[Report]) -> list[str]:
    """Return a line for each model: the time of each stage, and how much came from the cache."""
    lines = []
    for report in reports:
        stages = report.provenance.get("stages") or {}
        parts = [_stage(name, stage) for name, stage in stages.items()]
        if parts:
            seconds = report.provenance["seconds"]
            lines.append(f"{report.name}: {seconds:.1f} s ({', '.join(parts)})")
    return lines


def _stage(name: str, stage: Mapping[str, Any]) -> str:
    if "items" not in stage:
        return f"{name} {stage['seconds']:.1f} s"
    cached, items = stage.get("cached", 0), stage["items"]
    known = "" if not cached else " from the cache" if cached == items else f", {cached:,} known,"
    return f"{items:,} {name}{known} {stage['seconds']:.1f} s"


def letter(index: int) -> str:
    """Return the letter of a model: A to Z, then AA, BB and so on."""
    return LETTERS[index % len(LETTERS)] * (1 + index // len(LETTERS))


def legend(reports: Sequence[Report]) -> list[str]:
    """Return a line for each model with its letter; a single model needs none."""
    if len(reports) == 1:
        return []
    return [f"{letter(i)}  {report.name}" for i, report in enumerate(reports)]


def facts(report: Report) -> dict[str, str]:
    """Return a report's provenance by label, each entry on one line."""
    record, model = report.provenance, report.model
    found = {
        "model": report.name,
        "source": _joined(model, "source", "pretrained"),
        "activation": model.get("activation"),
        "weights SHA-256": model.get("weights_sha256"),
        "clic commit": record.get("commit"),
        "date": record.get("date"),
        "device": _joined(record, "device", "dtype", "platform"),
        "seconds": record.get("seconds"),
        "versions": ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items()),
        "settings": json.dumps(record["settings"]) if record.get("settings") else None,
    }
    return {label: str(value) for label, value in found.items() if value not in (None, "")}


def _joined(record: Mapping[str, Any], *keys: str) -> str:
    return " ".join(str(record[key]) for key in keys if record.get(key))


def benchmark_facts(reports: Sequence[Report]) -> dict[str, str]:
    """Return version, hash, rows, citation and licence of each benchmark, on one line."""
    found: dict[str, str] = {}
    for report in reports:
        for name, source in report.provenance.get("benchmarks", {}).items():
            rows = source.get("rows")
            parts = (
                f"version {source.get('version')}",
                f"SHA-256 {str(source.get('sha256'))[:16]}",
                covered_subset(source) or f"{rows:,} rows",
                source.get("citation"),
                source.get("licence"),
            )
            found[name] = "; ".join(str(part) for part in parts if part)
    return found


def mean_names(source: Mapping[str, Any]) -> list[str]:
    """Return the names of a benchmark's means over categories and of its mean over all rows."""
    overall = source.get("overall")
    return [*(source.get("groups") or {}), *([overall] if overall else [])]


def covered_subset(source: Mapping[str, Any]) -> str:
    """Return "a covered subset of N rows of M" if rows were left out, else an empty string.

    Args:
        source: The benchmark's entry in a report's provenance.
    """
    rows, whole = source.get("rows"), source.get("rows_of_the_whole")
    if rows is None or whole is None or rows == whole:
        return ""
    return f"a covered subset of {rows:,} rows of {whole:,}"


def covered_by_any(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return `covered_subset` of the first model for which it is not empty."""
    return next(filter(None, map(covered_subset, sources)), "")
