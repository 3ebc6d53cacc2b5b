"""Code that the studies' tables share: means, deviations and how they are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

TRIPLET = ("itt", "tot", "p1")


def summarise(measured: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return mean, sample standard deviation (None for one model) and values of each measure.

    Args:
        measured: The measures of each model by path.
    """
    summary = {}
    for path in measured[0]:
        values = [measures[path] for measures in measured]
        deviation = stdev(values) if len(values) > 1 else None
        summary[path] = {"mean": mean(values), "std": deviation, "values": values}
    return summary


def cell(measure: Mapping[str, Any]) -> str:
    """Return one measure as printed."""
    if measure["std"] is None:
        return f"{measure['mean']:.1f}"
    return f"{measure['mean']:.1f} ± {measure['std']:.1f}"


def joined(measures: Mapping[str, Any], paths: Iterable[str]) -> str:
    """Return several measures in one cell, with the largest of their deviations."""
    found = [measures[path] for path in paths]
    means = " / ".join(f"{measure['mean']:.1f}" for measure in found)
    deviations = [measure["std"] for measure in found if measure["std"] is not None]
    return f"{means} (≤ ±{max(deviations):.1f})" if deviations else means


def triplet(measures: Mapping[str, Any], category: str) -> str:
    """Return ITT, TOT and p1 of a category, given as BENCHMARK/CATEGORY, in one cell."""
    return joined(measures, [f"{category}/{name}" for name in TRIPLET])


def row(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return "".join(f"| {text} " if text else "| " for text in cells) + "|"


def made_by(about: Mapping[str, Any]) -> str:
    """Return a line that states what made the numbers."""
    commit, _, changes = (about["commit"] or "unknown").partition("+")
    precision = f"{about['precision']}, " if "precision" in about else ""
    return (
        f"{about['device']}, {about['threads']} thread(s) a run, {precision}"
        f"torch {about['versions']['torch']}, {about['date']}, "
        f"commit {commit[:12]}{' with changes' if changes else ''}."
    )
