"""The plan of an evaluation: finds and reads its files before any model is loaded."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clic.errors import ConfigError, DataError, did_you_mean
from clic.evaluation.benchmarks import catalogue
from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.encode.image_sources import image_path
from clic.evaluation.files.file_sources import how_to_get
from clic.evaluation.tables.table import BenchmarkTable

SPLITS = ("test", "validation", "train")
# This names the command, because sweeps of clic-patch show the same message.
TEXT_ONLY_HINT = ", or score the captions alone with clic-eval --text-only"


@dataclass(frozen=True)
class Prepared:
    """A benchmark whose files were found and read.

    Attributes:
        benchmark: The benchmark.
        table: Its rows, without those of missing images.
        sha256: Hash of the whole table, including rows of missing images.
        missing: Names of the missing images.
        rows: Number of rows of the whole table.
    """

    benchmark: Benchmark
    table: BenchmarkTable
    sha256: str
    missing: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class EvaluationPlan:
    """The benchmarks to score, ready before any model is loaded.

    Attributes:
        prepared: The benchmarks with their tables.
        left_out: Benchmarks on which the model cannot be scored, with the reasons.
        with_images: Whether images are encoded.
        settings: The settings, for the report.
        seen: Image features by the model's `image_key`, so that models with the same frozen vision
            tower encode the images once.
    """

    prepared: list[Prepared]
    left_out: dict[str, str] = field(default_factory=dict)
    with_images: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    seen: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def why_no_images(self) -> str:
        """The reason why images are not encoded."""
        return _why_no_images(bool(self.settings.get("text_only")))


def default_data_root() -> Path:
    """Return the environment's CLIC_DATA, else `data` in the current folder."""
    return Path(os.environ.get("CLIC_DATA") or "data").expanduser()


def prepare(
    benches: str | Sequence[str],
    data_root: str | Path | None = None,
    *,
    split: str = "test",
    seed: int = 0,
    allow_missing: bool = False,
    text_only: bool = False,
    with_images: bool = True,
    with_texts: bool = True,
) -> EvaluationPlan:
    """Find and read the benchmarks' files, and report everything that is missing.

    Args:
        benches: Names and groups, see `catalogue.BENCHMARKS`, and the user's own files.
        data_root: Folder of the benchmarks' files, default CLIC_DATA, then `./data`.
        split: Split of generated benchmarks: test, validation or train. A name that ends in @val
            already has its split.
        seed: Seed of generated benchmarks.
        allow_missing: Leave out rows whose image is missing or broken, and count the rest.
        text_only: Score the captions alone, without looking for images.
        with_images: Whether the model encodes images; if not, images are not looked for.
        with_texts: Whether the model encodes texts; if not, nothing can be scored.

    Raises:
        ConfigError: A name is unknown, or a setting would have no effect.
        DataError: Files are missing; the message says where they belong and how to get them.
    """
    chosen = catalogue.select([benches] if isinstance(benches, str) else benches)
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    _check_settings(chosen, split, seed)
    if text_only:
        _check_text_only(chosen, allow_missing)
        with_images = False
    no_images = None if with_images else _why_no_images(text_only)
    left_out = {b.name: r for b in chosen if (r := _unable(b, no_images, with_texts))}
    able = [benchmark for benchmark in chosen if benchmark.name not in left_out]
    _check_files(able, root, with_images)
    prepared = [_read(b, root, split, seed, allow_missing, with_images) for b in able]
    settings = {
        "bench": [benchmark.name for benchmark in chosen],
        "data": str(root.resolve()),
        "split": split,
        "seed": seed,
        "allow_missing": allow_missing,
        "text_only": text_only,
    }
    return EvaluationPlan(prepared, left_out, with_images, settings)


def _check_settings(chosen: Sequence[Benchmark], split: str, seed: int) -> None:
    if split not in SPLITS:
        raise ConfigError(
            f"split={split!r} is not known{did_you_mean(split, SPLITS)} "
            f"(choices: {', '.join(SPLITS)})"
        )
    names, made = ", ".join(b.name for b in chosen), [b for b in chosen if b.made]
    if seed != 0 and not made:
        raise ConfigError(
            f"seed={seed} has no effect: {names} is read from files, and only the shapes "
            "benchmarks have a seed; leave it out"
        )
    if split == "test" or any(benchmark.split is None for benchmark in made):
        return
    if made:
        raise ConfigError(
            f"split={split} has no effect: the split is in the name already ({names}); leave "
            "one out"
        )
    able = [b.validation.name for b in chosen if b.validation and split == "validation"]
    remedy = f"name {','.join(able)}" if able else "leave it out"
    raise ConfigError(
        f"split={split} has no effect: {names} is read from files, and only the shapes benchmarks "
        f"have a split that is set so; {remedy}"
    )


def _check_text_only(chosen: Sequence[Benchmark], allow_missing: bool) -> None:
    if allow_missing:
        raise ConfigError("allow_missing has no effect with text_only; leave one out")
    if not any(benchmark.text_metrics for benchmark in chosen):
        able = ", ".join(b.name for b in catalogue.BENCHMARKS.values() if b.text_metrics)
        raise ConfigError(
            f"text_only: {', '.join(b.name for b in chosen)} cannot be scored by captions alone; "
            f"name {able}, or leave text_only out"
        )


def _why_no_images(text_only: bool) -> str:
    return "text_only leaves images out" if text_only else "the model has no encode_image"


def _unable(benchmark: Benchmark, no_images: str | None, with_texts: bool) -> str | None:
    """Return why a benchmark cannot be scored, or None; `no_images` is why images are left out."""
    if not with_texts:
        return "the model has no encode_text"
    return None if benchmark.text_metrics else no_images


def _check_files(benchmarks: Sequence[Benchmark], root: Path, with_images: bool) -> None:
    """Raise one error for all missing files, with the commands that fetch them."""
    lacking = {b.name: m for b in benchmarks if (m := catalogue.missing(b, root, with_images))}
    items = [source for needed in lacking.values() for source in needed]
    if not items:
        return
    paths = list(dict.fromkeys(str(root.resolve() / source.gives) for source in items))
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    commands = "; ".join(how_to_get(lacking, root))
    only_images = all(catalogue.text_only(b, root) for b in benchmarks if b.name in lacking)
    raise DataError(
        f"{', '.join(lacking)}: {paths[0]}{more} is missing; get it with: {commands} "
        "(or name the folder that holds the data with --data; for clic-train, with CLIC_DATA"
        f"{TEXT_ONLY_HINT if only_images else ''})"
    )


def _read(
    benchmark: Benchmark,
    root: Path,
    split: str,
    seed: int,
    allow_missing: bool,
    with_images: bool,
) -> Prepared:
    table = benchmark.load(root, split, seed)
    sha256, rows = table.digest(), table.rows
    lost = missing_images(table) if with_images else {}
    names = tuple(dict.fromkeys(map(str, lost.values())))
    if names and not allow_missing:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        sources = benchmark.images or benchmark.annotations
        command = "; ".join(how_to_get({benchmark.name: sources}, root))
        whole = len({image_path(image) for image in table.images})
        raise DataError(
            f"{benchmark.name}: {len(names)} of {whole} images are missing ({listed}); get "
            f"them with: {command}; or leave their rows out with --allow-missing"
            f"{TEXT_ONLY_HINT if benchmark.text_metrics else ''}"
        )
    kept = table.without(np.isin(np.arange(len(table.images)), list(lost)))
    return Prepared(benchmark, kept, sha256, names, rows)


def missing_images(table: BenchmarkTable) -> dict[int, Path]:
    """Return the files that do not exist, by the number of their image; lists each folder once."""
    listed: dict[Path, set[str]] = {}
    lost = {}
    for number, image in enumerate(table.images):
        path = image_path(image)
        if path is not None:
            folder = path.parent
            if folder not in listed:
                listed[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
            if path.name not in listed[folder]:
                lost[number] = path
    return lost
