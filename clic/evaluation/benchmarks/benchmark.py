"""The record of a benchmark, from which `catalogue` lists it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from clic.evaluation.files.file_sources import Source
from clic.evaluation.tables.table import BenchmarkTable

VALIDATION = "@val"
"""The ending of the name of a benchmark's validation split."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its loader and what a reader of its numbers must know.

    Attributes:
        name: As people write it.
        title: Its full name.
        about: One short line.
        load: (data root, split, seed) -> table; generated benchmarks ignore the data root, and
            benchmarks on files ignore split and seed.
        citation: Paper, year, arXiv id.
        licence: Of the annotations.
        rule: How a row is right, in one line.
        annotations: Files that are always needed; empty for generated benchmarks.
        images: Files that only models that encode images need.
        rows: Rows of the whole benchmark (for retrieval: images and captions), if established.
        differs: Why its numbers may differ from those of the paper's code; empty if they do not.
        text_metrics: Whether a model without `encode_image` can be scored.
        version: Changes when the same files would give other numbers.
        split: The only split it has, None if the setting chooses it or files have the usual one.
        validation: The benchmark on its validation split, for choosing settings; None if there is
            none.
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

    @property
    def made(self) -> bool:
        """Whether the benchmark is generated, from a split and a seed, instead of read."""
        return not self.annotations


def on_validation(
    benchmark: Benchmark, load: Callable[[Path], BenchmarkTable], title: str, about: str, rows: int
) -> Benchmark:
    """Return a benchmark with its validation split, which is in the same files."""
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
    """Return the loader of a benchmark on files, which needs nothing but the data root."""
    return lambda data_root, split, seed: load(data_root)
