"""A disk that is full while weights are written: one line, and what was there before stays."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from clic import models, runs
from clic.cli.common import run_cli
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.models import ClipModel
from clic.training import checkpoint, train
from clic.training.checkpoint import TrainingState

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
RUST = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")


@pytest.fixture
def clip(tiny: Path) -> ClipModel:
    return models.create(str(tiny))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse what makes a file larger than `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def state(step: int, numbers: int = 3) -> TrainingState:
    optimizer = {"state": {0: {"exp_avg": torch.arange(float(numbers))}}, "param_groups": []}
    return TrainingState(step, optimizer, scaler={}, batch_size=4, world_size=1)


def size_of_weights(folder: Path) -> int:
    return (folder / runs.OPEN_CLIP_WEIGHTS).stat().st_size


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_weights_that_find_no_room(clip: ClipModel, tiny: Path, tmp_path: Path) -> None:
    folder = models.save(clip, tmp_path / "model")
    before = everything(tmp_path)
    with largest_file(size_of_weights(tiny) // 2):
        for target in (folder, tmp_path / "other"):
            with pytest.raises(ConfigError, match=rf"cannot write {target} \(.*File too large"):
                models.save(clip, target)
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [NO_SPACE, RUST])
def test_the_reason_and_the_remedy_are_told(
    error: Exception, clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(ConfigError, match=r"model \(.*No space left.*\); free space") as raised:
        models.save(clip, tmp_path / "model")
    assert "Errno" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_model_is_put_back_where_the_new_one_cannot_take_its_place(
    clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.save(clip, tmp_path / "model")
    before = everything(tmp_path)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigError, match=r"model \(Input/output error\)"):
        models.save(clip, folder)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("what", ["weights", "state"])
def test_a_checkpoint_that_finds_no_room(
    what: str, clip: ClipModel, tiny: Path, tmp_path: Path
) -> None:
    first = checkpoint.save(tmp_path, clip, state(1), keep=1)
    before = everything(tmp_path)
    weights = size_of_weights(tiny)
    limit = weights // 2 if what == "weights" else weights + 1000
    refused = pytest.raises(ConfigError, match=r"checkpoints/step-000002 \(.*File too large")
    with largest_file(limit), refused:
        checkpoint.save(tmp_path, clip, state(2, numbers=weights), keep=1)
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [runs.CHECKPOINTS]
    assert checkpoint.load(first, clip).step == 1


def test_a_mistake_of_ours_is_no_full_disk(
    clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("cannot pickle")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="cannot pickle"):
        checkpoint.save(tmp_path, clip, state(1), keep=0)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    ("written", "kept", "place"),
    [
        (0, [], "checkpoints/step-000001"),
        (1, ["step-000001"], "checkpoints/step-000002"),
        (2, ["step-000001", "step-000002"], "model"),
    ],
)
def test_a_run_is_continued_when_there_is_room_again(
    written: int,
    kept: list[str],
    place: str,
    settings: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from safetensors.torch import save_file

    config = settings("train.max_steps=3", "train.save_every=1", "train.run_name=mine")
    run = Path(config.train.runs_dir) / "mine"
    room = [True] * written

    def write(*arguments: Any) -> None:
        if not room:
            raise NO_SPACE
        room.pop()
        save_file(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", write)
        with pytest.raises(SystemExit) as ended:
            run_cli("clic-train", lambda: train(config) and None)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"clic-train: error: cannot write {run / place} (No space left")
    assert [folder.name for folder in runs.complete_checkpoints(run)] == kept
    assert not list(run.glob(".step-*")) and not list(run.glob(".model-*"))
    assert not (run / runs.MODEL).exists()

    assert runs.is_finished(train(config))
    assert f"resuming {run} from step {written}" in capsys.readouterr().out


def test_a_run_without_room_for_its_settings_leaves_no_folder(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("train.max_steps=1", "train.run_name=mine")
    run = Path(config.train.runs_dir) / "mine"

    def fail(*_: object) -> None:
        raise NO_SPACE

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(ConfigError, match=rf"cannot write {run} \(No space left"):
            train(config)
    assert not run.exists()
    assert train(config) == run
