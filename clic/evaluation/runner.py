"""Evaluates a model on benchmarks: from names to a report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clic import distributed, provenance
from clic.errors import ClicError, ConfigError, DataError, redact
from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.encode.distributed_encoding import EncodingOptions
from clic.evaluation.encode.encoding import EncodedPlan, encode_plan
from clic.evaluation.encode.feature_cache import FeatureCache
from clic.evaluation.evaluation_plan import EvaluationPlan, Prepared, prepare
from clic.evaluation.report.report import Report, covered_subset
from clic.evaluation.tables.table import BenchmarkTable
from clic.io.processes import usable_cores

MOST_WORKERS = 16


def evaluate(
    model: Any,
    benches: str | Sequence[str],
    data_root: str | Path | None = None,
    *,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 64,
    workers: int | None = None,
    allow_missing: bool = False,
    text_only: bool = False,
    keep_rows: bool = False,
    progress: bool = False,
    cache: FeatureCache | None = None,
    all_ranks: bool = False,
) -> Report:
    """Score a model on benchmarks, encoding each distinct image and text once.

    Args:
        model: Anything with `encode_image(list of PIL images) -> [N, D]` and
            `encode_text(list of str) -> [N, D]`; without one of them, the metrics that need it
            are left out, and the report says so. Optional: `identity`; `device`; `text_key` (a
            text's token ids); `texts_at_once` (how many texts to pass at once, if the model forms
            batches itself); `image_key` (equal for models that encode images alike);
            `prepare_image` (called in threads) with `encode_prepared`; and for the cache
            `image_tower_key` and `text_tower_key`, everything that a tower's features depend on.
        benches: Names and groups of benchmarks.
        data_root: Folder of the benchmarks' files, default CLIC_DATA, then `./data`.
        split: Split of generated benchmarks.
        seed: Seed of generated benchmarks.
        batch_size: Images, or texts, at a time.
        workers: Threads that decode images; by default the available cores, at most 16.
        allow_missing: Leave out rows whose image is missing or broken.
        text_only: Score the captions alone, without looking for images.
        keep_rows: Keep each row's outcome in `Report.rows`.
        progress: Show progress bars if stderr is a terminal.
        cache: Keeps features across runs.
        all_ranks: Every rank of the process group calls this and encodes a part of the items; only
            rank 0 scores and keeps the rows.

    Raises:
        ConfigError: A name or setting is wrong, or the object is not a model.
        DataError: Files are missing or broken.
        ModelError: The model's output is not [N, D], finite and non-zero.
    """
    plan = prepare(
        benches,
        data_root,
        split=split,
        seed=seed,
        allow_missing=allow_missing,
        text_only=text_only,
        with_images=callable(getattr(model, "encode_image", None)),
        with_texts=callable(getattr(model, "encode_text", None)),
    )
    return run(
        model,
        plan,
        batch_size=batch_size,
        workers=workers,
        keep_rows=keep_rows,
        progress=progress,
        cache=cache,
        all_ranks=all_ranks,
    )


def run(
    model: Any,
    plan: EvaluationPlan,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    keep_rows: bool = False,
    progress: bool = False,
    name: str | None = None,
    cache: FeatureCache | None = None,
    all_ranks: bool = False,
) -> Report:
    """Score a model on a plan, as `evaluate` does; several models can share a plan.

    `name` is the model's name in tables, by default that of its identity.
    """
    workers = decoding_threads() if workers is None else workers
    _check_model(model, batch_size, workers)
    if not distributed.is_main() and not all_ranks:
        raise ConfigError("evaluate runs on rank 0 alone, or with all_ranks=True on every rank")
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    options = EncodingOptions(batch_size, workers, progress, all_ranks, cache)
    with torch.no_grad():
        encoded = encode_plan(model, plan, options)
    scored = _score(plan, encoded, keep_rows) if distributed.is_main() else _Scored()
    if all_ranks:
        scored = _broadcast(scored)
    if scored.failure is not None:
        raise scored.failure
    record = {
        **provenance.code(),
        "command": provenance.command(),
        "date": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "stages": {**encoded.stages, "scoring": {"seconds": round(scored.seconds, 3)}},
        **_circumstances(model, plan, options),
        "benchmarks": scored.sources,
        "left_out": _left_out(plan),
    }
    identity = _identity(model)
    return Report(
        name or str(identity["name"]),
        identity,
        record,
        scored.benchmarks,
        scored.rows,
        scored.tables,
    )


def _circumstances(model: Any, plan: EvaluationPlan, options: EncodingOptions) -> dict[str, Any]:
    """Return the device and the settings that a model was scored with."""
    sizes = {"batch_size": options.batch_size, "workers": options.workers}
    return {
        "cache": None if options.cache is None else str(options.cache.folder),
        "ranks": distributed.world_size() if options.all_ranks else 1,
        "device": str(getattr(model, "device", "unknown")),
        "dtype": str(getattr(model, "precision", getattr(model, "dtype", "unknown"))),
        "seed": plan.settings.get("seed"),
        "settings": redact({**plan.settings, **sizes}),
    }


@dataclass
class _Scored:
    """The results of rank 0, which sends their numbers to the other ranks."""

    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, BenchmarkTable] = field(default_factory=dict)
    seconds: float = 0.0
    failure: ClicError | None = None


def _score(plan: EvaluationPlan, encoded: EncodedPlan, keep_rows: bool) -> _Scored:
    scored, clock = _Scored(), time.perf_counter()
    try:
        for item, own, lost in zip(plan.prepared, encoded.features, encoded.broken, strict=True):
            bench, table = item.benchmark.name, item.table
            if lost:
                table = table.without(np.isin(np.arange(len(table.images)), list(lost)))
            scored.benchmarks[bench] = table.score(own)
            scored.sources[bench] = _source(item, table, list(lost.values()), plan.settings)
            if keep_rows:
                scored.rows += [{"benchmark": bench, **row} for row in table.outcomes(own)]
                scored.tables[bench] = table
    except ClicError as error:  # every rank must learn of it, or the others would wait forever
        scored.failure = error
    scored.seconds = time.perf_counter() - clock
    return scored


def _broadcast(scored: _Scored) -> _Scored:
    """Return the numbers of rank 0 on every rank; rows and tables stay on rank 0."""
    reason = None if scored.failure is None else str(scored.failure)
    benchmarks, sources, seconds, reason = distributed.broadcast_object(
        (scored.benchmarks, scored.sources, scored.seconds, reason)
    )
    if distributed.is_main():
        return scored
    failure = None if reason is None else DataError(f"{reason} (rank 0)")
    return _Scored(benchmarks, sources, seconds=seconds, failure=failure)


def decoding_threads() -> int:
    """Return the number of decoding threads that a rank has cores for."""
    return max(1, min(MOST_WORKERS, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))


def _identity(model: Any) -> dict[str, Any]:
    """Return the model's own identity, or the name of its class."""
    known = getattr(model, "identity", None)
    unknown = {"name": type(model).__name__, "source": "a Python object"}
    return {**unknown, **known} if isinstance(known, dict) else unknown


def _check_model(model: Any, batch_size: int, workers: int) -> None:
    if not any(callable(getattr(model, name, None)) for name in ("encode_image", "encode_text")):
        raise ConfigError(
            f"a {type(model).__name__} is not a model: it has neither encode_image nor encode_text"
        )
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")


def _left_out(plan: EvaluationPlan) -> dict[str, str]:
    """Return the benchmarks and metrics that were not scored, with the reasons."""
    partial = {
        item.benchmark.name: "ITT and P1: "
        + ("no row names an image" if plan.with_images else plan.why_no_images)
        for item in plan.prepared
        if not plan.with_images or not item.table.images
    }
    return {**plan.left_out, **partial}


def _source(
    item: Prepared, table: BenchmarkTable, broken: list[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    asked = settings.get("split") if item.benchmark.made else "test"
    subset = covered_subset({"rows": table.rows, "rows_of_the_whole": item.rows})
    return {
        "version": item.benchmark.version,
        "split": item.benchmark.split or asked,
        "sha256": item.sha256,
        "rows": table.rows,
        "rows_of_the_whole": item.rows,
        **({"covered_subset": subset} if subset else {}),
        "rows_expected": item.benchmark.rows,
        "images": int(table.used_images().sum()),
        "texts": len(table.texts),
        "groups": {name: list(of) for name, of in getattr(table, "groups", {}).items()},
        "overall": getattr(table, "overall", None),
        "missing_images": list(item.missing),
        "broken_images": broken,
        **_own_file(item.benchmark),
        "citation": item.benchmark.citation,
        "licence": item.benchmark.licence,
    }


def _own_file(benchmark: Benchmark) -> dict[str, str]:
    """Return the path of a user's own file and how it was read; empty for other benchmarks."""
    if benchmark.own_file is None:
        return {}
    return {"own_file": str(benchmark.own_file.absolute()), "read_as": benchmark.about}
