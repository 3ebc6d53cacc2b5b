"""A number on the split that chose the model is no result, and is told in red."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clic import runs
from clic.cli.eval import main
from clic.evaluation.report import formats, html_page
from clic.evaluation.report.report import Report, warnings
from clic.models import encoder


def write_run(folder: Path, patience: str = "null") -> Path:
    """Write what a run leaves: its settings and the best model's record."""
    (folder / "best").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "config.yaml").write_text(f"train:\n  patience: {patience}\n")
    (folder / "metrics.jsonl").touch()
    (folder / "provenance.json").write_text("{}")
    record = {"step": 5, "metric": "shapes-retrieval@val/text_to_image@1", "value": 50.0}
    (folder / "best/best.json").write_text(json.dumps(record))
    assert runs.is_run(folder)
    return folder


def test_what_a_run_chose(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert runs.chosen_by(str(run / "best")) == ["shapes-retrieval@val"]
    assert runs.chosen_by(f"local-dir:{run / 'best'}") == ["shapes-retrieval@val"]
    # Without patience the last step is where the run was to end anyway.
    assert runs.chosen_by(str(run)) == runs.chosen_by(str(run / "model")) == []
    stopped = write_run(tmp_path / "stopped", patience="3")
    assert runs.chosen_by(str(stopped)) == ["shapes-retrieval@val"]
    assert runs.chosen_by(str(stopped / "model")) == ["shapes-retrieval@val"]
    assert runs.chosen_by("ViT-B-32:openai") == runs.chosen_by(str(tmp_path)) == []


def test_what_a_sweep_chose(tmp_path: Path) -> None:
    for folder in (tmp_path / "sweep", tmp_path / "run" / "patched"):
        (folder / "alpha-0.50").mkdir(parents=True)
        (folder / "alpha-0.75").mkdir()
    choice = {"alpha": 0.5, "select": [{"bench": "shapes++@val"}, {"bench": "shapes++@val"},
                                       {"bench": "shapes-zero-shot"}]}  # fmt: skip
    for place in (tmp_path / "sweep", tmp_path / "run"):
        (place / "sweep.json").write_text(json.dumps({"choice": choice}))
    found = ["shapes++@val", "shapes-zero-shot"]
    assert runs.chosen_by(str(tmp_path / "sweep/alpha-0.50")) == found
    assert runs.chosen_by(str(tmp_path / "run/patched/alpha-0.50")) == found
    assert runs.chosen_by(str(tmp_path / "sweep/alpha-0.75")) == []  # of no choice
    (tmp_path / "sweep/sweep.json").write_text(json.dumps({"results": []}))
    assert runs.chosen_by(str(tmp_path / "sweep/alpha-0.50")) == []


def report(bench: str, split: str, chosen: list[str]) -> Report:
    source = {"split": split, "rows": 1, "rows_of_the_whole": 1, "missing_images": [],
              "broken_images": []}  # fmt: skip
    record: dict[str, Any] = {"benchmarks": {bench: source}, "chosen_by": chosen}
    return Report("run/best", {}, record, {bench: {"c": {"accuracy": 50.0, "n": 1}}})


@pytest.mark.parametrize(
    ("bench", "split", "chosen", "warned"),
    [
        ("shapes++@val", "validation", ["shapes++@val"], True),
        ("shapes++", "validation", ["shapes++@val"], True),  # --split validation
        ("shapes++", "test", ["shapes++@val"], False),
        ("coco-retrieval", "test", ["coco-retrieval"], True),  # train.eval_on_test
        ("shapes++", "test", ["coco-retrieval"], False),
        ("shapes++", "test", [], False),
    ],
)
def test_the_split_decides(bench: str, split: str, chosen: list[str], warned: bool) -> None:
    one = report(bench, split, chosen)
    assert len(warnings([one])) == int(warned)
    page = "".join(html_page.page([one]))
    said = f"{bench} chose run/best (see its run or sweep)"
    assert (f'<p class="red" role="alert">Warning: {said}' in page) == warned
    assert ("**Warning: " in formats.markdown([one])) == warned
    assert (f"% WARNING: {said}" in formats.latex([one])) == warned


class Flat:
    """A model that gives every input a direction of its own."""

    identity: dict[str, str] = {}  # noqa: RUF012

    def encode_image(self, images: list[Image.Image]) -> torch.Tensor:
        return torch.eye(600)[: len(images)]

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(600)[: len(texts)]


def test_the_command_says_it_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoder, "load", lambda name, **settings: Flat())
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")

    def out(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        shown = capsys.readouterr()
        assert not stopped.value.code, shown.err
        return " ".join(shown.out.split())

    told = "warning: shapes-retrieval@val chose run/best"
    words = ("--model", "run/best", "--no-cache", "--json", "r.json")
    assert told in out("--bench", "shapes-retrieval@val", *words)
    assert told in out("--model", "r.json", "--markdown", "r.md")  # saved results know it
    assert "**Warning: shapes-retrieval@val chose" in (tmp_path / "r.md").read_text()
    assert "warning" not in out("--bench", "shapes-retrieval", *words)
