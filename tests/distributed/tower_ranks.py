"""What each of two ranks does to compare its gradients with one rank's, by `forked.run_script`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from clic import distributed

sys.path.insert(0, str(Path(__file__).parents[1]))
import tower_kinds


def main(folder: Path) -> None:
    rank, ranks = distributed.rank(), distributed.world_size()
    for kind in tower_kinds.KINDS:
        try:
            clip = tower_kinds.build(kind, folder / f"{kind}-{rank}")
        except pytest.skip.Exception:  # the test says so
            continue
        data = tower_kinds.make_batch(clip, rank, ranks)
        found = {
            f"{dtype}/{size}": tower_kinds.gradient(clip, dtype, size=size, data=data)
            for dtype in (torch.float32, torch.float64)
            for size in (None, 2)
        }
        torch.save(found, folder / f"{kind}-{rank}.pt")
