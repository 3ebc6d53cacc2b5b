"""Captions that tell where images lie teach relations that no other caption of the world does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

# Composites in every step, and no word swaps: the recipe's relational half alone, which is learnt
# in a quarter of its steps. What the rest of it is for stands in docs/layout.md.
WORDS = (
    "+experiment=shapes_layout",
    "sampling.kinds=composite",
    "captions.layout_share=1",
    "captions.composite_negative=none",
    "train.max_steps=250",
    "train.save_every=0",
    "train.device=cpu",
    "train.run_name=run",
)


@pytest.mark.slow
def test_training_teaches_relations(tmp_path: Path, command: Callable[..., str]) -> None:
    command("clic-train", *WORDS, cwd=tmp_path)
    command(
        "clic-eval", "--bench", "shapes++,shapes-relations", "--model", "runs/run", "--json",
        "tuned.json", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    found = json.loads((tmp_path / "tuned.json").read_text())["benchmarks"]
    for category in ("swap_phrase", "replace_rel"):  # of the base: ITT 25, TOT 0, p1 51
        assert found["shapes++"][category]["p1"] > 85
        assert found["shapes++"][category]["tot"] > 60
    # "on the left of" is held out, its words are not.
    assert found["shapes-relations"]["on_the_left_of"]["tot"] > 60
