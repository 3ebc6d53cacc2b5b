"""From names of benchmarks and a model to a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clic import distributed, provenance
from clic.errors import ConfigError, ModelError
from clic.evaluation import encode, scoring
from clic.evaluation.cases import Table, used_images
from clic.evaluation.plan import Plan, Prepared, prepare
from clic.evaluation.report import Report


def evaluate(
    model: Any,
    benches: str | Sequence[str],
    data_root: str | Path | None = None,
    *,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 2,
    allow_missing: bool = False,
    text_only: bool = False,
    keep_rows: bool = False,
    progress: bool = False,
) -> Report:
    """Score a model on benchmarks, encoding each distinct image and text once.

    Args:
        model: Anything with `encode_image(list of PIL images) -> [N, D]` and
            `encode_text(list of str) -> [N, D]`; where one is missing, what needs it is left out
            and the report says so. Used where they exist: `identity`, `device`, `text_key` (a
            text's token ids) and `image_key` (equal for models that encode images alike).
        benches: Names and groups of benchmarks.
        data_root: Folder of the benchmarks' files, default CLIC_DATA, then `./data`.
        split: Split of the benchmarks that are made on the fly.
        seed: Seed of the benchmarks that are made on the fly.
        batch_size: Images, or texts, at a time.
        workers: Threads that decode images.
        allow_missing: Leave out rows whose image is missing or broken.
        text_only: Score the captions alone, whatever the model can do; no image is looked for.
        keep_rows: Keep each row's outcome in `Report.rows`.
        progress: Show progress bars where stderr is a terminal.

    Raises:
        ConfigError: A name or setting is wrong, or the object is no model.
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
        model, plan, batch_size=batch_size, workers=workers, keep_rows=keep_rows, progress=progress
    )


def run(
    model: Any,
    plan: Plan,
    *,
    batch_size: int = 64,
    workers: int = 2,
    keep_rows: bool = False,
    progress: bool = False,
    name: str | None = None,
) -> Report:
    """Score a model on a plan, as `evaluate` does; several models can share one plan.

    `name` is what tables call the model, by default the name in its identity.
    """
    _check_model(model, batch_size, workers)
    if distributed.world_size() > 1 and not distributed.is_main():
        raise ConfigError("evaluate runs whole on one process; call it on rank 0 only")
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    tables = [item.table for item in plan.prepared]
    with torch.no_grad():
        features, broken = _encode(model, plan, batch_size, workers, progress)
    benchmarks: dict[str, dict[str, Any]] = {}
    kept: list[dict[str, Any]] = []
    sources: dict[str, dict[str, Any]] = {}
    for item, table, own, lost in zip(plan.prepared, tables, features, broken, strict=True):
        bench = item.benchmark.name
        if lost:
            table = table.without(np.isin(np.arange(len(table.images)), list(lost)))
        benchmarks[bench] = scoring.score(table, own)
        sources[bench] = _source(item, table, list(lost.values()))
        if keep_rows:
            kept += [{"benchmark": bench, **row} for row in scoring.rows(table, own)]
    record = {
        **provenance.code(),
        "command": sys.argv,
        "date": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "device": str(getattr(model, "device", "unknown")),
        "dtype": str(getattr(model, "precision", getattr(model, "dtype", "unknown"))),
        "seed": plan.settings.get("seed"),
        "settings": {**plan.settings, "batch_size": batch_size, "workers": workers},
        "benchmarks": sources,
        "left_out": _left_out(plan),
    }
    identity = _identity(model)
    return Report(name or str(identity["name"]), identity, record, benchmarks, kept)


def _identity(model: Any) -> dict[str, Any]:
    """Return what a model says of itself, or the name of its class."""
    known = getattr(model, "identity", None)
    unknown = {"name": type(model).__name__, "source": "a Python object"}
    return {**unknown, **known} if isinstance(known, dict) else unknown


def _check_model(model: Any, batch_size: int, workers: int) -> None:
    if not any(callable(getattr(model, name, None)) for name in ("encode_image", "encode_text")):
        raise ConfigError(
            f"a {type(model).__name__} is no model: it has neither encode_image nor encode_text"
        )
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")


def _left_out(plan: Plan) -> dict[str, str]:
    """Return what was not scored, and why: whole benchmarks, and metrics of the others."""
    partial = {}
    if not plan.with_images:
        reason = f"ITT and P1: {plan.why_no_images}"
        partial = {item.benchmark.name: reason for item in plan.prepared}
    return {**plan.left_out, **partial}


def _encode(
    model: Any, plan: Plan, batch_size: int, workers: int, progress: bool
) -> tuple[list[scoring.TableFeatures], list[dict[int, str]]]:
    """Return each table's features, and its broken images (index in the table -> reason)."""
    tables = [item.table for item in plan.prepared]
    if not tables:
        return [], []
    texts = encode.unique_texts(tables, getattr(model, "text_key", None))
    with encode.progress_bar(progress, "texts", len(texts.items)) as advance:
        text = encode.encode_texts(model, texts, batch_size, advance)
    own_text = [text[torch.from_numpy(position)] for position in texts.positions]
    if not plan.with_images:
        return [scoring.TableFeatures(None, own) for own in own_text], [{} for _ in tables]
    key = getattr(model, "image_key", None)
    if key is None or key not in plan.seen:
        found = _encode_images(model, plan, batch_size, workers, progress)
        plan.seen.clear()  # one tower's features at a time, so that memory does not grow
        if key is not None:
            plan.seen[key] = found
    else:
        found = plan.seen[key]
    for image, _ in found:
        if image.shape[1] != text.shape[1]:
            raise ModelError(
                f"the image features are {image.shape[1]} wide and the text features "
                f"{text.shape[1]}; they must be of one space"
            )
    pairs = zip(found, own_text, strict=True)
    return [scoring.TableFeatures(image, own) for (image, _), own in pairs], [b for _, b in found]


def _encode_images(
    model: Any, plan: Plan, batch_size: int, workers: int, progress: bool
) -> list[tuple[torch.Tensor, dict[int, str]]]:
    """Return each table's image features and broken images; lost images have rows of zeros."""
    tables = [item.table for item in plan.prepared]
    union = encode.unique_images(tables)
    used = np.zeros(len(union.items), dtype=bool)
    for table, position in zip(tables, union.positions, strict=True):
        used[position[used_images(table)]] = True
    wanted = np.flatnonzero(used)
    allow = bool(plan.settings.get("allow_missing"))
    with encode.progress_bar(progress, "images", len(wanted)) as advance:
        encoded, bad = encode.encode_images(
            model, [union.items[i] for i in wanted], batch_size, workers, allow, advance
        )
    image = encoded.new_zeros(len(union.items), encoded.shape[1])
    image[torch.from_numpy(wanted)] = encoded
    reasons = {int(wanted[i]): reason for i, reason in bad.items()}
    return [
        (
            image[torch.from_numpy(position)],
            {i: reasons[p] for i, p in enumerate(position.tolist()) if p in reasons},
        )
        for position in union.positions
    ]


def _source(item: Prepared, table: Table, broken: list[str]) -> dict[str, Any]:
    return {
        "version": item.benchmark.version,
        "sha256": item.sha256,
        "rows": table.rows,
        "rows_of_the_whole": item.rows,
        "images": int(used_images(table).sum()),
        "texts": len(table.texts),
        "missing_images": list(item.missing),
        "broken_images": broken,
        "citation": item.benchmark.citation,
        "licence": item.benchmark.licence,
    }
