"""The best model of a run, by a score of its evaluations, and the end for want of a better one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import models, runs
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.training import Trainer, train
from clic.training.best import BestSoFar
from clic.training.metrics_log import read

EVAL = ("train.eval_every=2", "train.eval_bench=[shapes++]", "train.best_metric=b/score")


def test_the_larger_is_better_and_equal_is_not() -> None:
    best = BestSoFar("score", patience=2)
    found = [best.add(n, {"score": v}) for n, v in enumerate([0.5, 0.4, 0.6, 0.6, math.nan])]
    assert found == [True, False, True, False, False]
    assert (best.value, best.step, best.worse, best.exhausted) == (0.6, 2, 2, True)


def test_without_patience_it_is_never_exhausted() -> None:
    best = BestSoFar("score")
    assert [best.add(0, {"score": 1.0}) for _ in range(9)] == [True] + [False] * 8
    assert best.worse == 8 and not best.exhausted


def test_without_a_score_nothing_is_best() -> None:
    best = BestSoFar(None)
    assert not best.add(0, {"score": 1.0}) and not best.exhausted


def test_an_unknown_score_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"best_metric=b/scroe .*did you mean 'b/score'.*a/other"):
        BestSoFar("b/scroe").add(0, {"b/score": 1.0, "a/other": 2.0})


def test_it_is_continued_from_a_checkpoint() -> None:
    best, again, other = BestSoFar("score", 3), BestSoFar("score", 3), BestSoFar("else", 3)
    best.add(1, {"score": 0.5})
    best.add(2, {"score": 0.4})
    again.restore(best.state())
    other.restore(best.state())
    assert again == best and other == BestSoFar("else", 3)
    again.restore({})  # of an earlier version
    assert again == best


def scored(values: list[float], seen: list[str]) -> Callable[[models.ClipModel], dict[str, float]]:
    """Return an evaluation that gives these values, one after the other."""

    def evaluate(clip: models.ClipModel) -> dict[str, float]:
        seen.append(models.weights_sha256(clip.model))
        return {"b/score": values[len(seen) - 1], "b/n": 8.0}

    return evaluate


@pytest.mark.parametrize("ema", ["0", "0.5"])
def test_the_best_model_is_kept(settings: Callable[..., Config], ema: str) -> None:
    seen: list[str] = []
    config = settings("train.max_steps=8", f"train.ema={ema}", *EVAL)
    run = train(config, scored([0.2, 0.7, 0.3, 0.7], seen))
    kept = models.create(f"local-dir:{run / runs.BEST}")
    assert models.weights_sha256(kept.model) == seen[1]
    assert json.loads((run / runs.BEST / runs.BEST_FILE).read_text()) == {
        "step": 4,
        "metric": "b/score",
        "value": 0.7,
    }
    assert models.weights_sha256(models.create(str(run / runs.MODEL)).model) == seen[3]


def test_the_run_ends_for_want_of_a_better_one(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    config = settings("train.max_steps=14", "train.patience=2", "train.save_every=2", *EVAL)
    run = train(config, scored([0.2, 0.7, 0.3, 0.7, 0.9], seen))
    assert len(seen) == 4 and runs.is_finished(run)
    assert [r["step"] for r in read(run / runs.METRICS_FILE) if "b/score" in r] == [2, 4, 6, 8]
    assert read(run / runs.METRICS_FILE)[-1]["step"] == 8
    assert models.weights_sha256(models.create(str(run / runs.MODEL)).model) == seen[3]
    output = capsys.readouterr().out
    assert "ended after step 8: 2 evaluations (train.patience) brought no better b/score" in output
    # Where the process dies before the model is written, the run is continued to the same end.
    assert runs.complete_checkpoints(run)[-1].name == "step-000006"


def test_a_resumed_run_remembers_the_best(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.max_steps=14", "train.patience=2", "train.save_every=3", *EVAL)
    config = settings(*words, "train.run_name=mine")
    step = Trainer.step

    def dying(self: Trainer, batch: Any) -> Any:
        return step(self, batch) if batch.step < 7 else 1 / 0

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", dying)
        with pytest.raises(ZeroDivisionError):
            train(config, scored([0.2, 0.7, 0.3], []))
    # It goes on from step 6, whose evaluation was the first that brought nothing better.
    seen: list[str] = []
    run = train(config, scored([0.6, 1.0], seen))
    assert len(seen) == 1 and read(run / runs.METRICS_FILE)[-1]["step"] == 8
    assert json.loads((run / runs.BEST / runs.BEST_FILE).read_text())["step"] == 4


def test_a_half_written_best_model_goes_with_the_next_start(
    settings: Callable[..., Config], tmp_path: Path
) -> None:
    left = tmp_path / "runs" / "mine" / ".best-x"
    config = settings("train.max_steps=4", "train.run_name=mine", "train.save_every=1", *EVAL)
    with pytest.raises(ZeroDivisionError):
        train(config, lambda clip: {"b/score": 1 / 0})
    left.mkdir()
    train(config, scored([0.1, 0.2], []))
    assert not left.exists()
