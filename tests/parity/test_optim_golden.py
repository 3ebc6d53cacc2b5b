"""Both published learning-rate schedules, step by step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from clic.training.optim import make_schedule

STORED = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedule.json").read_text())


@pytest.mark.parametrize("case", STORED["clic"])
def test_clic(case: dict[str, Any]) -> None:
    at = make_schedule(
        "clic",
        lr=case["lr"],
        lr_start=case["lr_start"],
        lr_end=case["lr_end"],
        steps=case["epochs"] * case["steps_per_epoch"],
        warmup_steps=math.floor(case["warmup_epochs"] * case["steps_per_epoch"]),
    )
    expected = case["lr_per_step"]
    found = [at(step) for step in range(len(expected))]
    assert found == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("case", STORED["warmup_cosine_to_zero"])
def test_warmup_cosine(case: dict[str, Any]) -> None:
    expected = case["lr_per_step"]
    at = make_schedule(
        "warmup_cosine", lr=case["lr"], steps=case["steps"], warmup_steps=case["warmup_steps"]
    )
    found = [at(step) for step in range(len(expected))]
    assert found == pytest.approx(expected, rel=1e-12, abs=0)
