"""The moving average of the weights: by hand, skipped steps, in the model's place, and resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from clic import models, runs
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.training import Trainer, train
from clic.training.optim import MovingAverage

WEIGHTS = Path(runs.MODEL) / runs.OPEN_CLIP_WEIGHTS
WENT, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)


def scalar(value: float) -> nn.Module:
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    nn.init.constant_(model.weight, value)
    return model


def test_by_hand() -> None:
    model = scalar(1.0)
    average = MovingAverage(model, 0.75)
    nn.init.constant_(model.weight, 2.0)
    average.update(WENT)  # 0.75 * 1 + 0.25 * 2
    nn.init.constant_(model.weight, 5.25)
    average.update(SKIPPED)
    average.update(WENT)  # 0.75 * 1.25 + 0.25 * 5.25
    with average.in_place():
        assert model.weight.item() == 2.25
    assert model.weight.item() == 5.25
    assert list(average.state()) == ["weight"]  # what is frozen has no average


def test_the_weights_come_back_bit_for_bit_even_after_an_error() -> None:
    model = scalar(0.1)
    average = MovingAverage(model, 0.5)
    nn.init.constant_(model.weight, 0.3)
    kept = model.weight
    with pytest.raises(KeyError), average.in_place():
        assert model.weight is kept and model.weight.item() == pytest.approx(0.1)
        raise KeyError
    assert torch.equal(model.weight, torch.full((1, 1), 0.3))


def test_what_a_checkpoint_stores() -> None:
    average = MovingAverage(scalar(1.0), 0.5)
    other = MovingAverage(scalar(7.0), 0.5)
    other.restore(copy.deepcopy(average.state()))
    assert other.state()["weight"].item() == 1.0
    later = scalar(7.0)
    one = MovingAverage(later, 0.5)
    nn.init.constant_(later.weight, 9.0)
    one.restore({})  # of a run that had none: it starts here
    assert one.state()["weight"].item() == 9.0


def test_a_run_keeps_and_evaluates_the_average(settings: Callable[..., Config], tiny: Path) -> None:
    seen = []

    def evaluate(clip: models.ClipModel) -> dict[str, float]:
        seen.append(clip.model.ln_final.weight.detach().clone())
        return {"score": 1.0}

    words = ("train.max_steps=4", "train.save_every=2", "optim.lr=0.01", "train.ema=0.9")
    config = settings(*words, "train.eval_every=2", "train.eval_bench=[shapes++]")
    run = train(config, evaluate)
    name = "ln_final.weight"
    result = load_file(run / WEIGHTS)[name]
    assert torch.equal(seen[1], result)
    # By hand from the weights of every step.
    plain = settings("train.max_steps=4", "optim.lr=0.01")
    clip = models.create(str(tiny))
    trainer = Trainer(plain, clip, 4)
    models.set_mode(clip.model, trainer.trained)
    build = make_builder(plain, make_sources(plain), clip).build
    expected = clip.model.ln_final.weight.detach().clone()
    for step in range(4):
        trainer.step(build(step))
        expected = 0.9 * expected + 0.1 * clip.model.ln_final.weight.detach()
        if step == 1:
            torch.testing.assert_close(seen[0], expected)
            stored = run / "checkpoints" / "step-000002" / runs.OPEN_CLIP_WEIGHTS
            assert torch.equal(load_file(stored)[name], clip.model.ln_final.weight)
    torch.testing.assert_close(result, expected)
    assert not torch.allclose(result, clip.model.ln_final.weight)


def test_a_resumed_run_goes_on_exactly(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train.max_steps=5", "train.save_every=2", "optim.lr=0.01", "train.ema=0.9")
    whole = train(settings(*words, "train.run_name=whole"))
    step = Trainer.step

    def dying(self: Trainer, batch: Any) -> Any:
        return step(self, batch) if batch.step < 3 else 1 / 0

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", dying)
        with pytest.raises(ZeroDivisionError):
            train(settings(*words, "train.run_name=mine"))
    mine = train(settings(*words, "train.run_name=mine"))
    assert (mine / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
