"""What the photographs' text tower could learn: each half is scored by a tower of the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clic import models
from clic.evaluation.benchmarks.sugarcrepe import PLUS_CATEGORIES, load_sugarcrepe_pp

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
IMAGES = 6


@pytest.fixture
def ceiling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.delitem(sys.modules, "photos_ceiling", raising=False)
    import photos_ceiling

    monkeypatch.setattr(photos_ceiling, "BATCH", 4)
    return photos_ceiling


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "sugarcrepe_pp").mkdir()
    for category in PLUS_CATEGORIES:
        rows = [
            {
                "filename": f"{number}.jpg",
                "caption": f"{number} red circles and a blue square of {category}",
                "caption2": f"a blue square of {category} and {number} red circles",
                "negative_caption": f"{number} blue circles and a red square of {category}",
            }
            for number in range(IMAGES)
        ]
        file = tmp_path / "sugarcrepe_pp" / f"{category}.json"
        file.write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


def test_the_table(ceiling: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"--model shapes-base --data {data} --train text --steps 2 --rows 0 4 --seeds 0 1"
    ceiling.main(words.split())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| none (base)", "| all of a half", "| 4",
    ]  # fmt: skip
    assert all("±" in cell for cell in lines[3].split(" | ")[1:])


def test_no_row_is_scored_by_a_tower_that_saw_its_image(
    ceiling: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_sugarcrepe_pp(data)
    base = models.create("shapes-base")
    seen: list[set[int]] = []
    scored: list[set[int]] = []
    train, correct = ceiling.trained, ceiling._correct

    def trained(*words: object) -> object:
        seen.append(set(table.image[words[4]].tolist()))
        return train(*words)

    def judged(features: object, of: object, rows: np.ndarray) -> np.ndarray:
        scored.append(set(table.image[rows].tolist()))
        return np.asarray(correct(features, of, rows))

    monkeypatch.setattr(ceiling, "trained", trained)
    monkeypatch.setattr(ceiling, "_correct", judged)
    tokens = base.tokenizer(list(table.texts))
    old = ceiling._encoded(base, tokens, ceiling._texts(table, np.arange(len(table.image))))
    ceiling.cross_validated(base, table, tokens, old, 0, ceiling.Training("text", 1), 0)
    assert len(seen) == len(scored) == 2
    assert all(not one & other for one, other in zip(seen, scored, strict=True))
    assert set.union(*scored) == set(range(IMAGES))


@pytest.mark.parametrize(("share", "swaps"), [(0.5, 2), (0.25, 1), (1.0, 4)])
def test_the_share_of_swaps(ceiling: ModuleType, data: Path, share: float, swaps: int) -> None:
    table = load_sugarcrepe_pp(data)
    rows = np.arange(len(table.image))
    for seed in range(5):
        drawn = ceiling._drawn(table, rows, share, np.random.default_rng(seed))
        names = [PLUS_CATEGORIES[table.category[row]] for row in drawn]
        assert sum(name.startswith("swap") for name in names) == swaps
        assert len(set(drawn)) == len(drawn) == 4


def test_a_share_that_cannot_be_drawn(
    ceiling: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--model shapes-base --data {data} --train text --steps 1 --seeds 0".split()
    for more, message in (
        (["--swaps", "1.5"], "--swaps 1.5 is no share; use 0 to 1"),
        (["--swaps", "1", "--rows", "2"], "use more --rows"),
        (["--train", "text.last:99"], "text.last:99"),
    ):
        with pytest.raises(SystemExit) as ended:
            ceiling.main([*words, *more])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
