"""What came out: as a dictionary, as files and as tables that fit 80 columns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clic.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

METRICS = ("itt", "tot", "p1")
COUNTS = {"n_images": "images", "n_captions": "captions"}
MAX_WITH_DIFFERENCES = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass
class Report:
    """A model's numbers on some benchmarks.

    Attributes:
        name: What tables call the model.
        model: The model's identity.
        provenance: Code, versions, time, settings, and what the benchmarks were.
        benchmarks: Numbers by benchmark; percentages, unrounded, with their row counts.
        rows: Each row's outcome, where they were kept.
    """

    name: str
    model: dict[str, Any]
    provenance: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]] = field(default_factory=list)

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


def write_json(path: str | Path, reports: Sequence[Report]) -> None:
    """Write one report in its own form, several as ``{"reports": [...]}``."""
    forms = [report.to_dict() for report in reports]
    write_object(path, forms[0] if len(forms) == 1 else {"reports": forms})


def write_rows(path: str | Path, reports: Sequence[Report]) -> None:
    """Write every row's outcome as JSON lines, each with its model's name."""
    lines = (
        json.dumps({"model": report.name, **row}, ensure_ascii=False) + "\n"
        for report in reports
        for row in report.rows
    )
    write_text(path, lines)


def tables(reports: Sequence[Report]) -> list[Table]:
    """Return a rich table for each benchmark, the models side by side."""
    names = dict.fromkeys(name for report in reports for name in report.benchmarks)
    made = []
    for name in names:
        forms = [report.benchmarks.get(name, {}) for report in reports]
        is_triplet = any(isinstance(value, dict) for value in forms[0].values())
        if is_triplet and len(reports) == 1:
            made.append(_triplet_table(name, forms[0]))
        else:
            made.append(_comparison_table(name, forms))
    return made


def notes(reports: Sequence[Report]) -> list[str]:
    """Return a line for each thing that was left out, and for each reduced row count."""
    lines: dict[str, None] = {}
    for report in reports:
        for name, reason in report.provenance.get("left_out", {}).items():
            lines[f"{name}: left out, {reason}"] = None
        for name, source in report.provenance.get("benchmarks", {}).items():
            lost = len(source["missing_images"]) + len(source["broken_images"])
            if lost:
                lines[
                    f"{name}: {lost} images missing or broken, "
                    f"{source['rows']} of {source['rows_of_the_whole']} rows scored"
                ] = None
    return list(lines)


def legend(reports: Sequence[Report]) -> list[str]:
    """Return which letter stands for which model, nothing for a single one."""
    if len(reports) == 1:
        return []
    return [f"{letter(i)}  {report.name}" for i, report in enumerate(reports)]


def letter(index: int) -> str:
    """Return the letter that stands for a model: A to Z, then AA, BB and so on."""
    return LETTERS[index % len(LETTERS)] * (1 + index // len(LETTERS))


def new_table(title: str, first: str) -> Table:
    """Return an empty table in the house's style, with its first column."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    # A narrow table would break its title into short lines.
    heading = Text(title, style="table.title", no_wrap=True, overflow="ignore")
    table = RichTable(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    table.add_column(first, no_wrap=True)
    return table


def _is_mean(name: str, form: dict[str, Any]) -> bool:
    """Return whether an entry is a macro mean: the categories have an underscore, means none."""
    return isinstance(form.get(name), dict) and "_" not in name


def _triplet_table(name: str, form: dict[str, Any]) -> Table:
    table = new_table(name, "category")
    shown = [m for m in METRICS if m in next(iter(form.values()))]
    for metric in [*shown, "n"]:
        table.add_column(metric.upper() if metric != "n" else "n", justify="right")
    in_means = False
    for category, entry in form.items():
        if _is_mean(category, form) and not in_means:
            in_means = True
            table.add_section()
        table.add_row(category, *(f"{entry[m]:.1f}" for m in shown), f"{entry['n']:,}")
    return table


def _title(name: str, forms: Sequence[dict[str, Any]]) -> str:
    """Return a benchmark's name with how many images and captions were scored."""
    counts = next(filter(None, forms))
    shown = [f"{counts[key]:,} {what}" for key, what in COUNTS.items() if key in counts]
    return f"{name} ({', '.join(shown)})" if shown else name


def _flat(form: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return percentages by (section, line); for triplets the sections are the metrics."""
    flat: dict[tuple[str, str], float] = {}
    for metric in METRICS:
        for category, entry in form.items():
            if isinstance(entry, dict) and metric in entry:
                flat[(metric.upper(), category)] = entry[metric]
    for key, value in form.items():
        if not isinstance(value, dict) and key not in COUNTS:
            flat[("", key)] = value
    return flat


def _comparison_table(name: str, forms: Sequence[dict[str, Any]]) -> Table:
    """Return a line for each number, a column for each model, and differences to the first."""
    with_differences = 1 < len(forms) <= MAX_WITH_DIFFERENCES
    table = new_table(_title(name, forms), "measure")
    for index in range(len(forms)):
        table.add_column(letter(index) if len(forms) > 1 else "value", justify="right")
        if index and with_differences:
            table.add_column(f"{letter(index)} - A", justify="right")
    flats = [_flat(form) for form in forms]
    counts = {key: entry["n"] for key, entry in forms[0].items() if isinstance(entry, dict)}
    if counts:
        table.add_column("n", justify="right")
    section = None
    for key in dict.fromkeys(key for flat in flats for key in flat):
        if section is not None and key[0] != section:
            table.add_section()
        section = key[0]
        cells: list[str] = []
        for index, flat in enumerate(flats):
            cells.append(_cell(flat.get(key)))
            if index and with_differences:
                cells.append(_difference(flat.get(key), flats[0].get(key)))
        if counts:
            cells.append(f"{counts[key[1]]:,}")
        table.add_row(" ".join(filter(None, key)), *cells)
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _difference(value: float | None, first: float | None) -> str:
    return "" if value is None or first is None else f"{value - first:+.1f}"
