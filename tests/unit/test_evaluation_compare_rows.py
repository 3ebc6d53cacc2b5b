"""The rows that are written make the numbers that are written, for every form of benchmark."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from clic.evaluation.report.html_page import margin, worst_failures
from clic.evaluation.report.paired_rows import leaves, observe
from clic.evaluation.report.report import Report
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.grids import RULES, Grids
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import BenchmarkTable, TableFeatures
from clic.evaluation.tables.triplets import Triplets

N, IMAGES, TEXTS, D = 40, 12, 20, 6
CATEGORIES = ("a_1", "a_2", "b_1")
GROUPS = {"a": ("a_1", "a_2"), "mean": CATEGORIES}


def numbers(count: int, below: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, count)


PIXELS = tuple(np.full((4, 4, 3), i, dtype=np.uint8) for i in range(IMAGES))
COMMON: dict[str, Any] = {
    "images": PIXELS,
    "texts": tuple(f"text {i}" for i in range(TEXTS)),
}
ROWS: dict[str, Any] = {
    **COMMON,
    "categories": CATEGORIES,
    "category": np.sort(numbers(N, 3, 0)),
    "groups": GROUPS,
}


def triplets(two: bool) -> Triplets:
    return Triplets(
        **ROWS,
        image=numbers(N, IMAGES, 1),
        positive1=numbers(N, TEXTS, 2),
        positive2=numbers(N, TEXTS, 3) if two else None,
        negative=numbers(N, TEXTS, 4),
    )


def grids(rule: str, images: int, captions: int, **more: Any) -> Grids:
    options = numbers(N * captions, TEXTS, 6).reshape(N, captions)
    if captions > 2 and rule == "choice":
        options[::3, -1] = -1
    return Grids(
        **ROWS,
        rule=rule,
        image=numbers(N * images, IMAGES, 5).reshape(N, images),
        caption=options,
        **more,
    )


def retrieval() -> Retrieval:
    owner = np.concatenate([np.arange(IMAGES), numbers(8, IMAGES, 7)])
    return Retrieval(**COMMON, gallery=np.arange(IMAGES), caption=np.arange(TEXTS), owner=owner)


def classification(names: tuple[str, ...], per_class: bool) -> Classification:
    prompts = tuple(np.array([2 * c, 2 * c + 1]) for c in range(4))
    tasks = {
        name: ClassificationTask(
            np.arange(IMAGES), numbers(IMAGES, 3, seed), ("w", "x", "y", "z"), prompts
        )
        for seed, name in enumerate(names)
    }
    return Classification(**COMMON, tasks=tasks, per_class=per_class)


SETS = {"all_of_it": np.where(np.arange(N) % 5, np.arange(N) % 7, -1)}
TABLES: dict[str, BenchmarkTable] = {
    "triplets": triplets(two=True),
    "one positive": triplets(two=False),
    "options": grids("choice", 1, 4, overall="all"),
    "images": grids("choice", 2, 1),
    "sets": grids("choice", 1, 3, sets=SETS, overall="all"),
    **{name: grids(name, 2, 2) for name in RULES if name not in ("choice", "half_truth")},
    "half_truth": grids("half_truth", 1, 3),
    "retrieval": retrieval(),
    "classes": classification(("pets",), per_class=True),
    "tasks": classification(("shape", "colour"), per_class=True),
    "accuracy": classification(("imagenet",), per_class=False),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("written", [False, True])
def test_rows_make_the_numbers(name: str, written: bool) -> None:
    table = TABLES[name]
    draws = torch.Generator().manual_seed(3)
    image, text = (
        torch.nn.functional.normalize(torch.randn(n, D, generator=draws), dim=1)
        for n in (IMAGES, TEXTS)
    )
    features = TableFeatures(image, text)
    form = table.score(features)
    rows = list(table.outcomes(features))
    if written:
        rows = [json.loads(json.dumps(row)) for row in rows]
    source = {
        "groups": getattr(table, "groups", {}), "overall": getattr(table, "overall", None),
    }  # fmt: skip
    seen = observe(rows, form, source)
    assert leaves(form)
    for path, value in leaves(form).items():
        assert seen.has(path), path
        assert seen.value(path) == pytest.approx(value, abs=1e-9), path
    # The gallery holds rows that are wrong, and none that is right.
    report = Report("m", {}, {}, {}, [{"benchmark": "b", **row} for row in rows], {"b": table})
    failures = worst_failures(report, limit=1000)["b"].failures
    for row in rows:
        if "rank" in row:
            right = row["rank"] == 1
        else:
            right = all(row[k] for k in ("itt", "group", "accuracy", "right") if k in row)
        assert (margin(row) > 0) == right, row
    assert 0 < len(failures) <= len(rows)
