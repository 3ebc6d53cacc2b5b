"""Broken samples in a run: counted in its metrics, and the end of it where they are many."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic import models, runs, shapes
from clic.cli.common import run_cli
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.data import pack
from clic.data.batches import faults
from clic.errors import ConfigError, DataError
from clic.training import train
from clic.training.metrics_log import read
from clic.types import Sample


def sample(index: int, every: int) -> Sample:
    """Return a scene; each of `every` is cut."""
    scene = shapes.sample("train", index, 1)
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "PNG")
    whole = buffer.getvalue()
    return Sample(scene.key, whole[: -len(whole) * (index % every == 0) // 2 or None],
                  scene.captions, scene.tags)  # fmt: skip


@pytest.fixture
def on_shards(settings: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """Return what composes a run on forty scenes of which each of `every` is broken."""

    def make(every: int, *words: str) -> Config:
        pack((sample(index, every) for index in range(40)), tmp_path / "w")
        shards = ("data.source=shards", "data.samples=null", "data.split=null")
        return settings(f"data.shards={tmp_path}/w", *shards, "train.run_name=mine", *words)

    return make


def test_counts_stand_in_the_metrics(
    on_shards: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(on_shards(20))
    records = read(run / runs.METRICS_FILE)
    counts = [record["data/broken"] for record in records]
    assert counts == sorted(counts) and counts[-1] >= 2
    assert records[-1]["data/samples"] == 5 * 2 * 4 + 5 * 4 + counts[-1]
    assert {"data/no_negative", "data/retagged", "data/cut_captions"} <= records[-1].keys()
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert f"  broken {counts[-1]}" in lines[-1]
    warnings = captured.err.splitlines()
    assert len(warnings) == counts[-1]
    assert all("WARNING: sample number " in line for line in warnings)


def test_too_many_end_the_run_with_the_list(
    on_shards: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(faults, "JUDGED_FROM", 20)
    config = on_shards(4, "data.max_broken=0.1", "train.save_every=1")
    with pytest.raises(DataError, match=r"of \d+ samples are broken, more than data\.max_broken"):
        train(config)
    run = Path(config.train.runs_dir) / "mine"
    assert not runs.is_finished(run)
    kept = len(runs.complete_checkpoints(run))
    assert 0 < kept < 10  # those of the steps before it was too much
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:  # the same command comes to the same end
        run_cli("clic-train", lambda: train(config) and None)
    assert ended.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("clic-train: error")]
    assert "more than data.max_broken=0.1 allows" in line and "number " in line


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.max_broken=1.5", "it must be from 0 to 1"),
        ("data.max_broken=-0.1", "0 or more"),
        ("data.max_broken=0.5", "has no effect with data=shapes"),
        ("data.decode=scaled", "has no effect with data=shapes"),
        ("data.decode=fats", "did you mean 'fast'"),
    ],
)
def test_settings_are_checked(settings: Callable[..., Config], word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(settings(word))


@pytest.mark.parametrize(
    ("caption", "told"),
    [
        ("a red dog on a blue mat next to a cat. " * 20, "clic-data pack --prepare-sentences"),
        (
            "\u0431\u0435\u043b\u044b\u0439 \u043f\u0451\u0441 \u0438 \u043a\u043e\u0442",
            "most captions are not in Latin script",
        ),
        ("a dog", "100% of the single rows have no false caption by swap"),
    ],
)
def test_captions_that_teach_nothing_are_told_at_the_start(
    caption: str,
    told: str,
    settings: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pack((replace(sample(i, 100), captions=(caption,), tags=None) for i in range(1, 40)),
         tmp_path / "w")  # fmt: skip
    words = ("data.source=shards", "data.samples=null", "data.split=null", "captions.tagger=hanta",
             "sampling.kinds=single", "captions.single_negative=swap",
             "loss.single=softmax_negatives")  # fmt: skip
    train(settings(f"data.shards={tmp_path}/w", *words))
    lines = [line for line in capsys.readouterr().err.splitlines() if told in line]
    assert len(lines) == 1 and lines[0].startswith("WARNING: 100% of the ")


def test_a_softmax_model_is_refused_sigmoid_negatives(settings: Callable[..., Config]) -> None:
    words = ("loss.single=sigmoid_negatives", "captions.single_negative=swap")
    config = settings(*words, "train.run_name=mine")
    with pytest.raises(
        ConfigError, match=r"loss\.single=sigmoid_negatives needs a logit_bias .*softmax_negatives"
    ):
        train(config)
    assert not (Path(config.train.runs_dir) / "mine").exists()


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("loss.single=softmax_negatives", "captions.single_negative=swap"), "loss.single"),
        (("loss.composite=softmax_negatives",), "loss.composite"),
    ],
)
def test_a_sigmoid_model_is_refused_before_the_run_has_a_folder(
    settings: Callable[..., Config],
    build_tiny: Callable[..., Any],
    tmp_path: Path,
    words: tuple[str, ...],
    setting: str,
) -> None:
    models.save(build_tiny(tmp_path / "made", init_logit_bias=-10.0), tmp_path / "sigmoid")
    config = settings(*words, f"model.name={tmp_path}/sigmoid", "train.run_name=mine")
    with pytest.raises(ConfigError, match=rf"{setting}=softmax_negatives needs a softmax.*clip"):
        train(config)
    assert not (Path(config.train.runs_dir) / "mine").exists()
