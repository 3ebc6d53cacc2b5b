"""The terms of the losses, of each kind of hard negatives too, worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from clic.losses import (
    ClicObjective,
    SigmoidNegativesObjective,
    hard_negative_loss,
    image_to_text,
    image_to_text_with_negatives,
    sigmoid_loss,
    sigmoid_negatives_loss,
    text_to_image,
    unimodal_loss,
)
from clic.types import Features

# Two images and their captions on the axes of a plane: cosines are 1 and 0.
EYE = torch.eye(2, dtype=torch.float64)
TWO = torch.tensor(2.0, dtype=torch.float64)
ALL = torch.ones(2, 1, dtype=torch.bool)
ONE = torch.ones(1, dtype=torch.float64)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# Hand-worked values


def test_image_to_text() -> None:
    # Each image: own logit 2, other logit 0: -log(e^2 / (e^2 + 1)) = log(1 + e^-2).
    found = image_to_text(EYE, EYE.unsqueeze(1), TWO, first=0)
    assert found.item() == pytest.approx(softplus(-2), rel=1e-12)


def test_image_to_text_averages_over_slots() -> None:
    # Slot 1 has the captions exchanged: own logit 0, other logit 2: log(1 + e^2).
    captions = torch.stack([EYE, EYE.flip(0)], 1)
    found = image_to_text(EYE, captions, TWO, first=0)
    assert found.item() == pytest.approx((softplus(-2) + softplus(2)) / 2, rel=1e-12)


def test_directions_differ() -> None:
    # Both captions are on the first axis. Images: (2, 2) and (0, 0): log 2 each.
    # Captions: (own 2, other 0) and (own 0, other 2).
    captions = EYE[[0, 0]].unsqueeze(1)
    to_text = image_to_text(EYE, captions, TWO, first=0)
    to_image = text_to_image(captions, EYE, TWO, first=0)
    assert to_text.item() == pytest.approx(math.log(2), rel=1e-12)
    assert to_image.item() == pytest.approx((softplus(-2) + softplus(2)) / 2, rel=1e-12)


def test_first_row_of_a_rank() -> None:
    # This rank holds the second row only, so its own candidate is number 1.
    captions = EYE.unsqueeze(1)
    assert image_to_text(EYE[1:], captions, TWO, first=1).item() == pytest.approx(softplus(-2))
    assert image_to_text(EYE[1:], captions, TWO, first=0).item() == pytest.approx(softplus(2))
    assert text_to_image(captions[1:], EYE, TWO, first=1).item() == pytest.approx(softplus(-2))


def test_sigmoid() -> None:
    # For each image: own pair at 2 - 1, other pair at 0 - 1, summed, not averaged.
    found = sigmoid_loss(EYE, EYE.unsqueeze(1), TWO, torch.tensor(-1.0), first=0)
    assert found.item() == pytest.approx(softplus(-1) + softplus(-1), rel=1e-12)
    second = sigmoid_loss(EYE[1:], EYE.unsqueeze(1), TWO, torch.tensor(-0.5), first=1)
    assert second.item() == pytest.approx(softplus(-1.5) + softplus(-0.5), rel=1e-12)


def test_sigmoid_negatives() -> None:
    # The negative (0.6, 0.8) is at 1.2 - 1 from the first image and at 1.6 - 1 from the second;
    # that of the second image is missing.
    negatives = torch.tensor([[[0.6, 0.8]], [[math.nan, 0.0]]], dtype=torch.float64)
    mask = torch.tensor([[True], [False]])
    bias = torch.tensor(-1.0)
    found = sigmoid_negatives_loss(EYE, negatives.nan_to_num(), mask, TWO, bias)
    assert found.item() == pytest.approx((softplus(0.2) + softplus(0.6)) / 2, rel=1e-12)
    given = Features(EYE, EYE.unsqueeze(1), TWO, negatives, mask, bias)
    total, terms = dataclasses.astuple(SigmoidNegativesObjective()(given))
    # Four pairs of softplus(-1): own ones at 2 - 1, others at 0 - 1.
    assert terms["pairs"].item() == pytest.approx(2 * softplus(-1), rel=1e-12)
    assert terms["negatives"].item() == pytest.approx(0.9178134099337387, rel=1e-12)
    assert total.item() == pytest.approx(1.5443367849701843, rel=1e-12)
    assert terms["contrastive"].item() == total.item()


def test_gradient_of_sigmoid_negatives_by_hand() -> None:
    # d softplus(x) / dx = sigmoid(x), here at 0.2 and 0.6, each with half the weight.
    negatives = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]]], dtype=torch.float64).requires_grad_()
    mask, bias = torch.tensor([[True], [False]]), torch.tensor(-1.0, requires_grad=True)
    sigmoid_negatives_loss(EYE, negatives, mask, TWO, bias).backward()
    first, second = 1 / (1 + math.exp(-0.2)), 1 / (1 + math.exp(-0.6))
    assert bias.grad.item() == pytest.approx((first + second) / 2, rel=1e-6)
    # Each image's own direction, times the scale of 2.
    expected = torch.tensor([[[first, second]], [[0.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(negatives.grad, expected)


def test_hard_negative() -> None:
    # Image 0: positive 2, negative 0. Image 1: positive 2, negative 2.
    negatives = EYE[[1, 1]].unsqueeze(1)
    two = torch.tensor(2.0)
    found = hard_negative_loss(EYE, EYE.unsqueeze(1), negatives, ALL, TWO, ONE, two)
    assert found.item() == pytest.approx((softplus(-2) + math.log(2)) / 2, rel=1e-12)


def test_hard_negative_is_a_mean_over_valid_pairs_only() -> None:
    mask = torch.tensor([[True], [False]])
    negatives = EYE[[1, 1]].unsqueeze(1)
    positives = torch.stack([EYE, EYE.flip(0)], 1)
    found = hard_negative_loss(EYE, positives, negatives, mask, TWO, ONE, torch.tensor(1.0))
    assert found.item() == pytest.approx((softplus(-2) + math.log(2)) / 2, rel=1e-12)


def test_hard_negative_keeps_its_precision_where_it_is_tiny() -> None:
    scale = torch.tensor(30.0, dtype=torch.float64)
    negatives = EYE.flip(0).unsqueeze(1)
    two = torch.tensor(2.0)
    tiny = hard_negative_loss(EYE, EYE.unsqueeze(1), negatives, ALL, scale, ONE, two)
    huge = hard_negative_loss(EYE, negatives, EYE.unsqueeze(1), ALL, scale, ONE, two)
    assert tiny.item() == pytest.approx(math.log1p(math.exp(-30)), rel=1e-9)
    assert huge.item() == pytest.approx(30 + math.log1p(math.exp(-30)), rel=1e-15)


def test_unimodal() -> None:
    # Squared distances 0 and 2, summed over D.
    assert unimodal_loss(EYE, EYE[[0, 0]]).item() == pytest.approx(1.0, rel=1e-12)


def test_softmax_negatives() -> None:
    # Every image meets its caption (2), the other one (0), and the one valid negative, which is
    # the second axis: logit 0 for image 0, logit 2 for image 1.
    negatives = EYE[[1, 0]].unsqueeze(1)
    mask = torch.tensor([[True], [False]])
    found = image_to_text_with_negatives(EYE, EYE.unsqueeze(1), negatives, mask, TWO, first=0)
    image0 = math.log(1 + 2 * math.exp(-2))
    image1 = math.log(2 + math.exp(-2))
    assert found.item() == pytest.approx((image0 + image1) / 2, rel=1e-12)


# Kinds of hard negatives


def two_kinds() -> Features:
    """Two positives and two negatives, of which the second image has the first only."""
    return Features(
        EYE,
        torch.stack([EYE, EYE.flip(0)], 1),
        TWO,
        torch.stack([EYE[[1, 1]], EYE[[0, 1]]], 1),
        torch.tensor([[True, True], [True, False]]),
        negative_kinds=("swap", "layout"),
    )


# Logits of the positives are 2 and 0; of the negatives 0 and 2 (image 0), and 2 (image 1).
SWAP = softplus(-2) + math.log(2) + math.log(2) + softplus(2)
LAYOUT = math.log(2) + softplus(2)


def test_kinds_are_weighted() -> None:
    # Two positives against two swaps of weight 1 and one layout negative of weight 3.
    terms = ClicObjective(negative_weights={"layout": 3.0})(two_kinds()).terms
    expected = (SWAP + 3 * LAYOUT) / (2 * (1 * 2 + 3 * 1))
    assert terms["hard_negative"].item() == pytest.approx(expected, rel=1e-12)


def test_terms_of_the_kinds_are_plain_means() -> None:
    terms = ClicObjective(negative_weights={"layout": 3.0})(two_kinds()).terms
    assert [name for name in terms if name.startswith("hard_negative")] == [
        "hard_negative",
        "hard_negative/swap",
        "hard_negative/layout",
    ]
    assert terms["hard_negative/swap"].item() == pytest.approx(SWAP / 4, rel=1e-12)
    assert terms["hard_negative/layout"].item() == pytest.approx(LAYOUT / 2, rel=1e-12)


def test_only_the_asked_positives_enter_the_terms_of_the_kinds() -> None:
    terms = ClicObjective(hard_negative_positives=1)(two_kinds()).terms
    expected = (softplus(-2) + math.log(2)) / 2
    assert terms["hard_negative/swap"].item() == pytest.approx(expected, rel=1e-12)
    assert terms["hard_negative/layout"].item() == pytest.approx(math.log(2), rel=1e-12)


def test_slots_of_one_kind_share_their_term() -> None:
    given = dataclasses.replace(two_kinds(), negative_kinds=("swap", "swap"))
    terms = ClicObjective(negative_weights={"swap": 2.0})(given).terms
    assert terms["hard_negative"].item() == pytest.approx((SWAP + LAYOUT) / 6, rel=1e-12)
    assert torch.equal(terms["hard_negative/swap"], terms["hard_negative"])


def test_a_kind_without_negatives() -> None:
    mask = torch.tensor([[True, False], [True, False]])
    given = dataclasses.replace(two_kinds(), negative_mask=mask)
    terms = ClicObjective(negative_weights={"layout": 3.0})(given).terms
    assert terms["hard_negative/layout"].item() == 0.0
    assert torch.equal(terms["hard_negative"], terms["hard_negative/swap"])
    none = dataclasses.replace(given, negative_mask=torch.zeros_like(mask))
    terms = ClicObjective(negative_weights={"layout": 3.0})(none).terms
    assert {v.item() for n, v in terms.items() if n.startswith("hard_negative")} == {0.0}
