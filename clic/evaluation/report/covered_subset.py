"""What is said of a benchmark of which only the rows with images were scored, in one wording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def covered_subset(source: Mapping[str, Any]) -> str:
    """Return that a benchmark was scored on a covered subset, with both counts; empty if not.

    Args:
        source: The benchmark's entry in a report's provenance.
    """
    rows, whole = source.get("rows"), source.get("rows_of_the_whole")
    if rows is None or whole is None or rows == whole:
        return ""
    return f"a covered subset of {rows:,} rows of {whole:,}"


def covered_by_any(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return that of the first of several models that was scored on a covered subset."""
    return next(filter(None, map(covered_subset, sources)), "")
