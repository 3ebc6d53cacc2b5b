"""Chunks with cached gradients have the gradient of the whole batch, on one and two ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clic.losses import OBJECTIVES

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

HERE = Path(__file__).parent
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
"""Largest distance from the whole batch's gradient, relative to its norm."""
SINGLE = {"float32": 1e-6, "float64": 1e-12}
"""The same of every single parameter, relative to what was added up to its gradient: the norm of
the sum over rows of the absolute values of each row's gradient, in float64.

The rounding of a sum is proportional to that, whatever its order. Chunks add the rows of a gradient
in another order than a whole batch does, and packed captions even the tokens of a row; no order of
one would be that of the other. Relative to the gradient itself, that of a LayerNorm's weight or
bias may be off by 1.2e-6, because its rows nearly cancel: up to three times as much was added.
Measured, chunks are within 4.8e-7 of the whole batch. Either is up to 3.2e-6 from float64, by how
the machine multiplies, so that only the two are compared.
"""
ROUNDING = 1.5
"""How much further than the whole batch's gradient that of chunks may be from float64."""


@pytest.fixture(scope="module", params=[1, 2])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what every rank has found, by rank."""
    folder = tmp_path_factory.mktemp("cache")
    forked.run_script(HERE / "gradient_cache.py", request.param, folder)
    ranks = range(request.param)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in ranks]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_chunks_have_the_gradient_of_the_whole_batch(found: Any, dtype: str) -> None:
    names = [name for name in found[0] if f"/{dtype}/" in name]
    compared = [name.split("/")[0] for name in names]
    assert {*OBJECTIVES, "sigmoid", "kinds", "distilled"} == set(compared)
    assert all(compared.count(name) == 2 * 3 for name in compared)  # what trains, chunks
    for one in found:
        for name in names:
            entry = one[name]
            assert entry["norm"] > 1e-4, name
            assert entry["terms"], name
            assert entry["loss"] <= TOLERANCE[dtype], (name, entry)
            assert entry["gradient"] <= TOLERANCE[dtype], (name, entry)
            assert entry["parameter"] <= SINGLE[dtype], (name, entry)
            if dtype == "float32":
                assert entry["from exact"] <= ROUNDING * entry["whole from exact"], (name, entry)
                assert entry["cancels"] > 1.2, (name, entry)  # or the sums would say nothing new


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_packed_captions_have_the_gradient_of_padded_ones(found: Any, dtype: str) -> None:
    assert all(one[f"packed/{dtype}"] <= TOLERANCE[dtype] for one in found)


def test_compiled_towers_have_it_too(found: Any) -> None:
    for one in found:
        assert max(one["traced/None"], one["traced/3"]) <= TOLERANCE["float32"]


def test_only_the_last_chunk_is_averaged_over_ranks(found: Any) -> None:
    if len(found) > 1:
        sent = found[0]["reductions"]
        assert sent["cached"] == sent["whole"] > 0
