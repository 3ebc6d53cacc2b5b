"""What the losses of a run reach: the rest is frozen, and steps that train nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.training import Trainer
from clic.training.trained_parts import check_trainable

UNIMODAL = ("loss.contrastive_weight=0", "loss.hard_negative_weight=0")


def test_what_no_loss_reaches_is_frozen_and_named(
    setup: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sampling.kinds=composite", "model.train=both", "model.train_logit_scale=true")
    run = setup(*UNIMODAL, *words)
    assert capsys.readouterr().out == (
        "frozen, since no loss of this run reaches them: logit_scale, visual.*\n"
    )
    before = run.weights()
    models.set_mode(run.clip.model, run.trainer.trained)
    run.trainer.step(run.builder.build(0))
    changed = {n for n, value in run.weights().items() if not torch.equal(before[n], value)}
    assert changed and not any(n.startswith(("visual.", "logit_scale")) for n in changed)
    setup(*UNIMODAL, "model.train=both", "model.train_logit_scale=true")
    assert capsys.readouterr().out == ""  # the single steps reach it all


def test_trying_what_a_loss_reaches_leaves_no_trace(setup: Callable[..., Any]) -> None:
    run = setup("model.train=both")
    fresh = models.create(run.trainer.config.model.name).model
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Trainer(run.trainer.config, run.clip, 2)
    assert torch.equal(torch.rand(3), expected)
    modes = [module.training for module in fresh.modules()]
    assert [module.training for module in run.clip.model.modules()] == modes
    for name, value in fresh.state_dict().items():
        assert torch.equal(run.clip.model.state_dict()[name], value), name
    assert all(parameter.grad is None for parameter in run.clip.model.parameters())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*UNIMODAL, "model.train=vision"], "model.train=vision .*trains nothing"),
        ([*UNIMODAL, "model.train=vision", "sampling.kinds=composite"], "trains nothing"),
        (["train.batch_size=1"], "train.batch_size=1 on 1 rank trains nothing: loss.single=clip"),
        (["train.batch_size=1", "sampling.kinds=single"], "train.batch_size=1"),
        (
            ["train.batch_size=1", "sampling.kinds=composite", "loss.composite=clip"],
            "loss.composite=clip",
        ),
        (
            [
                "train.batch_size=1",
                "sampling.kinds=composite",
                "loss.hard_negative_weight=0",
                "loss.unimodal_weight=0",
            ],
            "loss.composite=clic",
        ),
    ],
)
def test_steps_that_would_train_nothing_are_refused(
    settings: Callable[..., Config], words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trainable(settings(*words), 1)


@pytest.mark.parametrize(
    "words",
    [
        ["sampling.kinds=composite"],
        ["sampling.kinds=composite", *UNIMODAL],
        ["sampling.kinds=composite", "loss.contrastive_weight=0", "loss.unimodal_weight=0"],
        ["+experiment=shapes_negclip"],
    ],
    ids=["clic", "unimodal", "hard negatives", "softmax with negatives"],
)
def test_one_image_has_a_loss_where_there_is_more_than_the_others(
    setup: Callable[..., Any], words: list[str]
) -> None:
    run = setup(*words, "train.batch_size=1")
    check_trainable(run.trainer.config, 1)
    models.set_mode(run.clip.model, run.trainer.trained)
    losses = [run.trainer.step(run.builder.build(step))["loss"] for step in range(4)]
    assert max(losses) > 0  # a row without a negative has none with the softmax


def test_one_image_on_each_of_two_ranks_is_a_batch(settings: Callable[..., Config]) -> None:
    check_trainable(settings("train.batch_size=1", "sampling.kinds=single"), 2)


def test_one_image_of_a_sigmoid_model_has_a_loss(
    settings: Callable[..., Config], build_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = models.save(build_tiny(tmp_path / "cfg", init_logit_bias=-10.0), tmp_path / "sigmoid")
    words = ("train.batch_size=1", "sampling.kinds=single", f"model.name={folder}")
    check_trainable(settings(*words), 1)
    with pytest.raises(ConfigError, match=r"loss\.single=softmax_negatives needs a softmax"):
        check_trainable(settings("loss.single=softmax_negatives", *words), 1)
