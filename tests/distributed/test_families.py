"""Two ranks train every family of models with every objective, or hear why not beforehand."""

from __future__ import annotations

import importlib.util
import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

HERE = Path(__file__).parent
SCRIPT = HERE / "families.py"
families = runpy.run_path(str(SCRIPT))
PARTS = ("text", "vision", "both")
NEVER_CALLED = {"coca": "text_decoder.", "custom-text": "text.pooler."}
"""Of a family, what no objective looks at."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found; a run that hangs or breaks in one of them fails all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    forked.run_script(SCRIPT, 2, folder)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("objective", families["OBJECTIVES"])
@pytest.mark.parametrize("family", families["FAMILIES"])
def test_three_steps_or_a_refusal(
    ranks: list[dict[str, Any]], family: str, objective: str, part: str
) -> None:
    if family == "hugging-face-text":
        pytest.importorskip("transformers")
    first, second = (rank[f"{family}/{objective}/{part}"] for rank in ranks)
    if family == "siglip" and objective == "softmax_negatives":
        assert all("softmax_negatives needs a softmax" in r["refused"] for r in (first, second))
        return
    if objective.startswith("unimodal alone") and part == "vision":
        assert first["refused"].startswith("model.train=vision with loss.composite=clic of the uni")
        assert first == second
        return
    assert all(map(math.isfinite, [*first["losses"], *second["losses"]]))
    assert len(first["losses"]) == 3
    assert first["sum"] == second["sum"]  # the ranks hold the same weights
    assert first["moved"] and first["moved"] == second["moved"]
    assert not set(first["moved"]) & set(first["frozen"])
    vision = any(name.startswith("visual.") for name in first["moved"])
    text = any(not name.startswith("visual.") for name in first["moved"])
    assert vision == (part != "text" and objective != "unimodal alone")
    assert text == (part != "vision")
    scale, bias = ("logit_scale", "logit_bias")
    assert (scale in first["moved"]) == (part != "vision" and objective != "unimodal alone")
    if family == "siglip" and part != "vision":
        contrastive = objective not in ("unimodal alone", "hard negatives alone")
        assert (bias in first["moved"]) == contrastive == (bias not in first["frozen"])
    if family in NEVER_CALLED:
        assert any(name.startswith(NEVER_CALLED[family]) for name in first["frozen"])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", families["model_families"].KINDS)
def test_a_published_kind_trains_alike_on_two_ranks(
    ranks: list[dict[str, Any]], kind: str, part: str
) -> None:
    first, second = (rank[f"{kind}/{part}"] for rank in ranks)
    assert all(map(math.isfinite, [*first["losses"], *second["losses"]]))
    assert first["sum"] == second["sum"] and first["moved"] == second["moved"]
    assert not set(first["moved"]) & set(first["frozen"])  # frozen bit for bit
    vision = [name for name in first["moved"] if name.startswith("visual.")]
    assert bool(vision) == (part != "text")
    assert (len(first["moved"]) > len(vision)) == (part != "vision")


def test_the_family_of_hugging_face_runs_where_it_is_installed(
    ranks: list[dict[str, Any]],
) -> None:
    installed = importlib.util.find_spec("transformers") is not None
    assert any(name.startswith("hugging-face-text/") for name in ranks[0]) == installed


@pytest.mark.parametrize("spoilt", ["gradients", "loss"])
def test_all_ranks_skip_a_step_that_one_has_spoilt(
    ranks: list[dict[str, Any]], spoilt: str
) -> None:
    first, second = (rank["skip"][spoilt] for rank in ranks)
    assert first == second
    before, skipped, after = first["sums"]
    assert before == skipped and math.isfinite(after) and after != skipped
    assert first["read"] == [1, 2]
    assert math.isfinite(first["means"]["loss"])


def test_ranks_agree_on_when_to_stop(ranks: list[dict[str, Any]]) -> None:
    """Rank 1 is told in its second step; all stop after it, though none of them logs there."""
    for rank in ranks:
        assert rank["stop"]["ended"] == "stopped"
        assert (rank["stop"]["done"], rank["stop"]["saved"]) == (2, [2])


def test_dropout_differs_from_rank_to_rank(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["stop"]["draws"] for rank in ranks)
    assert len(first) == len(second) > 0
    assert not set(first) & set(second)
