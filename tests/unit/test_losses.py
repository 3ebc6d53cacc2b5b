"""Objectives: their terms, masks, precision, and settings that cannot work."""

from __future__ import annotations

import dataclasses

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
    sigmoid_loss,
)
from clic.losses.registry import EVERY, KINDS, SIGMOID, SOFTMAX
from clic.types import Features

# Two images and their captions on the axes of a plane: cosines are 1 and 0.
EYE = torch.eye(2, dtype=torch.float64)
TWO = torch.tensor(2.0, dtype=torch.float64)


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


def test_sigmoid_negatives_refuse_a_softmax() -> None:
    with pytest.raises(ConfigError, match="needs a model with a logit_bias"):
        SigmoidNegativesObjective()(features())


def test_sigmoid_negatives_without_negatives_are_the_sigmoid_loss() -> None:
    without = features(negatives=0, bias=True)
    assert torch.equal(SigmoidNegativesObjective()(without).total, ClipObjective()(without).total)


@pytest.mark.parametrize(
    ("name", "bias"),
    [("clip", False), ("clip", True), ("clic", False), ("clic", True),
     *((name, sigmoid(name)) for name in OBJECTIVES if name not in ("clip", "clic"))],
)  # fmt: skip
def test_no_slot_of_negatives_is_no_negatives(name: str, bias: bool) -> None:
    """As of a tokenizer that was given no false captions: [B, 0, L] becomes [B, 0, D]."""
    without = features(negatives=0, bias=bias)
    empty = dataclasses.replace(
        without,
        negative_features=without.image_features.new_zeros(5, 0, 16),
        negative_mask=torch.zeros(5, 0, dtype=torch.bool),
    )
    expected, found = OBJECTIVES[name]()(without), OBJECTIVES[name]()(empty)
    assert torch.equal(found.total, expected.total) and found.terms.keys() == expected.terms.keys()


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
    functions = {"contrastive": "Objective._contrastive", "hard_negative": "hard_negative_loss"}
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
    assert sorted([*entry.reads, *EVERY]) == sorted(taken)
    made = entry.of(settings)
    assert all(getattr(made, setting) == getattr(settings, setting) for setting in taken)
    assert {weight for weight in entry.needs.values() if weight} <= set(entry.reads)


def test_every_setting_of_the_losses_is_read_by_an_objective() -> None:
    settings = {f.name for f in dataclasses.fields(LossConfig)} - {*KINDS, *EVERY}
    assert settings == {setting for entry in OBJECTIVES.values() for setting in entry.reads}
