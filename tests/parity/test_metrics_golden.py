"""Counts of the published evaluation code, and of exact ties in abundance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clic.metrics import recall, triplet, winoground

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "eval_cases.json").read_text())
CATEGORIES = list(EXPECTED["sugarcrepe++"])


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    stored = np.load(GOLDEN / "eval_cases.npz")
    return {name: torch.from_numpy(stored[name]) for name in stored}


def counts(outcomes: dict[str, Tensor], names: list[str]) -> dict[str, int]:
    return {name: int(outcomes[name].sum()) for name in names}


def test_sugarcrepe_pp(arrays: dict[str, Tensor]) -> None:
    image = arrays["pp_image"][arrays["pp_image_index"]]
    rows = [arrays[f"pp_{name}"] for name in ("positive1", "positive2", "negative")]
    found = triplet(image, *rows)
    for number, category in enumerate(CATEGORIES):
        chosen = {name: ok[arrays["pp_category"] == number] for name, ok in found.items()}
        expected = EXPECTED["sugarcrepe++"][category]
        assert len(chosen["itt"]) == expected["n"]
        assert counts(chosen, ["itt", "tot"]) == {n: expected[n] for n in ("itt", "tot")}


def test_sugarcrepe_pp_row_whose_negative_is_a_positive_is_wrong(arrays: dict[str, Tensor]) -> None:
    assert torch.equal(arrays["pp_positive1"][:5], arrays["pp_negative"][:5])
    image = arrays["pp_image"][arrays["pp_image_index"]]
    rows = [arrays[f"pp_{name}"] for name in ("positive1", "positive2", "negative")]
    for name, ok in triplet(image, *rows).items():
        assert not ok[:5].any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triplet_ties(arrays: dict[str, Tensor], dtype: torch.dtype) -> None:
    names = ("image", "positive1", "positive2", "negative")
    found = triplet(*(arrays[f"ties_{name}"].to(dtype) for name in names))
    assert {"n": len(found["itt"]), **counts(found, list(found))} == EXPECTED["triplet_ties"]


def test_retrieval(arrays: dict[str, Tensor]) -> None:
    scores = arrays["retrieval_image"] @ arrays["retrieval_text"].T
    found = recall(scores, arrays["retrieval_owner"], ks=(1, 5))
    published = {"ImagePrec": "text_to_image", "TextPrec": "image_to_text"}
    for name, fraction in EXPECTED["retrieval"].items():
        direction, _, k = name.partition("@")
        assert found[f"{published[direction]}@{k}"] == pytest.approx(100 * fraction, rel=1e-12)


def test_retrieval_ties(arrays: dict[str, Tensor]) -> None:
    found = recall(arrays["ties_scores"], arrays["ties_owner"])
    assert found == pytest.approx(EXPECTED["retrieval_ties"], rel=1e-12)


def test_winoground(arrays: dict[str, Tensor]) -> None:
    images = torch.stack([arrays["wino_image0"], arrays["wino_image1"]], 1)
    captions = torch.stack([arrays["wino_text0"], arrays["wino_text1"]], 1)
    found = winoground(images @ captions.mT)
    assert {"n": len(found["text"]), **counts(found, list(found))} == EXPECTED["winoground"]


def test_winoground_ties(arrays: dict[str, Tensor]) -> None:
    found = winoground(arrays["ties_winoground"])
    assert {"n": len(found["text"]), **counts(found, list(found))} == EXPECTED["winoground_ties"]
