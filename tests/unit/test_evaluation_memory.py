"""Retrieval never holds the scores of all images with all captions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clic import metrics
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import TableFeatures

ROOT = Path(__file__).resolve().parents[2]


def test_scores_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 1000)
    sizes: list[int] = []
    whole = metrics._image_ranks

    def spy(scores: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(scores.numel())
        return whole(scores, *rest)

    monkeypatch.setattr(metrics, "_image_ranks", spy)
    table = Retrieval(
        images=tuple(np.zeros((60, 1, 1, 3), np.uint8)),
        texts=tuple(map(str, range(120))),
        gallery=np.arange(60),
        caption=np.arange(120),
        owner=np.arange(120) % 60,
    )
    image, text = (torch.nn.functional.normalize(torch.randn(n, 8)) for n in (60, 120))
    table.score(TableFeatures(image, text))
    assert sum(sizes) == 60 * 120 and max(sizes) <= 1000


@pytest.mark.slow
def test_peak_memory_of_a_large_gallery() -> None:
    """5,000 images by 25,000 captions: below 1.5 GB beyond the model (as floats they are 0.5)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/eval_memory.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    print(done.stdout)
    found = re.search(r"5000 images x 25000 captions: peak ([\d.]+) GB", done.stdout)
    assert found is not None and float(found[1]) < 1.5
