"""BLA in miniature, with scores worked out by hand, and for real where it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import evaluation
from clic.errors import DataError
from clic.evaluation.benchmarks import bla

Paint = Callable[..., None]
DATA = os.environ.get("CLIC_TEST_DATA")


def item(photo: int | str, true1: int, true2: int, false1: int, false2: int) -> dict[str, Any]:
    """An item as the files have it; a caption's last word is its angle."""
    captions = {
        "True1": f"the woman holds the man {true1}",
        "True2": f"the man is held by the woman {true2}",
        "False1": f"the man holds the woman {false1}",
        "False2": f"the woman is held by the man {false2}",
    }
    return {
        "image_id": photo,
        "caption_group": [{"group_index": 0, **captions, "predicate": "holds"}],
        "index": 2,
    }


ITEMS = {
    "active_passive": [
        item("40", 41, 42, 60, 70),  # all four pairs right
        item("50", 51, 59, 55, 70),  # True2 loses to False1: three pairs right
    ],
    "coordination": [item(40, 45, 39, 45, 80)],  # True1 ties with False1: three pairs right
    "relative_clause": [item(50, 70, 71, 51, 52)],  # all wrong
}


def write(root: Path, paint: Paint, items: dict[str, list[dict[str, Any]]] = ITEMS) -> None:
    (root / "bla").mkdir()
    for task, rows in items.items():
        (root / f"bla/{task}_captions.json").write_text(json.dumps(rows))
    for red in (40, 50):
        paint(root / f"bla/images/{red}.jpg", red)


def test_scores_worked_out_by_hand(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write(tmp_path, paint)
    numbers = evaluation.evaluate(angle_model, ["bla"], tmp_path).benchmarks["bla"]
    assert numbers["active_passive"] == {"accuracy": 87.5, "both": 50.0, "n": 8}
    # The tie of True1 with False1 is wrong; its other pair and both of True2 are right.
    assert numbers["coordination"] == {"accuracy": 75.0, "both": 0.0, "n": 4}
    assert numbers["relative_clause"] == {"accuracy": 0.0, "both": 0.0, "n": 4}
    assert numbers["mean"] == pytest.approx({"accuracy": 162.5 / 3, "both": 50 / 3, "n": 16})


def test_a_missing_photo_takes_whole_items_and_is_said(
    tmp_path: Path, angle_model: Any, paint: Paint
) -> None:
    items = {task: [item(40, 41, 42, 60, 70), item(50, 51, 52, 70, 71)] for task in bla.TASKS}
    write(tmp_path, paint, items)
    (tmp_path / "bla/images/50.jpg").unlink()
    report = evaluation.evaluate(angle_model, ["bla"], tmp_path, allow_missing=True)
    assert report.benchmarks["bla"]["mean"] == {"accuracy": 100.0, "both": 100.0, "n": 12}
    source = report.provenance["benchmarks"]["bla"]
    assert source["covered_subset"] == "a covered subset of 12 rows of 24"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda row: row.pop("image_id"), ["row 1", "image_id"]),
        (lambda row: row.pop("caption_group"), ["row 1", "caption_group"]),
        (lambda row: row["caption_group"][0].pop("False2"), ["row 1", "'False2'"]),
        (lambda row: row.update(image_id="../1"), ["'../1.jpg' is no image"]),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, paint: Paint, change: Callable[[dict[str, Any]], Any], parts: list[str]
) -> None:
    broken = item(50, 1, 2, 3, 4)
    change(broken)
    write(tmp_path, paint, {**ITEMS, "coordination": [item(40, 1, 2, 3, 4), broken]})
    with pytest.raises(DataError) as error:
        bla.load_bla(tmp_path)
    for part in ("coordination_captions.json", "download", *parts):
        assert part in str(error.value)


@pytest.mark.skipif(DATA is None, reason="CLIC_TEST_DATA is not set: no real annotations")
def test_the_real_files() -> None:
    root = Path(str(DATA))
    if not (root / "bla").is_dir():
        pytest.skip("CLIC_TEST_DATA has no bla")
    table = bla.load_bla(root)
    items = {task: len(json.loads((root / f"bla/{task}_captions.json").read_text()))
             for task in bla.TASKS}  # fmt: skip
    assert table.rows == 4 * sum(items.values())
    assert len(set(table.sets[bla.BOTH].tolist())) == sum(items.values())
