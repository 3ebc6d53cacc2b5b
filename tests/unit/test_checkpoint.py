"""Checkpoints: whole or not at all, and no copy of the optimizer on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models, runs
from clic.errors import ConfigError, ModelError
from clic.models import ClipModel
from clic.training import checkpoint
from clic.training.checkpoint import TrainingState


@pytest.fixture
def clip(tiny: Path) -> ClipModel:
    return models.create(str(tiny))


def state(step: int = 5, **changes: Any) -> TrainingState:
    optimizer = {"state": {0: {"exp_avg": torch.arange(3.0)}}, "param_groups": []}
    return TrainingState(
        **{
            "step": step,
            "optimizer": optimizer,
            "scaler": {},
            "batch_size": 4,
            "world_size": 1,
            **changes,
        }
    )


def test_what_is_saved_comes_back(clip: ClipModel, tmp_path: Path, tiny: Path) -> None:
    with torch.no_grad():
        clip.model.ln_final.weight.normal_()
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    assert folder == tmp_path / "checkpoints" / "step-000005"
    fresh = models.create(str(tiny))
    again = checkpoint.load(folder, fresh)
    assert again.step == 5 and again.batch_size == 4 and again.world_size == 1
    assert torch.equal(again.optimizer["state"][0]["exp_avg"], torch.arange(3.0))
    assert models.weights_sha256(fresh.model) == models.weights_sha256(clip.model)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]


def test_the_optimizer_is_not_copied(
    clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy would take the optimizer's memory a second time, on the GPU."""
    saved: list[dict[str, Any]] = []
    original = torch.save
    monkeypatch.setattr(torch, "save", lambda o, path: saved.append(o) or original(o, path))
    mine = state()
    checkpoint.save(tmp_path, clip, mine, keep=0)
    assert saved[0]["optimizer"] is mine.optimizer


def test_every_file_is_on_the_disk_before_the_folder_has_its_name(
    clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace_path = checkpoint._sync, os.replace
    monkeypatch.setattr(checkpoint, "_sync", lambda p: (sync(p), done.append(p.name)))
    monkeypatch.setattr(os, "replace", lambda a, b: (replace_path(a, b), done.append(Path(b).name)))
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    assert sorted(done[:-1]) == sorted(file.name for file in folder.iterdir())
    assert done[-1] == folder.name


def test_saving_a_step_again_replaces_it(clip: ClipModel, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, clip, state(), keep=0)
    folder = checkpoint.save(tmp_path, clip, state(batch_size=8), keep=0)
    assert checkpoint.load(folder, clip).batch_size == 8
    assert runs.complete_checkpoints(tmp_path) == [folder]


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3]), (1, [3]), (2, [2, 3])])
def test_how_many_are_kept(clip: ClipModel, tmp_path: Path, keep: int, left: list[int]) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, clip, state(step), keep)
    names = [runs.step_folder(step) for step in left]
    assert [p.name for p in runs.complete_checkpoints(tmp_path)] == names


def test_a_checkpoint_is_an_open_clip_folder(clip: ClipModel, tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    assert models.create(f"local-dir:{folder}").source.architecture == clip.source.architecture


def test_another_architecture_is_refused(clip: ClipModel, tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    with pytest.raises(ModelError, match=r"than that of model\.name='shapes-base'"):
        checkpoint.load(folder, models.create("shapes-base"))


@pytest.mark.parametrize(
    ("batch_size", "world_size", "message"),
    [
        (8, 1, r"train\.batch_size 4 and cannot be resumed with 8"),
        (4, 2, "number of ranks 1 and cannot be resumed with 2"),
        (2, 2, "number of ranks 1"),
    ],
)
def test_other_batches_are_refused(batch_size: int, world_size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checkpoint.check_same_batches(state(), batch_size, world_size)
    assert checkpoint.check_same_batches(state(), 4, 1) == ""


def test_other_batches_are_accepted_where_that_is_allowed() -> None:
    then = replace(state(), samples=64)
    changed = checkpoint.check_same_batches(then, 8, 2, 65, allow_reorder=True)
    assert changed == "number of ranks 1 -> 2, train.batch_size 4 -> 8, number of samples 64 -> 65"
    assert checkpoint.check_same_batches(then, 4, 1, 64) == ""
    with pytest.raises(ConfigError, match="number of samples 64 and cannot be resumed with 65"):
        checkpoint.check_same_batches(then, 4, 1, 65)
    assert checkpoint.check_same_batches(state(), 4, 1, 65) == ""  # a checkpoint without it
    assert checkpoint.check_same_batches(state(), 4, 1, allow_reorder=True) == ""


# --- damage --------------------------------------------------------------------------------------

FILES = (runs.OPEN_CLIP_WEIGHTS, runs.OPEN_CLIP_CONFIG, checkpoint.STATE_FILE)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(range(1, 200)))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip_a_bit, cut, overwrite, Path.unlink])
def test_a_damaged_file_is_found_by_its_hash(
    clip: ClipModel, tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    checkpoint.check(folder)
    harm(folder / name)
    with pytest.raises(checkpoint.DamagedError, match=f"{folder} is damaged: {name}"):
        checkpoint.check(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"sha256": 3}', "\x00\x00"])
def test_a_damaged_marker_is_told(clip: ClipModel, tmp_path: Path, text: str) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    (folder / runs.COMPLETE).write_text(text)
    with pytest.raises(checkpoint.DamagedError, match="COMPLETE cannot be read"):
        checkpoint.check(folder)


def test_a_marker_of_an_earlier_version_is_accepted(clip: ClipModel, tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    (folder / runs.COMPLETE).write_text("")
    checkpoint.check(folder)
    assert checkpoint.load(folder, clip).step == 5


@pytest.mark.parametrize("name", [runs.OPEN_CLIP_WEIGHTS, checkpoint.STATE_FILE])
@pytest.mark.parametrize("harm", [cut, overwrite])
def test_without_hashes_a_cut_file_is_found_all_the_same(
    clip: ClipModel, tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    (folder / runs.COMPLETE).write_text("")
    harm(folder / name)
    for use in (checkpoint.check, lambda path: checkpoint.load(path, clip)):
        with pytest.raises(checkpoint.DamagedError, match=f"{folder} is damaged: {name}"):
            use(folder)


def test_the_state_of_a_later_version_is_told(clip: ClipModel, tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, clip, state(), keep=0)
    record = torch.load(folder / checkpoint.STATE_FILE, weights_only=True)
    torch.save({**record, "momentum": 1}, folder / checkpoint.STATE_FILE)
    with pytest.raises(ModelError, match="holds momentum, which this version of clic does not"):
        checkpoint.load(folder, clip)


# --- a million steps -----------------------------------------------------------------------------


def test_the_newest_checkpoints_are_kept_past_a_million_steps(
    clip: ClipModel, tmp_path: Path
) -> None:
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        checkpoint.save(tmp_path, clip, state(step), keep=2)
    names = [path.name for path in runs.complete_checkpoints(tmp_path)]
    assert names == ["step-1000000", "step-1000001"]
