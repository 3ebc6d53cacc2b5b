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
    """A benchmark: how to load it, and what to know about its numbers.

    Attributes:
        name: As people write it.
        title: Its full name.
        about: One short line.
        load: (data root, split, seed) -> table; generated benchmarks ignore the data root, and
            benchmarks on files ignore split and seed.
        citation: Paper, year, arXiv id.
        licence: Of the annotations.
        rule: When a row counts as right, in one line.
        annotations: Files that are always needed; empty for generated benchmarks.
        images: Files needed only by models that encode images.
        rows: Rows of the whole benchmark (for retrieval: images and captions), if established.
        differs: Why its numbers may differ from those of the paper's code; empty if they do not.
        text_metrics: Whether a model without `encode_image` can be scored.
        version: Changes whenever the same files would give different numbers.
        split: The only split it has; None if `split` chooses it, or the files hold the usual one.
        validation: The same benchmark on its validation split, for choosing settings, if any.
        own_file: The user's own file that it is read from, None for all that are listed.
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
    """Return a benchmark together with its validation split, which the same files hold."""
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
    """Return the loader of a benchmark that is read from files: it ignores split and seed."""
    return lambda data_root, split, seed: load(data_root)
