"""Two ranks encode each image and text once between them, and report what one process does."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

HERE = Path(__file__).parent
SCRIPT = HERE / "evaluation_ranks.py"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    forked.run_script(SCRIPT, 2, folder)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))["score"](None, all_ranks=False)


def test_each_item_is_encoded_on_one_rank(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for kind, index in (("images", 0), ("texts", 1)):
        shares = [rank["cold"][kind] for rank in ranks]
        assert sum(shares) == alone[kind] == alone["distinct"][index]
        assert shares == [rank["cold"]["distinct"][index] for rank in ranks]
        assert abs(shares[0] - shares[1]) <= 100  # a batch


def test_the_numbers_are_those_of_one_process(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    """The model's features depend on what else is in the batch, and still they agree."""
    for rank in ranks:
        assert rank["cold"]["benchmarks"] == rank["warm"]["benchmarks"] == alone["benchmarks"]
        assert rank["cold"]["ranks"] == 2 and alone["ranks"] == 1
    assert [rank["cold"]["rows"] for rank in ranks] == [alone["rows"], 0]


def test_the_cache_is_shared(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["warm"]["images"] == rank["warm"]["texts"] == 0
        for kind in ("images", "texts"):
            assert rank["cold"]["stages"][kind]["cached"] == 0
            assert rank["warm"]["stages"][kind]["cached"] == rank["warm"]["stages"][kind]["items"]


def test_every_rank_hears_of_a_failure(ranks: list[dict[str, Any]]) -> None:
    assert ranks[1]["failure"].startswith("image nowhere.jpg cannot be decoded")
    assert ranks[0]["failure"] == f"{ranks[1]['failure']} (rank 1)"
