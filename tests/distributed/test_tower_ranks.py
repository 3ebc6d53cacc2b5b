"""Two ranks with half the batch each have the gradient of one, on every kind of tower."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked
import tower_kinds
from tower_kinds import KINDS, distance, own_gradient

HERE = Path(__file__).parent
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Largest distance from the gradient of one rank's own forward, relative to its norm."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with what each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    forked.run_script(HERE / "tower_ranks.py", 2, folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_have_the_gradient_of_one(ranks: Path, tmp_path: Path, kind: str) -> None:
    clip = tower_kinds.build(kind, tmp_path / "model")
    found = [torch.load(ranks / f"{kind}-{rank}.pt") for rank in (0, 1)]
    for dtype, tolerance in TOLERANCE.items():
        expected = own_gradient(clip, dtype)
        for size in (None, 2):  # at once, and in chunks of two rows
            first, second = (one[f"{dtype}/{size}"] for one in found)
            assert all(torch.equal(value, second[name]) for name, value in first.items())
            assert distance(first, expected) <= tolerance
