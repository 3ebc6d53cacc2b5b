"""Self-distillation in a run: what is copied, what stays, and that a resumed run is exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clic import models
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.training import Trainer
from clic.training.frozen_base import FrozenBase
from clic.types import Batch

WEIGHT = "train.distill_weight=0.7"


def start(config: Config, steps: int = 6) -> tuple[Trainer, Callable[[int], Batch]]:
    clip = models.create(config.model.name)
    trainer = Trainer(config, clip, steps)
    models.set_mode(clip.model, trainer.trained)
    return trainer, make_builder(config, make_sources(config), clip).build


def pixels(count: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, 32, 32)


@pytest.mark.parametrize("train", ["text", "vision", "both", "text.last:1"])
def test_only_what_trains_is_copied(settings: Callable[..., Config], train: str) -> None:
    trainer, _ = start(settings(f"model.train={train}", WEIGHT))
    assert trainer.passes.base is not None
    own = dict(trainer.clip.model.named_parameters())
    theirs = dict(trainer.passes.base.features.model.named_parameters())
    assert own.keys() == theirs.keys()
    for name, parameter in own.items():
        assert (theirs[name] is parameter) != parameter.requires_grad, name
        assert not theirs[name].requires_grad or theirs[name] is parameter
    assert not any(module.training for module in trainer.passes.base.features.model.modules())


@pytest.mark.parametrize("train", ["text", "vision", "both"])
def test_its_features_are_those_of_the_start(settings: Callable[..., Config], train: str) -> None:
    config = settings(f"model.train={train}", WEIGHT, "optim.lr=0.05")
    base = models.create(config.model.name)
    trainer, build = start(config)
    tokens = base.tokenizer(["a", "b c", "d e"]).view(3, 1, -1)
    with models.evaluation_mode(base.model), torch.no_grad():
        images = base.model.encode_image(pixels(), normalize=True)
        texts = base.model.encode_text(tokens[:, 0], normalize=True)
    for step in range(3):
        trainer.step(build(step))
    assert trainer.passes.base is not None
    found_images, found_texts = trainer.passes.base(pixels(), tokens)
    assert (found_images is None, found_texts is None) == (train == "text", train == "vision")
    if found_images is not None:
        torch.testing.assert_close(found_images, images)
    if found_texts is not None:
        torch.testing.assert_close(found_texts[:, 0], texts)
        assert not found_texts.requires_grad


def test_a_frozen_tower_runs_once(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, build = start(settings("model.train=text", WEIGHT))
    calls = []
    trainer.clip.model.visual.register_forward_hook(lambda *_: calls.append("own"))
    assert trainer.passes.base is not None
    trainer.passes.base.features.model.visual.register_forward_hook(lambda *_: calls.append("base"))
    trainer.step(build(0))
    assert calls == ["own"]


def test_the_term_is_reported_and_holds_the_features_back(settings: Callable[..., Config]) -> None:
    distances = {}
    for weight in (1e-6, 100.0):
        trainer, build = start(settings(f"train.distill_weight={weight}", "optim.lr=0.003"))
        reports = [trainer.step(build(step)) for step in range(6)]
        assert abs(float(reports[0]["composite/distillation"])) < 1e-6  # nothing has moved yet
        assert "single/distillation" in reports[1]
        distances[weight] = float(reports[4]["composite/distillation"])
    assert distances[1e-6] > 1e-4
    assert distances[100.0] < distances[1e-6] / 2


def test_without_a_weight_nothing_is_added(settings: Callable[..., Config]) -> None:
    trainer, build = start(settings())
    assert trainer.passes.base is None
    assert "composite/distillation" not in trainer.step(build(0))


def test_a_resumed_run_goes_on_exactly(settings: Callable[..., Config]) -> None:
    config = settings(WEIGHT, "model.train=both", "optim.lr=0.01")

    def weights(trainer: Trainer) -> dict[str, Any]:
        return copy.deepcopy(trainer.clip.model.state_dict())

    whole, build = start(config)
    for step in range(6):
        if step == 3:
            kept, state = weights(whole), copy.deepcopy(whole.state())
        whole.step(build(step))
    again, build = start(config)
    again.clip.model.load_state_dict(kept)
    again.restore(state)
    for step in range(3, 6):
        again.step(build(step))
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


def test_a_checkpoint_holds_no_second_model(settings: Callable[..., Config]) -> None:
    with_base, _ = start(settings(WEIGHT, "model.train=both"))
    without, _ = start(settings("model.train=both"))
    assert with_base.clip.model.state_dict().keys() == without.clip.model.state_dict().keys()
    assert vars(with_base.state()).keys() == vars(without.state()).keys()
    assert {n for n, _ in with_base.passes.losses.named_parameters()} == {
        n for n, _ in without.passes.losses.named_parameters()
    }


def test_loading_weights_leaves_the_base_alone(settings: Callable[..., Config]) -> None:
    clip = models.create(settings().model.name)
    trained = models.set_trainable(clip.model, "text", False)
    base = FrozenBase(clip, trained)
    tokens = clip.tokenizer(["a b"]).view(1, 1, -1)
    before = base(pixels(1), tokens)[1]
    state = {n: v + 0.1 if v.is_floating_point() else v for n, v in clip.model.state_dict().items()}
    clip.model.load_state_dict(state)
    after = base(pixels(1), tokens)[1]
    assert before is not None and after is not None and torch.equal(before, after)
