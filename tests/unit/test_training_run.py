"""A whole run in this process: its folder, its length, its mistakes and its evaluations."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clic import models, runs
from clic.config.train_settings import Config
from clic.errors import ClicError, ConfigError, DataError, ModelError
from clic.models import encoder
from clic.training import TrainingError, train
from clic.training.metrics_log import read

WEIGHTS = Path(runs.MODEL) / runs.OPEN_CLIP_WEIGHTS


@pytest.fixture
def run(settings: Callable[..., Config]) -> Callable[..., Path]:
    """Return what trains with overrides and returns the run's folder."""
    return lambda *words: train(settings(*words))


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the next runs die before their step `step`, as a kill would."""
    from clic.training import Trainer

    original = Trainer.step

    def dying(self: Trainer, batch: Any) -> Any:
        if batch.step == step:
            raise RuntimeError("killed")
        return original(self, batch)

    monkeypatch.setattr(Trainer, "step", dying)


def die(run: Callable[..., Path], step: int, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(RuntimeError, match="killed"):
            run(*words)


def test_what_a_run_leaves(
    run: Callable[..., Path], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run("train.max_steps=5", "train.save_every=2", "train.run_name=first")
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == [
        "checkpoints",
        "config.yaml",
        "examples",
        "metrics.jsonl",
        "model",
        "provenance.json",
    ]
    assert [p.name for p in runs.complete_checkpoints(path)] == ["step-000002", "step-000004"]
    assert sorted(p.name for p in (path / "checkpoints" / "step-000004").iterdir()) == [
        "COMPLETE",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "training_state.pt",
    ]
    assert [r["step"] for r in read(path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    record = runs.read_provenance(path)
    assert record["base"] == str(tiny) == runs.base_of(path)
    assert record["experiment"] == "shapes" and record["seed"] == 0
    assert record["precision"] == "float32" and record["tf32"] is False
    assert record["started_from"]["weights_sha256"] == models.weights_sha256(
        models.create(str(tiny)).model
    )
    assert runs.is_finished(path)
    output = capsys.readouterr().out
    assert f"run {path}: 5 steps of 4 images" in output
    assert "distilled_towards" not in record
    heads = ("part ", "text, ", "vision, ")
    table = [line for line in output.splitlines() if line.startswith(heads)]
    assert [" ".join(line.split()) for line in table] == [
        "part parameters trained peak lr",
        "text, before the layers 791,072 791,072 0.0015",
        "text, layer 1 3,280 3,280 0.0015",
        "text, after the layers 288 288 0.0015",
        "vision, before the layers 572 0 frozen",
        "vision, layers 1 to 4 127,200 0 frozen",
        "vision, after the layers 202,000 0 frozen",
    ]


def test_the_result_and_its_checkpoints_load(run: Callable[..., Path]) -> None:
    path = run("train.max_steps=3", "train.save_every=2")
    for name in (path, path / "model", path / "checkpoints" / "step-000002"):
        assert encoder.load(str(name), device="cpu").encode_text(["a"]).shape == (1, 16)


def test_equal_runs_are_equal_files(run: Callable[..., Path]) -> None:
    files = [
        (run("train.max_steps=4", f"train.run_name={name}") / WEIGHTS).read_bytes()
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    assert (run("train.max_steps=4", "seed=1") / WEIGHTS).read_bytes() != files[0]


def test_loader_workers_do_not_change_the_weights(run: Callable[..., Path]) -> None:
    alone, helped = (
        run("train.max_steps=3", f"data.workers={n}", f"train.run_name=w{n}") for n in (0, 2)
    )
    assert (alone / WEIGHTS).read_bytes() == (helped / WEIGHTS).read_bytes()


def test_old_checkpoints_are_removed(run: Callable[..., Path]) -> None:
    words = ("train.max_steps=7", "train.save_every=1")
    path = run(*words, "train.keep_checkpoints=3")
    assert [p.name for p in runs.complete_checkpoints(path)] == [
        "step-000004",
        "step-000005",
        "step-000006",
    ]
    assert len(runs.complete_checkpoints(run(*words, "train.keep_checkpoints=0"))) == 6


# --- length --------------------------------------------------------------------------------------


def steps_of(path: Path) -> int:
    return read(path / runs.METRICS_FILE)[-1]["step"]


def test_length_is_the_epochs(run: Callable[..., Path]) -> None:
    assert steps_of(run("data.samples=11", "train.epochs=2")) == 2 * (11 // 4)


def test_max_steps_shortens_the_run_and_the_schedule(run: Callable[..., Path]) -> None:
    path = run("train.max_steps=4", "optim.warmup_fraction=0.0", "optim.lr=1e-3")
    rates = [r["lr"] for r in read(path / runs.METRICS_FILE)]
    assert len(rates) == 4 and rates[0] == 1e-3
    assert rates[-1] < rates[0] / 5


def test_max_steps_beyond_the_epochs_is_refused(run: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"max_steps=17 is more than the 16.*raise train\.epochs"):
        run("train.max_steps=17")


# --- mistakes leave nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["model.name=ViT-B-23"], ModelError),
        (["data.samples=3"], DataError),
        (["optim.lr_start=0.1"], ConfigError),
        (["train.precision=fp16"], ConfigError),
        (["train.device=tpu"], ConfigError),
        (["data.split=tset"], ClicError),
        (
            ["data.source=shards", "data.shards=x", "data.samples=null", "data.split=null"],
            DataError,
        ),
        (["captions.tagger=x"], ConfigError),
    ],
)
def test_a_mistake_leaves_no_folder(
    run: Callable[..., Path], tmp_path: Path, words: list[str], error: type[ClicError]
) -> None:
    with pytest.raises(error) as raised:
        run(*words)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train.batch_size=100"],
        ["data.samples=3"],
        ["train.max_steps=17"],
        ["train.runs_dir=/proc/nowhere"],
        ["wandb.enabled=true"],
    ],
    ids=str,
)
def test_a_mistake_is_found_before_the_model_is_built(
    run: Callable[..., Path], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.config.checks.find_spec", lambda name: None)
    monkeypatch.setattr("clic.models.create", lambda *a: pytest.fail("the model is built"))
    with pytest.raises(ClicError):
        run(*words)


def test_what_a_kill_left_half_written_goes_with_the_next_start(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    words = ("train.max_steps=8", "train.save_every=3", "train.run_name=first")
    die(run, 4, *words)
    path = tmp_path / "runs" / "first"
    for name in (".model-x1", ".base-x2", ".step-000006-x3", ".mine"):
        (path / name / "new").mkdir(parents=True)
    (path / "elsewhere").mkdir()
    (path / ".model-link").symlink_to(path / "elsewhere")
    run(*words)
    left = {p.name for p in path.iterdir()}
    assert {".mine", ".model-link", "elsewhere"} <= left
    assert not {".model-x1", ".base-x2", ".step-000006-x3"} & left


def test_wandb_that_cannot_start_is_one_line(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class RefusalError(Exception):
        pass

    def refuse(**settings: Any) -> None:
        raise RefusalError("api_key not configured")

    fake = SimpleNamespace(init=refuse, errors=SimpleNamespace(Error=RefusalError))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("clic.config.checks.find_spec", lambda name: True)
    words = ("train.max_steps=2", "train.run_name=first")
    with pytest.raises(ConfigError, match=r"api_key not configured.*wandb\.mode=offline"):
        run(*words, "wandb.enabled=true")
    assert runs.is_finished(run(*words))  # as the line says


# --- random weights ------------------------------------------------------------------------------


def test_random_weights_are_said_and_kept(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("model.pretrained=null", "train.max_steps=2", "model.train=text")
    path = run(*words, "train.run_name=a")
    assert "RANDOM weights" in capsys.readouterr().err
    base = load_file(path / runs.BASE / runs.OPEN_CLIP_WEIGHTS)
    tuned = load_file(path / WEIGHTS)
    assert torch.equal(base["visual.conv1.weight"], tuned["visual.conv1.weight"])
    assert not torch.equal(base["ln_final.weight"], tuned["ln_final.weight"])
    assert runs.base_of(path) == str(path / runs.BASE)
    again = load_file(run(*words, "train.run_name=b") / runs.BASE / runs.OPEN_CLIP_WEIGHTS)
    other = load_file(run(*words, "seed=1") / runs.BASE / runs.OPEN_CLIP_WEIGHTS)
    assert torch.equal(base["visual.conv1.weight"], again["visual.conv1.weight"])
    assert not torch.equal(base["visual.conv1.weight"], other["visual.conv1.weight"])


def test_the_samples_of_a_skipped_step_are_written(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from clic.training import Trainer

    step, keys = Trainer.step, {}

    def spoilt(self: Trainer, batch: Any) -> Any:
        keys[batch.step] = [list(row) for row in batch.keys]
        return step(self, replace(batch, std=(float("nan"),) * 3) if batch.step >= 2 else batch)

    monkeypatch.setattr(Trainer, "step", spoilt)
    with pytest.raises(TrainingError, match=r"the last of them step 4 .*skipped_step\.json holds"):
        run("train.max_steps=8", "train.max_skipped=1", "train.run_name=mine")
    record = json.loads((tmp_path / "runs" / "mine" / runs.SKIPPED_FILE).read_text())
    assert record == {"step": 4, "samples": [keys[3]]}


# --- evaluation ----------------------------------------------------------------------------------


def test_evaluation_during_training(settings: Callable[..., Config]) -> None:
    seen = []

    def evaluate(clip: models.ClipModel) -> dict[str, float]:
        seen.append(models.weights_sha256(clip.model))
        return {"score": float(len(seen))}

    config = settings("train.max_steps=4", "train.eval_every=2", "train.eval_bench=[shapes++]")
    records = read(train(config, evaluate) / runs.METRICS_FILE)
    assert [(r["step"], r["score"]) for r in records if "score" in r] == [(2, 1.0), (4, 2.0)]
    assert seen[0] != seen[1]
    json.dumps(records)
