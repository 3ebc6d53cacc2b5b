"""The layout study: every row can be trained, equal ones are one, and the tables add up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clic import shapes
from clic.cli.train import compose

CELLS = ("itt", "tot", "p1")


@pytest.fixture(scope="module")
def rows(studies: SimpleNamespace) -> dict[str, list[Any]]:
    """Every part's rows, for two seeds."""
    layout = studies.layout_parts
    bases = {f"base{i}": layout.Base(f"/base{i}", str(i) * 64) for i in range(2)}
    parts = layout.parts(compose([layout.LAYOUT]))
    return {name: layout.make_rows(part, bases, (0, 1)) for name, part in parts.items()}


def test_every_part_has_the_recipe_once(rows: dict[str, list[Any]]) -> None:
    for name, part in rows.items():
        assert sum(row.recipe for row in part) == 1, name
        assert len({row.label for row in part}) == len(part), name


def test_equal_rows_are_one_model(rows: dict[str, list[Any]]) -> None:
    every = [row for part in rows.values() for row in part]
    recipe = {job.name for row in every if row.recipe for job in row.jobs["base0"]}
    assert len(recipe) == 2, "one for each seed"
    others = [job.name for row in every if not row.recipe for job in row.jobs["base0"]]
    assert len(set(others)) == len(others)
    assert recipe.isdisjoint(others)


def test_jobs_differ_by_base_and_seed(rows: dict[str, list[Any]]) -> None:
    base, clip, clic, told = rows["main"]
    assert base.words is None and [len(jobs) for jobs in base.jobs.values()] == [1, 1]
    assert base.jobs["base1"][0].base == "/base1"
    for row in (clip, clic, told):
        jobs = [job for group in row.jobs.values() for job in group]
        assert [(job.base, job.seed) for job in jobs] == [
            ("/base0", 0), ("/base0", 1), ("/base1", 0), ("/base1", 1)
        ]  # fmt: skip
        assert len({job.name for job in jobs}) == 4


def test_controls_are_as_long_as_the_recipe(rows: dict[str, list[Any]]) -> None:
    assert len({row.steps for row in rows["main"] if row.words}) == 1
    assert [row.steps for row in rows["steps"]] == sorted({row.steps for row in rows["steps"]})


def test_settings_are_chosen_on_the_validation_split(rows: dict[str, list[Any]]) -> None:
    for name, part in rows.items():
        splits = {job.split for row in part for jobs in row.jobs.values() for job in jobs}
        assert splits == {"validation" if name == "choice" else "test"}


def test_words_are_added_to_every_training(studies: SimpleNamespace) -> None:
    layout = studies.layout_parts
    bases = {f"base{i}": layout.Base(f"/base{i}", str(i) * 64) for i in range(2)}
    part = layout.parts(compose([layout.LAYOUT]))["main"]
    base, *trained = layout.make_rows(part, bases, (0,), ("train.max_steps=2",))
    assert base.words is None
    for row in trained:
        assert row.steps == 2 and row.words[-1] == "train.max_steps=2"


@pytest.fixture(scope="module")
def table(studies: SimpleNamespace) -> dict[str, Any]:
    """Made-up results of a part on two bases: seed s and base b score 10 b + 2 s."""
    paths = list(studies.layout_report.COLUMNS.values())
    names = [f"{path}/{cell}" for path in paths if isinstance(path, str) for cell in CELLS]
    names += [path for some in paths if not isinstance(some, str) for path in some]
    groups = {name: list(found) for name, found in shapes.RELATION_GROUPS.items()}
    related = [name for group, found in groups.items() for name in (*found, group)]
    names += [f"shapes-relations/{name}/{cell}" for name in related for cell in CELLS]

    def row(label: str, recipe: bool, share: float) -> dict[str, Any]:
        jobs = {f"base{b}": [f"{label}-{b}-{s}" for s in range(2)] for b in range(2)}
        held_out = ["on the left of"] if recipe else []
        return {"label": label, "recipe": recipe, "share": share, "steps": 9, "jobs": jobs,
                "held_out": held_out}  # fmt: skip

    def part(*rows: dict[str, Any], bases: int) -> dict[str, Any]:
        return {"title": "A title", "split": "test", "rows": rows, "relations": ["ours"],
                "bases": [f"base{b}" for b in range(bases)]}  # fmt: skip

    ours, clic = row("ours", True, 1.0), row("CLIC", False, 0.0)
    models = {
        f"{label}-{b}-{s}": {"measures": dict.fromkeys(names, 10.0 * b + 2.0 * s)}
        for label in ("ours", "CLIC")
        for b in range(2)
        for s in range(2)
    }
    versions = {"torch": "2.9"}
    about = {"seeds": [0, 1], "device": "CPU", "threads": 1, "versions": versions, "words": [],
             "date": "2026-01-01", "commit": "c" * 40, "relations": groups}  # fmt: skip
    parts = {"main": part(clic, ours, bases=2), "share": part(clic, ours, bases=1)}
    made = {"about": about, "parts": parts, "models": models}
    text = studies.layout_study.dumps(made)
    assert sum(line.startswith('    "') and "measures" in line for line in text.splitlines()) == 8
    return json.loads(text)


def test_the_tables(studies: SimpleNamespace, table: dict[str, Any]) -> None:
    text = studies.layout_report.markdown(table)
    together, alone, second = text.split("## main")[1].split("## share")[0].split("| **ours**")[1:]
    # Values 0, 2, 10, 12: mean 6, deviation sqrt(104 / 3) = 5.9; then 0, 2 and 10, 12.
    assert together.startswith(" (the recipe) | 9 | 4 | 6.0 / 6.0 / 6.0 (≤ ±5.9) |")
    assert alone.startswith(" (the recipe) | 9 | 2 | 1.0 / 1.0 / 1.0 (≤ ±1.4) |")
    assert second.startswith(" (the recipe) | 9 | 2 | 11.0 / 11.0 / 11.0 (≤ ±1.4) |")
    assert "| on the left of | 6.0 / 6.0 / 6.0 (≤ ±5.9) † |" in text
    assert "| above | 6.0 / 6.0 / 6.0 (≤ ±5.9) |" in text
    assert "Not the study itself" not in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| CLIC")}
    assert widths == {len(studies.layout_report.COLUMNS) + 4}


def test_the_tables_say_what_was_added(studies: SimpleNamespace, table: dict[str, Any]) -> None:
    quick = {**table, "about": {**table["about"], "words": ["train.max_steps=2"]}}
    assert "every training was given `train.max_steps=2`" in studies.layout_report.markdown(quick)


def test_the_figure(studies: SimpleNamespace, table: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "img" / "layout.png"
    assert studies.layout_figure.draw(table, path)
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).min() < 64
    assert not studies.layout_figure.draw({**table, "parts": {}}, tmp_path / "none.png")


def test_a_second_base_is_built_once_and_whole(
    studies: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, layout = studies.study, studies.layout_study
    setup = study.Setup(tmp_path, 1, 1, layout.BENCH, study.Sources("t", "a"), ())
    stops = [True, False]
    built: list[Path] = []

    def build(name: str, log: Path, threads: int, program: object, words: list[str]) -> None:
        out = Path(words[-1])
        out.mkdir()
        (out / "open_clip_config.json").touch()
        if stops.pop(0):
            raise study.CommandError("stopped")
        (out / "open_clip_model.safetensors").touch()
        built.append(out)

    monkeypatch.setattr(study, "run_command", build)
    with pytest.raises(study.CommandError):
        layout.build_base(1, setup)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".partial"]
    folder = layout.build_base(1, setup)
    assert folder.name.startswith("base-seed1-") and layout.build_base(1, setup) == folder
    assert len(built) == 1
