"""Parameter groups, the optimiser, and the ends of every schedule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from clic.errors import ConfigError
from clic.training.optim import (
    SCHEDULES,
    SkippedSteps,
    adamw,
    make_schedule,
    param_groups,
    rate_factors,
    set_lr,
    step_if_finite,
)


class Tower(nn.Module):
    """One of each kind of parameter that CLIP models have."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor([-10.0]))
        self.class_embedding = nn.Parameter(torch.randn(4))
        self.positional_embedding = nn.Parameter(torch.randn(3, 4))
        self.relative_position_bias_table = nn.Parameter(torch.randn(3, 4))
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False)
        self.ln_pre = nn.LayerNorm(4)
        self.bn = nn.BatchNorm2d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.again = self.ln_pre


def names(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    known = {id(p): n for n, p in model.named_parameters()}
    return [known[id(p)] for p in parameters]


def test_weight_decay_acts_on_trained_matrices_only() -> None:
    model = Tower()
    decayed, kept = param_groups(model, 0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert names(model, decayed["params"]) == [
        "positional_embedding",
        "conv1.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]
    assert names(model, kept["params"]) == [
        "logit_scale",
        "logit_bias",
        "class_embedding",
        "relative_position_bias_table",
        "ln_pre.weight",
        "ln_pre.bias",
        "bn.weight",
        "bn.bias",
        "attention.in_proj_bias",
        "attention.out_proj.bias",
    ]


def layered() -> nn.Module:
    """Return a model with the names of a CLIP with a ResNet and two text layers."""
    parts = {"visual": ("conv1", "layer1", "layer2", "attnpool")}
    model = nn.Module()
    model.visual = nn.ModuleDict({name: nn.Linear(2, 2) for name in parts["visual"]})
    model.transformer = nn.ModuleDict({"resblocks": nn.ModuleList([nn.Linear(2, 2)] * 0)})
    model.transformer.resblocks.extend(nn.Linear(2, 2) for _ in range(2))
    model.token_embedding, model.ln_final = nn.Embedding(3, 2), nn.LayerNorm(2)
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    return model


def test_rates_by_layer_by_hand() -> None:
    model = layered()
    model.visual.conv1.requires_grad_(False)
    factors = rate_factors(model, layer_decay=0.5, vision=0.1)
    assert factors == pytest.approx({
        "logit_scale": 1.0,
        "visual.layer1.weight": 0.1 * 0.25, "visual.layer1.bias": 0.1 * 0.25,
        "visual.layer2.weight": 0.1 * 0.5, "visual.layer2.bias": 0.1 * 0.5,
        "visual.attnpool.weight": 0.1, "visual.attnpool.bias": 0.1,
        "token_embedding.weight": 0.125,
        "transformer.resblocks.0.weight": 0.25, "transformer.resblocks.0.bias": 0.25,
        "transformer.resblocks.1.weight": 0.5, "transformer.resblocks.1.bias": 0.5,
        "ln_final.weight": 1.0, "ln_final.bias": 1.0,
    })  # fmt: skip
    assert set(rate_factors(model).values()) == {1.0}


def test_groups_have_the_rates_of_their_parameters() -> None:
    model = layered()
    factors = rate_factors(model, layer_decay=0.5, vision=0.1)
    optimizer = adamw(model, lr=1.0, weight_decay=0.1, factors=factors)
    set_lr(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.2 * factors[name]), name


def test_rates_of_a_tower_without_layers() -> None:
    model = layered()
    model.transformer = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"optim\.layer_decay=0\.5 needs a text tower"):
        rate_factors(model, layer_decay=0.5)
    model.transformer.requires_grad_(False)
    model.token_embedding.requires_grad_(False)
    model.ln_final.requires_grad_(False)
    assert rate_factors(model, layer_decay=0.5)["visual.layer2.bias"] == 0.5
    assert rate_factors(layered(), vision=0.1)["ln_final.bias"] == 1.0


def test_no_empty_group() -> None:
    assert len(param_groups(nn.LayerNorm(3), 0.1)) == 1
    assert len(param_groups(nn.Linear(3, 3, bias=False), 0.1)) == 1


def test_nothing_to_train() -> None:
    with pytest.raises(ConfigError, match=r"model\.train"):
        adamw(nn.Linear(2, 2).requires_grad_(False), lr=1e-3, weight_decay=0.1)


def test_adamw_first_step_by_hand() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(1.0)
    optimizer = adamw(model, lr=0.1, weight_decay=0.5)
    set_lr(optimizer, 0.01)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), -3.0)
    optimizer.step()
    # The first step is lr * sign(gradient), after a decay of lr * weight_decay of the matrix.
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.01 * 0.5) - 0.01, rel=1e-6)
    assert model.bias.item() == pytest.approx(1.0 + 0.01, rel=1e-6)


def test_fused_steps_are_those_of_the_plain_loop() -> None:
    def run(fused: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2))
        if fused:
            optimizer = adamw(model, lr=1e-2, weight_decay=0.1, eps=1e-6)
            assert optimizer.defaults["fused"]
        else:
            groups = param_groups(model, 0.1)
            optimizer = torch.optim.AdamW(
                groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, fused=False, foreach=False
            )
        for step in range(20):
            set_lr(optimizer, 1e-2 / (step + 1))
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    for left, right in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_scaler_skips_a_fused_step_with_infinite_gradients(device: str) -> None:
    model = nn.Linear(4, 4).to(device)
    optimizer = adamw(model, lr=1e-2, weight_decay=0.1)
    assert optimizer.defaults["fused"]
    scaler = torch.amp.GradScaler(device)
    before = model.weight.detach().clone()
    scaler.scale(model(torch.full((1, 4), float("inf"), device=device)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(model.weight, before)
    optimizer.zero_grad()
    scaler.scale(model(torch.ones(1, 4, device=device)).sum()).backward()
    scaler.step(optimizer)
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grad_clip", [None, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e38])
def test_a_step_with_gradients_that_are_not_finite_changes_nothing(
    bad: float, grad_clip: float | None, device: str
) -> None:
    """Of the last, the gradients are finite and their norm is not."""

    def run(steps: list[float]) -> tuple[list[torch.Tensor], dict[str, Any], list[float]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).to(device)
        optimizer = adamw(model, lr=1e-2, weight_decay=0.1)
        skipped = []
        for value in steps:
            for number, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.5 + number)
            model[0].weight.grad[1, :2] = value
            skipped.append(step_if_finite(optimizer, model.parameters(), grad_clip)[1].item())
        return list(model.parameters()), optimizer.state_dict(), skipped

    weights, state, skipped = run([0.3, bad, 0.4, bad])
    expected, expected_state, _ = run([0.3, 0.4])
    assert skipped == [0.0, 1.0, 0.0, 1.0]
    for found, value in zip(weights, expected, strict=True):
        assert torch.equal(found, value)
    for number, moments in expected_state["state"].items():
        for name, value in moments.items():
            assert torch.equal(state["state"][number][name], value)


def test_the_norm_is_that_before_clipping() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = adamw(model, lr=1e-2, weight_decay=0.1)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    norm, _ = step_if_finite(optimizer, model.parameters(), 1.0)
    assert norm.item() == 5.0
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))


def test_skipped_steps_in_a_row_are_counted() -> None:
    steps = SkippedSteps(torch.device("cpu"))
    assert steps.read() == (0, 0)
    for number, skipped in enumerate([1, 1, 0, 1], 1):
        steps.add(torch.tensor(float(skipped)), number)
    assert steps.read() == (2, 4)
    assert steps.read() == (1, 4)  # the one that goes on
    steps.add(torch.tensor(1.0), 5)
    assert steps.read() == (2, 5)
    steps.add(torch.tensor(0.0), 6)
    assert steps.read() == (2, 5)
    assert steps.read() == (0, 5)


# Schedules


def rates(name: str, steps: int, **settings: float | int) -> list[float]:
    at = make_schedule(name, steps=steps, **settings)
    return [at(step) for step in range(steps)]


def test_clic_by_hand() -> None:
    found = rates("clic", 7, lr=3.0, warmup_steps=3, lr_start=1.0, lr_end=0.5)
    half = math.sqrt(0.5)
    assert found == pytest.approx(
        [1.0, 2.0, 3.0, 3.0, 0.5 + 1.25 * (1 + half), 1.75, 0.5 + 1.25 * (1 - half)]
    )


def test_warmup_cosine_by_hand() -> None:
    half = math.sqrt(0.5)
    found = rates("warmup_cosine", 6, lr=2.0, warmup_steps=2)
    assert found == pytest.approx([1.0, 2.0, 2.0, 1 + half, 1.0, 1 - half])


def test_constant_by_hand() -> None:
    assert rates("constant", 5, lr=3.0, warmup_steps=3) == pytest.approx([1, 2, 3, 3, 3])
    assert rates("constant", 2, lr=3.0, warmup_steps=0) == [3.0, 3.0]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_no_warmup_starts_at_the_peak(name: str) -> None:
    assert rates(name, 1, lr=2.0, warmup_steps=0) == [2.0]
    assert rates(name, 10, lr=2.0, warmup_steps=0)[0] == 2.0


def test_run_that_ends_within_its_warmup() -> None:
    # A shortened run keeps the warm-up of the long one: it never meets its peak.
    assert rates("warmup_cosine", 2, lr=4.0, warmup_steps=4) == [1.0, 2.0]
    assert rates("constant", 2, lr=4.0, warmup_steps=4) == [1.0, 2.0]
    assert rates("clic", 2, lr=4.0, warmup_steps=5, lr_start=2.0) == [2.0, 2.5]


def test_run_that_is_all_warmup() -> None:
    assert rates("warmup_cosine", 4, lr=4.0, warmup_steps=4) == [1.0, 2.0, 3.0, 4.0]
    assert rates("clic", 3, lr=4.0, warmup_steps=3, lr_start=2.0) == [2.0, 3.0, 4.0]


def test_clic_warmup_of_one_step_is_its_lower_end() -> None:
    assert rates("clic", 3, lr=4.0, warmup_steps=1, lr_start=2.0) == pytest.approx([2, 4, 2])


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 7, 8, 9, 100])
def test_rates_stay_between_zero_and_the_peak(name: str, warmup_steps: int) -> None:
    found = rates(name, 8, lr=1.0, warmup_steps=warmup_steps)
    assert all(0.0 <= rate <= 1.0 for rate in found)


@pytest.mark.parametrize("step", [-1, 5])
def test_step_outside_the_run(step: int) -> None:
    at = make_schedule("clic", lr=1.0, steps=5)
    with pytest.raises(ValueError, match=rf"step {step} is outside .* 0\.\.4"):
        at(step)


@pytest.mark.parametrize("name", ["warmup_cosine", "constant"])
@pytest.mark.parametrize("setting", ["lr_start", "lr_end"])
def test_setting_that_the_schedule_does_not_use(name: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"optim\.{setting}=0\.0 has no effect .*{name}"):
        make_schedule(name, lr=1.0, steps=5, **{setting: 0.0})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 0}, r"train\.max_steps=0"),
        ({"warmup_steps": -1}, r"optim\.warmup_steps=-1"),
        ({"lr": -1.0}, r"optim\.lr=-1"),
        ({"lr": math.nan}, r"optim\.lr=nan"),
        ({"lr_end": math.inf}, r"optim\.lr_end=inf"),
        ({"lr_start": -1e-3}, r"optim\.lr_start=-0\.001"),
    ],
)
def test_value_that_cannot_be(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make_schedule("clic", **{"lr": 1.0, "steps": 5, **settings})


def test_misspelt_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'warmup_cosine'"):
        make_schedule("warmup_cosin", lr=1.0, steps=5)
