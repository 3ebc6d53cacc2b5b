"""clic-train as a process: its runs, multiruns, and what scores a model meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import clic
from clic import models, runs
from clic.cli import train as command
from clic.config.train_settings import Config
from clic.models.encoder import Encoder

"""Each family's towers, shrunk; of their tokenizers only CLIP's own is at hand everywhere."""


def process(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clic.cli.train", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=6000,
    )


def test_one_run_leaves_one_folder_and_says_what_comes_next(
    tmp_path: Path, tiny_words: list[str]
) -> None:
    words = [*tiny_words, "train.max_steps=2", "train.run_name=first"]
    result = process(tmp_path, words)
    assert (result.returncode, result.stderr) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["first"]
    assert result.stdout.splitlines()[-3:] == [
        "finished runs/first",
        "  clic-eval --bench shapes++ --model runs/first",
        "  clic-patch --alpha 0.5 --run runs/first",
    ]


def test_training_goes_on_when_its_reader_leaves(tmp_path: Path, tiny_words: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    words = [*tiny_words, "train.max_steps=3", "train.run_name=first"]
    result = subprocess.run(
        [sys.executable, "-m", "clic.cli.train", *words],
        cwd=tmp_path,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=6000,
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (0, "")
    assert runs.is_finished(tmp_path / "runs" / "first")
    assert len((tmp_path / "runs" / "first" / runs.METRICS_FILE).read_text().splitlines()) == 3


@pytest.mark.parametrize("module", ["train", "data", "eval", "patch"])
def test_help_whose_reader_has_left_is_quiet(module: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(
        [sys.executable, "-m", f"clic.cli.{module}", "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    os.close(write_end)
    assert result.stderr == ""


def test_a_multirun_makes_a_run_of_each(tmp_path: Path, tiny_words: list[str]) -> None:
    result = process(tmp_path, ["-m", *tiny_words, "train.max_steps=2", "seed=0,1"])
    assert (result.returncode, result.stderr) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    found = sorted(p for p in (tmp_path / "runs").iterdir())
    assert len(found) == 2 and all(runs.is_finished(p) for p in found)
    records = [runs.read_provenance(path) for path in found]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert not any("hydra" in word for record in records for word in record["command"])


def test_a_failed_job_does_not_end_a_multirun(tmp_path: Path, tiny_words: list[str]) -> None:
    words = [word for word in tiny_words if not word.startswith("train.batch_size")]
    words += ["train.max_steps=2", "train.batch_size=100,4", "model.train=x,text"]
    result = process(tmp_path, ["-m", *words])
    assert result.returncode == 2
    (run,) = (tmp_path / "runs").iterdir()
    assert runs.is_finished(run)
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("clic-train: will not run: train.batch_size=100 model.train=x: ")
    assert last.startswith("clic-train: error: 3 of 4 runs failed: ")
    assert "train.batch_size=100 model.train=text: 64 composite samples are fewer" in last
    assert "Traceback" not in result.stderr


def test_what_scores_the_model_during_training(settings: Callable[..., Config], tiny: Path) -> None:
    config = settings("train.eval_every=1", "train.eval_bench=[shapes-zero-shot]")
    numbers = command._evaluator(config)(models.create(str(tiny)))
    assert {"shapes-zero-shot@val/shape", "shapes-zero-shot@val/pair"} <= numbers.keys()
    assert all(isinstance(value, (int, float)) for value in numbers.values())


def test_a_file_of_ones_own_is_logged_under_its_stem(
    settings: Callable[..., Config], tiny: Path, tmp_path: Path
) -> None:
    row = {"positives": ["a red cube", "a cube that is red"], "negatives": ["a blue cube"]}
    (tmp_path / "my.jsonl").write_text(json.dumps(row) + "\n")
    config = settings("train.eval_every=1", f"train.eval_bench=[{tmp_path}/my.jsonl]")
    numbers = command._evaluator(config)(models.create(str(tiny)))
    assert set(numbers) == {"my/all/tot", "my/all/n", "my/mean/tot", "my/mean/n"}


def test_the_split_is_in_the_name_of_what_is_logged(
    settings: Callable[..., Config], tiny: Path
) -> None:
    words = "train.eval_bench=[shapes-zero-shot,shapes-zero-shot@test]"
    config = settings("train.eval_every=1", words, "train.eval_on_test=true")
    model = models.create(str(tiny))
    numbers = command._evaluator(config)(model)
    assert {name.split("/")[0] for name in numbers} == {
        "shapes-zero-shot@val",
        "shapes-zero-shot@test",
    }
    scored = {
        split: clic.evaluate(Encoder(model), "shapes-zero-shot", split=split).benchmarks
        for split in ("validation", "test")
    }
    assert scored["validation"] != scored["test"]
    for name, split in (("val", "validation"), ("test", "test")):
        for task in ("shape", "pair"):
            expected = scored[split]["shapes-zero-shot"][task]
            assert numbers[f"shapes-zero-shot@{name}/{task}"] == expected


def test_all_settings_can_be_printed(tmp_path: Path) -> None:
    result = process(tmp_path, ["--cfg", "job", "+experiment=vitb32"])
    assert result.returncode == 0
    assert yaml.safe_load(result.stdout)["train"]["batch_size"] == 200
    assert list(tmp_path.iterdir()) == []
