"""Losses against values worked by hand, precision, masks, and settings that cannot work."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from clic.config.train_settings import LossConfig
from clic.errors import ConfigError
from clic.losses import (
    OBJECTIVES,
    ClicObjective,
    ClipObjective,
    SigmoidNegativesObjective,
    SoftmaxNegativesObjective,
    hard_negative_loss,
    image_to_text,
    image_to_text_with_negatives,
    sigmoid_loss,
    sigmoid_negatives_loss,
    text_to_image,
    unimodal_loss,
)
from clic.losses.registry import KINDS, SIGMOID, SOFTMAX
from clic.types import Features

# Two images and their captions on the axes of a plane: cosines are 1 and 0.
EYE = torch.eye(2, dtype=torch.float64)
TWO = torch.tensor(2.0, dtype=torch.float64)
ALL = torch.ones(2, 1, dtype=torch.bool)
ONE = torch.ones(1, dtype=torch.float64)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1).to(dtype)


def features(
    batch: int = 5,
    positives: int = 3,
    negatives: int = 2,
    bias: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Features:
    mask = torch.rand(batch, negatives, generator=torch.Generator().manual_seed(3)) < 0.6
    return Features(
        unit(batch, 16, seed=0, dtype=dtype).requires_grad_(),
        unit(batch, positives, 16, seed=1, dtype=dtype).requires_grad_(),
        torch.tensor(7.0, dtype=dtype, requires_grad=True),
        unit(batch, negatives, 16, seed=2, dtype=dtype).requires_grad_() if negatives else None,
        mask if negatives else None,
        torch.tensor(-3.0, dtype=dtype, requires_grad=True) if bias else None,
    )


def sigmoid(name: str) -> bool:
    """Return whether an objective needs a bias."""
    return SIGMOID in OBJECTIVES[name].needs


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


def test_sigmoid_negatives_refuse_a_softmax() -> None:
    with pytest.raises(ConfigError, match="needs a model with a logit_bias"):
        SigmoidNegativesObjective()(features())


def test_sigmoid_negatives_without_negatives_are_the_sigmoid_loss() -> None:
    without = features(negatives=0, bias=True)
    assert torch.equal(SigmoidNegativesObjective()(without).total, ClipObjective()(without).total)


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


def test_clic_is_the_weighted_sum_of_its_terms() -> None:
    out = ClicObjective(0.3, 0.7, 0.2)(features())
    assert list(out.terms) == [
        "contrastive",
        "image_to_text",
        "text_to_image",
        "hard_negative",
        "unimodal",
    ]
    terms = out.terms
    expected = 0.3 * terms["contrastive"] + 0.7 * terms["hard_negative"] + 0.2 * terms["unimodal"]
    assert out.total.item() == pytest.approx(expected.item(), rel=1e-12)
    directions = (terms["image_to_text"] + terms["text_to_image"]) / 2
    assert terms["contrastive"].item() == pytest.approx(directions.item(), rel=1e-12)
    assert out.total.requires_grad
    assert not any(term.requires_grad for term in terms.values())


def test_clip_looks_at_no_hard_negative() -> None:
    given = features()
    without = dataclasses.replace(given, negative_features=None, negative_mask=None)
    assert torch.equal(ClipObjective()(given).total, ClipObjective()(without).total)
    assert torch.equal(SoftmaxNegativesObjective()(without).total, ClipObjective()(without).total)


# Terms that are off, or have no data


@pytest.mark.parametrize(
    ("weights", "absent"),
    [
        ((0.0, 0.5, 1.0), {"contrastive", "image_to_text", "text_to_image"}),
        ((0.5, 0.0, 1.0), {"hard_negative"}),
        ((0.5, 0.5, 0.0), {"unimodal"}),
    ],
)
def test_term_of_weight_zero_is_absent_and_not_computed(
    weights: tuple[float, float, float], absent: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = {"contrastive": "_contrastive", "hard_negative": "hard_negative_loss"}
    functions["unimodal"] = "unimodal_loss"
    for term in absent & functions.keys():
        monkeypatch.delattr(f"clic.losses.objectives.{functions[term]}")
    terms = ClicObjective(*weights)(features()).terms
    every = {"contrastive", "image_to_text", "text_to_image", "hard_negative", "unimodal"}
    assert terms.keys() == every - absent


def test_term_without_data_is_absent() -> None:
    assert "hard_negative" not in ClicObjective()(features(negatives=0)).terms
    assert "unimodal" not in ClicObjective()(features(positives=1)).terms


def test_no_term_left_is_an_error() -> None:
    objective = ClicObjective(0.0, 0.5, 1.0)
    with pytest.raises(ConfigError, match=r"loss\.contrastive_weight"):
        objective(features(positives=1, negatives=0))


def test_no_mask_means_that_all_negatives_are_valid() -> None:
    given = features()
    filled = dataclasses.replace(given, negative_mask=torch.ones(5, 2, dtype=torch.bool))
    none = dataclasses.replace(given, negative_mask=None)
    for objective in (ClicObjective(), SoftmaxNegativesObjective()):
        assert torch.equal(objective(none).total, objective(filled).total)


@pytest.mark.parametrize("objective", [ClicObjective(), SoftmaxNegativesObjective()])
def test_all_negatives_missing(objective: ClicObjective | SoftmaxNegativesObjective) -> None:
    given = dataclasses.replace(features(), negative_mask=torch.zeros(5, 2, dtype=torch.bool))
    out = objective(given)
    out.total.backward()
    if isinstance(objective, ClicObjective):
        assert out.terms["hard_negative"].item() == 0.0
    assert out.total.isfinite()
    assert given.negative_features.grad.abs().max() == 0.0
    assert given.image_features.grad.isfinite().all()
    plain = dataclasses.replace(given, negative_features=None, negative_mask=None)
    assert out.total.item() == pytest.approx(objective(plain).total.item(), rel=1e-12)


@pytest.mark.parametrize("objective", [ClicObjective(), SoftmaxNegativesObjective()])
def test_what_stands_for_a_missing_negative_does_not_matter(
    objective: ClicObjective | SoftmaxNegativesObjective,
) -> None:
    given = features()
    filled = given.negative_features.detach().clone()
    filled[~given.negative_mask] = float("nan")
    broken = dataclasses.replace(given, negative_features=filled.requires_grad_())
    objective(given).total.backward()
    expected = given.image_features.grad.clone()
    given.image_features.grad = None
    out = objective(broken)
    out.total.backward()
    assert torch.equal(given.image_features.grad, expected)
    assert filled.grad[~given.negative_mask].abs().max() == 0.0


# Sigmoid models


def test_logit_bias_makes_the_contrastive_term_the_sigmoid_loss() -> None:
    given = features(bias=True)
    expected = sigmoid_loss(
        given.image_features,
        given.positive_features,
        given.logit_scale,
        given.logit_bias,
        first=0,
    )
    clip, clic = ClipObjective()(given), ClicObjective()(given)
    assert list(clip.terms) == ["contrastive"]
    assert clip.total.item() == pytest.approx(expected.item(), rel=1e-12)
    assert list(clic.terms) == ["contrastive", "hard_negative", "unimodal"]
    assert clic.terms["contrastive"].item() == pytest.approx(expected.item(), rel=1e-12)
    without = ClicObjective()(dataclasses.replace(given, logit_bias=None))
    assert torch.equal(clic.terms["hard_negative"], without.terms["hard_negative"])


def test_softmax_negatives_refuses_a_logit_bias() -> None:
    with pytest.raises(ConfigError, match=r"logit_bias.*loss\.composite"):
        SoftmaxNegativesObjective()(features(bias=True))


# Positives of the hard-negative term


def test_hard_negative_positives() -> None:
    given = features(positives=4)
    first = dataclasses.replace(given, positive_features=given.positive_features[:, :2])
    limited = ClicObjective(hard_negative_positives=2)(given).terms
    assert torch.equal(limited["hard_negative"], ClicObjective()(first).terms["hard_negative"])
    assert torch.equal(limited["contrastive"], ClicObjective()(given).terms["contrastive"])
    every = ClicObjective(hard_negative_positives=4)(given).terms
    assert torch.equal(every["hard_negative"], ClicObjective()(given).terms["hard_negative"])


def test_hard_negative_positives_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"hard_negative_positives=0 .*at least 1"):
        ClicObjective(hard_negative_positives=0)
    with pytest.raises(ConfigError, match=r"hard_negative_positives=4 is more than the 3"):
        ClicObjective(hard_negative_positives=4)(features(positives=3))
    with pytest.raises(ConfigError, match=r"hard_negative_positives=2 has no effect"):
        ClicObjective(hard_negative_weight=0.0, hard_negative_positives=2)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["contrastive", "hard_negative", "unimodal"])
def test_weight_that_cannot_be(name: str, weight: float) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.{name}_weight"):
        ClicObjective(**{f"{name}_weight": weight})


def test_all_weights_zero() -> None:
    with pytest.raises(ConfigError, match=r"loss\.unimodal_weight=0"):
        ClicObjective(0.0, 0.0, 0.0)


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


@pytest.mark.parametrize("weights", [{}, {"swap": 1.0}, {"swap": 0.3, "layout": 0.3}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_weights_are_none_bit_for_bit(weights: dict[str, float], dtype: torch.dtype) -> None:
    unnamed = features(batch=37, dtype=dtype)
    named = dataclasses.replace(features(batch=37, dtype=dtype), negative_kinds=("swap", "layout"))
    plain, weighted = ClicObjective()(unnamed), ClicObjective(negative_weights=weights)(named)
    assert torch.equal(weighted.total, plain.total)
    assert all(torch.equal(weighted.terms[name], value) for name, value in plain.terms.items())
    for out in (plain, weighted):
        out.total.backward()
    for name in ("image_features", "positive_features", "negative_features", "logit_scale"):
        assert torch.equal(getattr(named, name).grad, getattr(unnamed, name).grad)


def test_one_kind_has_no_term_of_its_own() -> None:
    given = dataclasses.replace(features(negatives=1), negative_kinds=("swap",))
    out = ClicObjective(negative_weights={"swap": 5.0})(given)
    plain = ClicObjective()(features(negatives=1))
    assert out.terms.keys() == plain.terms.keys()
    assert torch.equal(out.total, plain.total)


def test_objectives_without_the_term_ignore_kinds() -> None:
    named = dataclasses.replace(features(), negative_kinds=("swap", "layout"))
    for objective in (ClipObjective(), SoftmaxNegativesObjective(), ClicObjective(1.0, 0.0, 1.0)):
        out, plain = objective(named), objective(features())
        assert torch.equal(out.total, plain.total) and out.terms.keys() == plain.terms.keys()


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weight_of_a_kind_that_cannot_be(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"loss\.negative_weights\.layout=.* must be a positive"):
        ClicObjective(negative_weights={"layout": weight})


def test_weights_of_kinds_without_the_term() -> None:
    with pytest.raises(ConfigError, match=r"negative_weights=\{'layout': 2\.0\} has no effect"):
        ClicObjective(hard_negative_weight=0.0, negative_weights={"layout": 2.0})


def test_weight_of_a_kind_that_is_not_there() -> None:
    objective = ClicObjective(negative_weights={"layuot": 2.0})
    with pytest.raises(
        ConfigError,
        match=r"weights\.layuot=2\.0 .*did you mean 'layout'\? \(its kinds: swap, layout\)",
    ):
        objective(two_kinds())
    with pytest.raises(
        ConfigError, match=r"layuot=2\.0 has no effect.*without names.*leave it out"
    ):
        objective(features())


@pytest.mark.parametrize("kinds", [("swap",), ("swap", "layout", "replace")])
def test_kinds_of_another_number_than_the_slots(kinds: tuple[str, ...]) -> None:
    given = dataclasses.replace(two_kinds(), negative_kinds=kinds)
    with pytest.raises(ConfigError, match=rf"negative_kinds=.* {len(kinds)} names for 2 .*or none"):
        ClicObjective()(given)


# Precision


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_autocast_is_off_within_the_loss(name: str) -> None:
    given = features(bias=sigmoid(name), dtype=torch.float32)
    # In bf16 the matrix products alone would be off by more than a thousandth.
    expected = OBJECTIVES[name]()(features(bias=sigmoid(name), dtype=torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = OBJECTIVES[name]()(given)
        found.total.backward()
    assert found.total.dtype == given.image_features.grad.dtype == torch.float32
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    for term, value in expected.terms.items():
        assert found.terms[term].item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_widened(name: str, dtype: torch.dtype) -> None:
    # The scale stays a fp32 parameter under autocast, while the features come out in half.
    given = features(bias=sigmoid(name), dtype=torch.float32)
    tensors = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    rounded = {
        n: v.detach().to(dtype).requires_grad_()
        for n, v in tensors.items()
        if n.endswith("_features")
    }
    half = dataclasses.replace(given, **rounded)
    full = dataclasses.replace(given, **{n: v.detach().float() for n, v in rounded.items()})
    out = OBJECTIVES[name]()(half)
    assert out.total.dtype == torch.float32
    assert torch.equal(out.total, OBJECTIVES[name]()(full).total)
    out.total.backward()
    assert half.image_features.grad.dtype == dtype


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_float64_stays(name: str) -> None:
    out = OBJECTIVES[name]()(features(bias=sigmoid(name)))
    assert out.total.dtype == torch.float64
    assert {term.dtype for term in out.terms.values()} == {torch.float64}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_gradients_are_those_of_the_value(name: str, bias: bool) -> None:
    if (SOFTMAX if bias else SIGMOID) in OBJECTIVES[name].needs:
        return
    given = features(batch=3, positives=2, negatives=1, bias=bias)
    leaves = [f.name for f in dataclasses.fields(given)]
    leaves = [n for n in leaves if getattr(getattr(given, n), "requires_grad", False)]

    def total(*values: Tensor) -> Tensor:
        changed = dict(zip(leaves, values, strict=True))
        return OBJECTIVES[name]()(dataclasses.replace(given, **changed)).total

    assert torch.autograd.gradcheck(total, [getattr(given, n) for n in leaves])


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_same_on_cuda(name: str) -> None:
    given = features(bias=sigmoid(name))
    values = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    tensors = {n: v for n, v in values.items() if isinstance(v, Tensor)}
    there = dataclasses.replace(given, **{n: v.detach().cuda() for n, v in tensors.items()})
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = OBJECTIVES[name]()(there)
    assert found.total.dtype == torch.float64
    assert found.total.item() == pytest.approx(OBJECTIVES[name]()(given).total.item(), rel=1e-10)


# The registry


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_an_objective_reads_the_settings_that_its_class_takes(name: str) -> None:
    entry, settings = OBJECTIVES[name], LossConfig()
    taken = [f.name for f in dataclasses.fields(entry()) if f.name != "group"]
    assert sorted(entry.reads) == sorted(taken)
    made = entry.of(settings)
    assert all(getattr(made, setting) == getattr(settings, setting) for setting in taken)
    assert {weight for weight in entry.needs.values() if weight} <= set(entry.reads)


def test_every_setting_of_the_losses_is_read_by_an_objective() -> None:
    settings = {f.name for f in dataclasses.fields(LossConfig)} - set(KINDS)
    assert settings == {setting for entry in OBJECTIVES.values() for setting in entry.reads}
