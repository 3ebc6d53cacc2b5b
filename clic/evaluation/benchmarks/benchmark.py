"""What the registry knows of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from clic.evaluation.files.file_sources import Source
from clic.evaluation.tables.table import BenchmarkTable

VALIDATION = "@val"
"""How the name of a benchmark's validation split ends."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its loader and what a reader of its numbers must know.

    Attributes:
        name: As people write it.
        title: Its full name.
        about: One short line.
        load: (data root, split, seed) -> table; made benchmarks ignore the data root, and
            benchmarks on files ignore split and seed.
        version: Changes when the same files would give other numbers.
        citation: Paper, year, arXiv id.
        licence: Of the annotations.
        rule: How a row is right, in one line.
        annotations: What is always needed; empty for what is made on the fly.
        images: What only models that encode images need.
        rows: Rows of the whole benchmark (for retrieval: images and captions), where established.
        differs: In what its numbers may differ from the paper's code, empty where in nothing.
        text_metrics: Whether something can be said of a model without `encode_image`.
        split: The split that it is bound to, whatever is asked for; None for the one asked for, or
            what a benchmark on files usually scores.
        validation: The same on its validation split, for choosing settings; None where files have
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
        """Whether the benchmark is made on the fly, with a split and a seed."""
        return not self.annotations


def on_validation(
    benchmark: Benchmark, load: Callable[[Path], BenchmarkTable], title: str, about: str, rows: int
) -> Benchmark:
    """Return a benchmark on files with its validation split, which they hold too."""
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
    """Return a loader for the registry from one that needs nothing but the data root."""
    return lambda data_root, split, seed: load(data_root)
