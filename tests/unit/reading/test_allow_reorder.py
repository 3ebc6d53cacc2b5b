"""Continuing a run with other batches: by name refused, and by name allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clic import runs, shapes
from clic.config.train_settings import Config
from clic.data import pack
from clic.errors import ConfigError
from clic.training import train
from clic.training.checkpoint import STATE_FILE
from clic.training.run_folder import differences


def test_a_run_of_two_ranks_goes_on_with_one(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train.max_steps=3", "train.save_every=2", "train.resume=never"]
    run = train(settings(*words, "train.run_name=two"))
    (checkpoint,) = runs.complete_checkpoints(run)
    state = torch.load(checkpoint / STATE_FILE, weights_only=True)
    torch.save({**state, "world_size": 2}, checkpoint / STATE_FILE)
    (checkpoint / runs.COMPLETE).write_text("")  # without the hash of the other state
    words[2] = f"train.resume={checkpoint}"
    with pytest.raises(ConfigError, match=r"number of ranks 2 .* with 1.*data\.allow_reorder=true"):
        train(settings(*words))
    capsys.readouterr()
    after = train(settings(*words, "data.allow_reorder=true"))
    assert "data.allow_reorder=true: number of ranks 2 -> 1" in capsys.readouterr().out
    assert runs.is_finished(after)


def test_a_folder_that_has_got_another_shard(
    settings: Callable[..., Config], tmp_path: Path
) -> None:
    """The order of the epoch is that of so many samples."""
    pack([shapes.sample("train", i, 1) for i in range(30)], tmp_path / "s", 10)
    last = tmp_path / "s" / "00002.tar"
    last.rename(tmp_path / "away")
    words = ["data.source=shards", f"data.shards={tmp_path / 's'}", "data.samples=null"]
    words += ["data.split=null", "train.max_steps=3", "train.save_every=2"]
    run = train(settings(*words, "train.run_name=mine"))
    (checkpoint,) = runs.complete_checkpoints(run)
    (tmp_path / "away").rename(last)
    words.append(f"train.resume={checkpoint}")
    with pytest.raises(ConfigError, match="number of samples 20 and cannot be resumed with 30"):
        train(settings(*words))
    assert runs.is_finished(train(settings(*words, "data.allow_reorder=true")))


def test_settings_that_may_change(settings: Callable[..., Config]) -> None:
    run = train(settings("train.max_steps=1", "train.run_name=mine"))
    same = ["train.max_steps=1", "train.run_name=mine", "data.cache_gb=3"]
    assert differences(run, settings(*same)) == []
    other = [*same, "train.batch_size=8"]
    assert differences(run, settings(*other)) == ["train.batch_size: 4 -> 8"]
    assert differences(run, settings(*other, "data.allow_reorder=true")) == []
