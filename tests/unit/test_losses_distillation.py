"""The distance from the frozen base's features, and an objective with it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from clic.errors import ConfigError
from clic.losses import ClicObjective, ClipObjective, Distilled, distillation_loss
from clic.types import Features


def unit(degrees: list[float]) -> torch.Tensor:
    """Return unit vectors in the plane, float64 [N, 2]."""
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def test_by_hand() -> None:
    # Angles of 60, 90, 180 and 0 degrees from the base: 1 - cos is 0.5, 1, 2 and 0.
    features, base = unit([60, 90, 180, 0]), unit([0, 0, 0, 0])
    assert distillation_loss(features, base).item() == pytest.approx(3.5 / 4, abs=1e-15)
    by_slot = distillation_loss(features.view(2, 2, 2), base.view(2, 2, 2))
    assert by_slot.item() == pytest.approx(3.5 / 4, abs=1e-15)


def test_gradient_by_hand() -> None:
    features = unit([60, 90]).requires_grad_()
    base = unit([10, 20])
    distillation_loss(features, base).backward()
    torch.testing.assert_close(features.grad, -base / 2, rtol=0, atol=1e-15)


def test_features_that_have_not_moved_cost_nothing() -> None:
    torch.manual_seed(0)
    features = normalize(torch.randn(5, 3, 16), dim=-1)
    assert abs(distillation_loss(features, features).item()) < 1e-6


def made() -> Features:
    torch.manual_seed(0)
    return Features(
        image_features=normalize(torch.randn(3, 8).double(), dim=-1),
        positive_features=normalize(torch.randn(3, 2, 8).double(), dim=-1),
        logit_scale=torch.tensor(10.0).double(),
    )


@pytest.mark.parametrize("images", [False, True])
def test_an_objective_with_it(images: bool) -> None:
    plain, other = made(), normalize(torch.randn(3, 8).double(), dim=-1)
    captions = plain.positive_features.flip(0)
    features = replace(plain, base_positives=captions, base_images=other if images else None)
    expected = 1 - (plain.positive_features * captions).sum(-1).mean()
    if images:
        expected = expected + 1 - (plain.image_features * other).sum(-1).mean()
    objective = ClicObjective(hard_negative_weight=0.0)
    alone, output = objective(plain), Distilled(objective, 0.3)(features)
    torch.testing.assert_close(output.total, alone.total + 0.3 * expected)
    torch.testing.assert_close(output.terms["distillation"], expected)
    assert {**output.terms, "distillation": None} == {**alone.terms, "distillation": None}


def test_the_gradient_reaches_the_features_of_both_towers() -> None:
    images, captions = made().image_features, made().positive_features
    bases = normalize(torch.randn(3, 8).double(), dim=-1), captions.flip(0)
    plain = replace(made(), logit_scale=torch.zeros(()).double())  # the objective has no gradient
    features = replace(
        plain,
        image_features=images.requires_grad_(),
        positive_features=captions.requires_grad_(),
        base_images=bases[0],
        base_positives=bases[1],
    )
    Distilled(ClipObjective(), 0.3)(features).total.backward()
    torch.testing.assert_close(images.grad, -0.3 * bases[0] / 3)
    torch.testing.assert_close(captions.grad, -0.3 * bases[1] / 6)


def test_features_without_a_base_are_left_alone() -> None:
    alone, output = ClipObjective()(made()), Distilled(ClipObjective(), 2.0)(made())
    assert output.total == alone.total and output.terms == alone.terms


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_weights_that_cannot_be(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"train\.distill_weight"):
        Distilled(ClipObjective(), weight)
