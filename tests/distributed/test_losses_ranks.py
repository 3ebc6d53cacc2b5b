"""Three ranks together train as one process with the whole batch would."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

HERE = Path(__file__).parent
checks = runpy.run_path(str(HERE / "checks.py"))
WORLD, B = checks["WORLD"], checks["B"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks saved, after they have passed their own checks of `clic.distributed`."""
    path = tmp_path_factory.mktemp("ranks")
    forked.run_script(HERE / "checks.py", WORLD, path)
    return path


def alone(name: str, rows: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the total, terms and gradients of one process with the first `rows` rows."""
    inputs, mask = checks["data"]()
    model = checks["Towers"](name)
    features = model([part[:rows] for part in inputs], mask[:rows])
    out = checks["objectives"]()[name](features)
    out.total.backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    return out.total.detach(), dict(out.terms), grads


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0)


@pytest.mark.parametrize("rows", ["", "-rows"], ids=["at once", "in chunks of rows"])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", sorted(checks["objectives"]()))
def test_data_parallel_training_is_that_of_the_whole_batch(
    name: str, shift: int, rows: str, folder: Path
) -> None:
    total, terms, grads = alone(name, WORLD * B)
    ranks: list[dict[str, Any]] = [
        torch.load(folder / f"{name}{rows}-{shift}-{rank}.pt", weights_only=True)
        for rank in range(WORLD)
    ]
    torch.testing.assert_close(mean([r["total"] for r in ranks]), total, rtol=1e-12, atol=0)
    for rank in ranks:
        assert rank["terms"].keys() == terms.keys()
    for term, value in terms.items():
        found = mean([r["terms"][term] for r in ranks])
        torch.testing.assert_close(found, value, rtol=1e-12, atol=0)
    for parameter, expected in grads.items():
        for rank in ranks:
            found = rank["grads"][parameter]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "saved"),
    [("clic", "ClicObjective"), ("softmax_negatives", "SoftmaxNegativesObjective")],
)
def test_objective_keeps_to_its_group(name: str, saved: str, folder: Path) -> None:
    total, _, grads = alone(name, 2 * B)
    totals, parts = zip(
        *(
            torch.load(folder / f"subgroup-{saved}-{place}.pt", weights_only=True)
            for place in range(2)
        ),
        strict=True,
    )
    torch.testing.assert_close(mean(list(totals)), total, rtol=1e-12, atol=0)
    for found, wanted in zip(zip(*parts, strict=True), grads.values(), strict=True):
        torch.testing.assert_close(mean(list(found)), wanted, rtol=1e-10, atol=1e-13)
