"""TensorBoard, W&B and trackio behind one interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from clic.config.checks import TRACKERS as NAMED
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.training.metrics_log import MetricsLog
from clic.training.trackers import TRACKERS, TrackedRun, Tracker, start_trackers


def tracked(tmp_path: Path, name: str, start: int = 0) -> TrackedRun:
    config = Config()
    getattr(config, name).enabled = True
    (tmp_path / "the-run").mkdir(exist_ok=True)
    return TrackedRun(config, tmp_path / "the-run", start)


def test_every_tracker_has_its_settings() -> None:
    assert tuple(TRACKERS) == NAMED
    assert all(getattr(Config(), name).enabled is False for name in TRACKERS)
    assert start_trackers(TrackedRun(Config(), Path("x"), 0)) == []


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_is_imported_only_when_its_tracker_is_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert start_trackers(TrackedRun(Config(), tmp_path, 0)) == []
    with pytest.raises(ConfigError, match=rf"{name}\.enabled=true needs .*pip install {name}"):
        start_trackers(tracked(tmp_path, name))


def test_what_wandb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    run = SimpleNamespace(
        log=lambda record, step: told.append((record, step)), finish=lambda: told.append("end")
    )
    module = SimpleNamespace(
        init=lambda **settings: told.extend([settings["name"], *sys.argv]) or run,
        Image=lambda image: image.size,
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    words = ["clic-train", "data.shards=https://u:s3cret@h.org/a.tar?sig=s3cret"]
    monkeypatch.setattr(sys, "argv", words)
    log = MetricsLog(tmp_path / "m.jsonl", 0, 9, start_trackers(tracked(tmp_path, "wandb")))
    log.log({"step": 3, "loss": 0.5})
    log.picture(3, "examples/single", Image.new("RGB", (7, 5)))
    log.close()
    line = ["clic-train", "data.shards=https://h.org/a.tar?..."]  # which W&B keeps by itself
    told_of = [({"loss": 0.5}, 3), ({"examples/single": (7, 5)}, 3), "end"]
    assert told == ["the-run", *line, *told_of]
    assert sys.argv is words


def test_what_trackio_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    run = SimpleNamespace(
        log=lambda record, step: told.append((record, step)), finish=lambda: told.append("end")
    )

    def init(**settings: Any) -> Any:
        told.append((settings["project"], settings["name"], settings["resume"]))
        assert settings["config"]["train"]["batch_size"] == 48
        return run

    module = SimpleNamespace(init=init, Image=lambda image: image.size)
    monkeypatch.setitem(sys.modules, "trackio", module)
    (tracker,) = start_trackers(tracked(tmp_path, "trackio"))
    tracker.log(3, {"loss": 0.5})
    tracker.picture(3, "p", Image.new("RGB", (7, 5)))
    tracker.close()
    assert told == [("clic", "the-run", "allow"), ({"loss": 0.5}, 3), ({"p": (7, 5)}, 3), "end"]


def test_what_tensorboard_reads(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = start_trackers(tracked(tmp_path, "tensorboard"))
    for step in (1, 2, 3):
        tracker.log(step, {"loss": step / 2})
    tracker.picture(2, "examples/single", Image.new("RGB", (7, 5), (255, 0, 0)))
    tracker.close()
    (tracker,) = start_trackers(tracked(tmp_path, "tensorboard", start=2))  # step 3 was lost
    tracker.log(3, {"loss": 9.0})
    tracker.close()
    found = EventAccumulator(str(tmp_path / "the-run" / "tensorboard")).Reload()
    scalars = [(event.step, event.value) for event in found.Scalars("loss")]
    assert scalars == [(1, 0.5), (2, 1.0), (3, 9.0)]
    (image,) = found.Images("examples/single")
    assert (image.step, image.width, image.height) == (2, 7, 5)
    (tracker,) = start_trackers(tracked(tmp_path, "tensorboard"))  # without a checkpoint, anew
    tracker.log(1, {"loss": 7.0})
    tracker.close()
    found = EventAccumulator(str(tmp_path / "the-run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 7.0)]


def test_those_that_started_are_closed_where_one_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Fine(Tracker):
        def __init__(self, run: TrackedRun) -> None: ...
        def log(self, step: int, numbers: Any) -> None: ...
        def picture(self, step: int, name: str, image: Any) -> None: ...
        def close(self) -> None:
            closed.append("fine")

    def refuse(run: TrackedRun) -> Tracker:
        raise ConfigError("no")

    monkeypatch.setitem(TRACKERS, "tensorboard", Fine)
    monkeypatch.setitem(TRACKERS, "wandb", refuse)
    run = tracked(tmp_path, "tensorboard")
    run.config.wandb.enabled = True
    with pytest.raises(ConfigError, match="no"):
        start_trackers(run)
    assert closed == ["fine"]


def test_a_run_tells_its_trackers(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clic.training import train

    told: list[tuple[str, int]] = []

    class Listener(Tracker):
        def __init__(self, run: TrackedRun) -> None: ...
        def log(self, step: int, numbers: Any) -> None:
            assert "step" not in numbers
            told.extend((name, step) for name in numbers if name in ("loss", "data_wait"))

        def picture(self, step: int, name: str, image: Image.Image) -> None:
            told.append((name, step))

        def close(self) -> None:
            told.append(("end", 0))

    monkeypatch.setitem(TRACKERS, "tensorboard", Listener)
    monkeypatch.setattr("clic.config.checks.find_spec", lambda name: True)
    run = train(settings("tensorboard.enabled=true", "train.max_steps=5", "train.log_every=2",
                         "train.examples_every=2"))  # fmt: skip
    pictures = [entry for entry in told if entry[0].startswith("examples")]
    assert pictures == [
        ("examples/composite", 1), ("examples/single", 2), ("examples/composite", 3),
        ("examples/single", 4), ("examples/composite", 5),
    ]  # fmt: skip
    assert [step for name, step in told if name == "loss"] == [2, 4, 5]
    assert [step for name, step in told if name == "data_wait"] == [2, 4, 5]
    assert told[-1] == ("end", 0)
    names = sorted(path.name for path in (run / "examples").iterdir())
    assert names[0] == "step-000001-composite.png" and len(names) == 5
