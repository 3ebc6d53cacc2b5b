"""Runs that are continued: after a kill, to the same weights, and from a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models, runs
from clic.config.train_settings import Config
from clic.errors import ClicError, ConfigError, ModelError
from clic.training import checkpoint, train
from clic.training import run_folder as folder
from clic.training.metrics_log import read
from clic.training.run_folder import lock_run

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


# --- continuing ----------------------------------------------------------------------------------

LENGTH = ("train.max_steps=8", "train.save_every=3")


@pytest.mark.parametrize("step", [0, 2, 3, 7])
def test_a_run_that_died_is_continued_to_the_same_weights(
    run: Callable[..., Path], step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(*LENGTH, "train.run_name=whole")
    die(run, step, *LENGTH)
    capsys.readouterr()
    path = run(*LENGTH)
    assert f"resuming {path} from step {step - step % 3}" in capsys.readouterr().out
    assert (path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    records = read(path / runs.METRICS_FILE)
    assert [r["step"] for r in records] == list(range(1, 9))
    losses = [r["loss"] for r in read(whole / runs.METRICS_FILE)]
    assert [r["loss"] for r in records] == losses


@pytest.mark.parametrize(
    "words", [("model.train=both",), ("model.train=text.last:1+vision", "model.pretrained=null")]
)
def test_self_distillation_is_continued_to_the_same_weights(
    run: Callable[..., Path], words: tuple[str, ...]
) -> None:
    words = (*LENGTH, *words, "train.distill_weight=3.0", "optim.lr=0.01")
    whole = run(*words, "train.run_name=whole")
    die(run, 5, *words, "train.run_name=mine")
    mine = run(*words, "train.run_name=mine")
    assert (mine / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    (last,) = [record for record in read(mine / runs.METRICS_FILE) if record["step"] == 5]
    assert last["composite/distillation"] > 1e-4


def test_another_base_than_that_of_the_run_is_refused(
    run: Callable[..., Path], tiny: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(tiny, tmp_path / "own")
    words = (*LENGTH, "train.distill_weight=3.0", f"model.name={own}", "train.run_name=mine")
    die(run, 5, *words)
    clip = models.create(str(own))
    torch.nn.init.normal_(clip.model.ln_final.weight)
    shutil.rmtree(own)
    models.save(clip, own)
    with pytest.raises(ClicError, match=r"distill_weight=3\.0: .*mine kept its features near"):
        run(*words)


def test_random_weights_are_continued_too(run: Callable[..., Path]) -> None:
    words = (*LENGTH, "model.pretrained=null", "model.train=both")
    whole = run(*words, "train.run_name=whole")
    for step in (0, 4):
        die(run, step, *words, f"train.run_name=r{step}")
        path = run(*words, f"train.run_name=r{step}")
        assert (path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_a_kill_while_the_folder_is_made_is_continued(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*LENGTH, "model.pretrained=null", "train.run_name=first")
    with monkeypatch.context() as patch:
        patch.setattr("clic.training.run._write_provenance", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*words)
    path = run(*words)
    assert (path / runs.PROVENANCE_FILE).is_file() and runs.is_finished(path)


def test_a_finished_run_is_not_continued(run: Callable[..., Path]) -> None:
    assert run(*LENGTH) != run(*LENGTH)


def test_other_settings_are_a_run_of_their_own(run: Callable[..., Path]) -> None:
    die(run, 4, *LENGTH)
    path = run(*LENGTH, "seed=5")
    assert [r["step"] for r in read(path / runs.METRICS_FILE)] == list(range(1, 9))


def test_another_number_of_ranks_is_refused(
    run: Callable[..., Path], settings: Callable[..., Config]
) -> None:
    die(run, 4, *LENGTH, "train.run_name=first")
    folder = Path(settings().train.runs_dir) / "first" / "checkpoints" / "step-000003"
    state = torch.load(folder / checkpoint.STATE_FILE, weights_only=True)
    torch.save({**state, "world_size": 2}, folder / checkpoint.STATE_FILE)
    (folder / runs.COMPLETE).write_text("")  # without the hash of the other state
    with pytest.raises(ConfigError, match="number of ranks 2 and cannot be resumed with 1"):
        run(*LENGTH, "train.run_name=first")


def test_a_run_that_is_being_trained_is_left_alone(
    run: Callable[..., Path], settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PATIENCE", 0.0)
    die(run, 4, *LENGTH, "train.run_name=first")
    lock = lock_run(Path(settings().train.runs_dir) / "first")
    assert lock is not None
    with pytest.raises(ConfigError, match=r"first is being trained by another process"):
        run(*LENGTH, "train.run_name=first")
    lock.close()


# --- from a checkpoint ---------------------------------------------------------------------------


def test_a_checkpoint_continues_in_a_new_run(run: Callable[..., Path], tiny: Path) -> None:
    whole = run(*LENGTH, "train.run_name=whole")
    start = whole / "checkpoints" / "step-000003"
    path = run(*LENGTH, f"train.resume={start}")
    assert path != whole
    assert (path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert runs.base_of(path) == str(tiny)
    assert [r["step"] for r in read(path / runs.METRICS_FILE)] == [4, 5, 6, 7, 8]


def test_that_run_is_continued_from_there(run: Callable[..., Path]) -> None:
    whole = run(*LENGTH, "train.run_name=whole")
    words = (*LENGTH, "train.run_name=second")
    die(run, 4, *words, f"train.resume={whole}/checkpoints/step-000003")
    path = run(*words)
    assert (path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_its_base_is_an_absolute_path(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(*LENGTH, "model.pretrained=null", "train.run_name=whole")
    monkeypatch.chdir(whole)
    path = run(*LENGTH, "model.pretrained=null", "train.resume=checkpoints/step-000003")
    assert runs.base_of(path) == str(whole / runs.BASE)


def test_own_settings_of_the_optimiser_hold(
    run: Callable[..., Path], settings: Callable[..., Config]
) -> None:
    whole = run(*LENGTH, "train.run_name=whole")
    start = f"train.resume={whole}/checkpoints/step-000003"
    path = run(*LENGTH, start, "optim.weight_decay=0.7", "optim.betas=[0.5,0.6]")
    newest = runs.complete_checkpoints(path)[-1] / checkpoint.STATE_FILE
    group = torch.load(newest, weights_only=True)["optimizer"]["param_groups"][0]
    assert group["weight_decay"] == 0.7 and tuple(group["betas"]) == (0.5, 0.6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.train=both"], r"another model\.train than both"),
        (["train.batch_size=2"], r"train\.batch_size 4 and cannot be resumed with 2"),
        (["train.max_steps=3"], r"has done 3 steps and this run has 3"),
        (["train.max_steps=2"], r"has done 3 steps and this run has 2"),
        (
            ["model.name=shapes-base"],
            r"another architecture than that of model.name='shapes-base'; give the model\.name,",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    run: Callable[..., Path], tmp_path: Path, words: list[str], message: str
) -> None:
    whole = run(*LENGTH, "train.run_name=whole")
    with pytest.raises(ClicError, match=message):
        run(*LENGTH, f"train.resume={whole}/checkpoints/step-000003", *words)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["whole"]


def test_an_incomplete_checkpoint_is_not_loaded(run: Callable[..., Path], tiny: Path) -> None:
    path = run(*LENGTH)
    folder = path / "checkpoints" / "step-000006"
    (folder / runs.COMPLETE).unlink()
    with pytest.raises(ModelError, match=f"{folder} is not a complete checkpoint"):
        checkpoint.load(folder, models.create(str(tiny)))


def test_a_checkpoint_cut_off_in_writing_is_cleared_away(
    run: Callable[..., Path], settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("clic.training.checkpoint._sync", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*LENGTH, "train.run_name=first")
    path = Path(settings().train.runs_dir) / "first"
    assert not runs.complete_checkpoints(path) and not list(path.glob(".step-*"))
    (path / ".step-000003-killed" / "new").mkdir(parents=True)
    run(*LENGTH, "train.run_name=first")
    assert not list(path.glob(".step-*"))
    names = sorted(p.name for p in (path / runs.CHECKPOINTS).iterdir())
    assert names == ["step-000003", "step-000006"]
