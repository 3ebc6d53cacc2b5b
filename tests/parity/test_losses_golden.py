"""Every golden loss case, gradients included, on one process and on 2 and 3 gloo ranks."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

SCRIPT = Path(__file__).with_name("golden_losses.py")
golden = runpy.run_path(str(SCRIPT))
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from a number of ranks to each rank's results, computed once."""
    known: dict[int, list[dict[str, Any]]] = {}

    def of(world: int) -> list[dict[str, Any]]:
        if world == 1:
            known[1] = [{c["key"]: golden["evaluate"](c) for c in cases(1)}]
        elif world not in known:
            folder = tmp_path_factory.mktemp(f"ranks{world}")
            forked.run_script(SCRIPT, world, folder)
            paths = [folder / f"rank{rank}.pt" for rank in range(world)]
            known[world] = [torch.load(path, weights_only=True) for path in paths]
        return known[world]

    return of


def cases(world: int) -> list[dict[str, Any]]:
    return [case for case in golden["CASES"] if case["world"] == world]


def error(found: Any, expected: Any) -> float:
    """Return max|a - b| / max|b|, or max|a - b| where b is all zero."""
    assert np.shape(found) == np.shape(expected)
    size = np.abs(expected).max()
    return float(np.abs(np.subtract(found, expected)).max() / (size or 1.0))


def test_all_cases_are_there() -> None:
    assert len(golden["CASES"]) == 65
    assert {case["world"] for case in golden["CASES"]} == {1, 2, 3}


@pytest.mark.parametrize("case", golden["CASES"], ids=lambda c: f"{c['key']}-{c['name']}")
def test_case(case: dict[str, Any], results: Any) -> None:
    found = [rank[case["key"]] for rank in results(case["world"])]
    for rank, expected in enumerate(case["per_rank"]):
        terms = {n: v for n, v in found[rank].items() if not n.startswith("grad_")}
        assert terms.keys() == expected.keys()
        for name, value in expected.items():
            assert error(terms[name], value) < TOLERANCE, name
    mean = sum(rank["total"] for rank in found) / case["world"]
    assert error(mean, case["mean_total"]) < TOLERANCE

    for name in golden["LEAVES"]:
        expected_grad = golden["ARRAYS"].get(f"{case['key']}_grad_{name}")
        if expected_grad is None:
            assert f"grad_{name}" not in found[0]
            continue
        grads = [rank[f"grad_{name}"] for rank in found]
        # The scale and the bias are one parameter with a copy on each rank.
        grad = np.stack(grads) if expected_grad.ndim else np.sum(grads)
        assert error(grad, expected_grad) < TOLERANCE, name
