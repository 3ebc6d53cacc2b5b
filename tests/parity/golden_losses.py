"""Evaluates the golden loss cases on this process; `main` does so on every rank of a group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clic import distributed
from clic.losses import ClicObjective, ClipObjective, Objective, SoftmaxNegativesObjective
from clic.types import Features

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "loss_cases.json").read_text())
ARRAYS = np.load(GOLDEN / "loss_cases.npz")
LEAVES = ("image", "positives", "negatives", "logit_scale", "logit_bias")


def objective(case: dict[str, Any]) -> Objective:
    if case["objective"] == "clip":
        return ClipObjective()
    if case["objective"] == "softmax_negatives":
        return SoftmaxNegativesObjective()
    weights = {f"{name}_weight": weight for name, weight in case["weights"].items()}
    return ClicObjective(**weights)


def evaluate(case: dict[str, Any]) -> dict[str, float | torch.Tensor]:
    """Return this rank's terms and its share of the gradient of the mean over ranks."""
    rank, world = distributed.rank(), distributed.world_size()
    assert world == case["world"]

    def array(name: str) -> torch.Tensor | None:
        name = f"{case['key']}_{name}"
        return torch.from_numpy(ARRAYS[name][rank]) if name in ARRAYS else None

    leaves = {name: array(name) for name in ("image", "positives", "negatives")}
    for name in ("logit_scale", "logit_bias"):
        value = case[name]
        leaves[name] = None if value is None else torch.tensor(value, dtype=torch.float64)
    for leaf in leaves.values():
        if leaf is not None:
            leaf.requires_grad_()
    image, positives, negatives, scale, bias = leaves.values()
    out = objective(case)(
        Features(image, positives, scale, negatives, array("negative_mask"), bias)
    )
    out.total.backward()
    found: dict[str, float | torch.Tensor] = {n: t.item() for n, t in out.terms.items()}
    found["total"] = out.total.item()
    for name, leaf in leaves.items():
        if leaf is not None:
            # None where a loss does not touch it (hard negatives of a masked term): zero.
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            found[f"grad_{name}"] = grad / world
    return found


def main(folder: Path) -> None:
    world = distributed.world_size()
    results = {c["key"]: evaluate(c) for c in CASES if c["world"] == world}
    torch.save(results, folder / f"rank{distributed.rank()}.pt")
