"""The record that describes a benchmark; `catalogue` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from clic.evaluation.files.file_sources import Source
from clic.evaluation.tables.table import BenchmarkTable

VALIDATION = "@val"
"""Suffix of the name of a benchmark's validation split."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: how to load it, and what to know about its numbers.

    Attributes:
        name: Its name, as users write it.
        title: Its full name.
        about: One short line.
        load: (data root, split, seed) -> table; generated benchmarks ignore the data root, and
            benchmarks on files ignore split and seed.
        citation: Paper, year, arXiv id.
        licence: Licence of the annotations.
        rule: When a row counts as right, in one line.
        annotations: Files that are always needed; empty for generated benchmarks.
        images: Files needed only by models that encode images.
        rows: Number of rows of the whole benchmark (for retrieval: images and captions), if known.
        differs: Why its numbers may differ from those of the paper's code; empty if they do not.
        text_metrics: Whether a model without `encode_image` can be scored.
        version: Changes whenever the same files would give different numbers.
        split: The only split it has; None if `split` selects one, or the files have the usual one.
        validation: The benchmark's validation split, for choosing settings, if it has one.
        own_file: The user's own file that it is read from; None for those in the catalogue.
    """

    name: str
    title: str
    about: str
    load: Callable[[Path, str, int], BenchmarkTable]
    citation: str
    licence: str
    rule: str
    annotations: tuple[Source, ...] = ()
    images: tuple[Source, ...] = ()
    rows: int | None = None
    differs: str = ""
    text_metrics: bool = False
    version: str = "1"
    split: str | None = None
    validation: Benchmark | None = None
    own_file: Path | None = None

    @property
    def made(self) -> bool:
        """Whether the benchmark is generated, from a split and a seed, instead of read."""
        return not self.annotations


def on_validation(
    benchmark: Benchmark, load: Callable[[Path], BenchmarkTable], title: str, about: str, rows: int
) -> Benchmark:
    """Return a benchmark with its validation split, which is read from the same files."""
    split = replace(
        benchmark,
        name=f"{benchmark.name}{VALIDATION}",
        title=title,
        about=about,
        load=of_files(load),
        rows=rows,
        split="validation",
    )
    return replace(benchmark, validation=split)


def of_files(load: Callable[[Path], BenchmarkTable]) -> Callable[[Path, str, int], BenchmarkTable]:
    """Return a loader for a benchmark that is read from files, which ignores split and seed."""
    return lambda data_root, split, seed: load(data_root)
