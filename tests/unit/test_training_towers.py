"""Every way to train with less work, on every kind of tower: the model's own gradient.

docs/training.md has the table of these; two ranks are in tests/distributed/test_tower_ranks.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clic.models import ClipModel, FeatureExtractor, Trained
from clic.types import TextGroups, TextPacks

sys.path.insert(0, str(Path(__file__).parents[1]))
import tower_kinds
from tower_kinds import CHUNK, GROUPED, KINDS, WHOLE, distance, gradient, own_gradient

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Largest distance from the gradient of the model's own forward, relative to its norm."""
WAYS: dict[str, dict[str, Any]] = {
    "trimmed": {"pack": False},
    "packed": {},
    "in chunks": {"size": CHUNK},
    "in chunks, trimmed": {"size": CHUNK, "pack": False},
    "frozen vision": {"train": "text"},
    "frozen vision, in chunks": {"train": "text", "size": CHUNK},
    "frozen text": {"train": "vision"},
}
POOLED = {"OpenAI", "CLIPModel", "Hugging Face text"}
"""Kinds whose vision tower is read at its class token alone where it is frozen."""


@pytest.fixture(scope="module")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ClipModel]:
    """Return what builds the model of a kind once."""
    made: dict[str, ClipModel] = {}

    def make(kind: str) -> ClipModel:
        if kind not in made:
            made[kind] = tower_kinds.build(kind, tmp_path_factory.mktemp("kinds") / "model")
        return made[kind]

    return make


@pytest.fixture
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_models_own_forward(
    clip_of: Callable[[str], ClipModel], kind: str, way: str
) -> None:
    clip, words = clip_of(kind), WAYS[way]
    for dtype, tolerance in TOLERANCE.items():
        expected = own_gradient(clip, dtype, words.get("train", "both"))
        assert distance(gradient(clip, dtype, **words), expected) <= tolerance


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_traced_towers_have_it_too(
    clip_of: Callable[[str], ClipModel], kind: str, dtype: torch.dtype
) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    own = gradient(clip_of(kind), dtype, compiler="aot_eager")
    assert counters["frames"]["ok"] > 0  # something was compiled
    assert distance(own, own_gradient(clip_of(kind), dtype)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
def test_what_each_kind_leaves_out(clip_of: Callable[[str], ClipModel], kind: str) -> None:
    """So that no way above is the padded one in disguise where the table says otherwise."""
    clip = clip_of(kind)
    extract = FeatureExtractor(clip.model, Trained(vision=False, text=True))
    batch = tower_kinds.make_batch(clip)
    planned = extract.planner()(batch)
    plan = None if kind in WHOLE else TextGroups if kind in GROUPED else TextPacks
    assert type(planned.text_plan) is (plan or type(None))
    assert (planned.texts.shape[2] < batch.texts.shape[2]) == (kind not in WHOLE)
    assert extract._images.recognised == (kind in POOLED)


def test_the_page_has_every_cell() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.partition("\n## What is exact, and on which towers\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    header, cells = rows[0], {row[0]: row[1:] for row in rows[1:]}
    assert header[1:] == ["OpenAI", "SigLIP", "CLIPA-style", "Hugging Face", "timm", "test"]
    assert list(cells) == [
        "trimmed", "packed", "cached in chunks", "compiled", "frozen vision, pooled", "two ranks",
    ]  # fmt: skip
    fp32, float64 = (f"{TOLERANCE[dtype]:.0e}".replace("e-0", "e-") for dtype in TOLERANCE)
    assert f"{fp32} in fp32 and {float64} in float64" in page
    for row in cells.values():
        assert all(row)
        file, name = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])[0]
        assert f"def {name}(" in (root / file).read_text(encoding="utf-8")
