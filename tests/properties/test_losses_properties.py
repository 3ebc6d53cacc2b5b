"""What holds for any features: symmetries, masks, and the split of a batch over ranks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clic.losses import (
    ClicObjective,
    ClipObjective,
    Objective,
    SoftmaxNegativesObjective,
    hard_negative_loss,
    image_to_text,
    image_to_text_with_negatives,
    sigmoid_loss,
    text_to_image,
)
from clic.types import Features

OBJECTIVES = {
    "clip": (ClipObjective(), False),
    "clic": (ClicObjective(), False),
    "clic_first_positive": (ClicObjective(0.2, 0.9, 0.4, hard_negative_positives=1), False),
    "softmax_negatives": (SoftmaxNegativesObjective(), False),
    "sigmoid": (ClicObjective(), True),
}
every_objective = pytest.mark.parametrize("name", list(OBJECTIVES))
quick = settings(max_examples=25, deadline=None)


@st.composite
def feature_sets(draw: st.DrawFn) -> tuple[Features, torch.Generator]:
    """Features without a bias, and the generator that made them, to draw more from."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, slots = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    negatives, width = draw(st.integers(1, 3)), draw(st.integers(2, 9))

    def unit(*shape: int) -> Tensor:
        rows = torch.randn(*shape, width, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(rows, dim=-1)

    mask = torch.rand(batch, negatives, generator=generator) < draw(st.sampled_from([0, 0.6, 1]))
    scale = torch.tensor(draw(st.sampled_from([1.0, 14.3, 100.0])), dtype=torch.float64)
    features = Features(unit(batch), unit(batch, slots), scale, unit(batch, negatives), mask)
    return features, generator


def loss(name: str, features: Features) -> dict[str, float]:
    objective, has_bias = OBJECTIVES[name]
    return values(objective, features, has_bias)


def values(objective: Objective, features: Features, has_bias: bool = False) -> dict[str, float]:
    if has_bias:
        bias = torch.tensor(-5.0, dtype=torch.float64)
        features = dataclasses.replace(features, logit_bias=bias)
    out = objective(features)
    return {"total": out.total.item(), **{n: v.item() for n, v in out.terms.items()}}


def map_rows(features: Features, change: object) -> Features:
    names = ("image_features", "positive_features", "negative_features")
    return dataclasses.replace(features, **{n: change(getattr(features, n)) for n in names})


def same(left: dict[str, float], right: dict[str, float]) -> None:
    assert left == pytest.approx(right, rel=1e-9, abs=1e-12)


@every_objective
@quick
@given(case=feature_sets())
def test_order_of_the_batch_does_not_matter(
    name: str, case: tuple[Features, torch.Generator]
) -> None:
    features, generator = case
    order = torch.randperm(len(features.image_features), generator=generator)
    shuffled = map_rows(features, lambda rows: rows[order])
    shuffled = dataclasses.replace(shuffled, negative_mask=features.negative_mask[order])
    same(loss(name, shuffled), loss(name, features))


@every_objective
@quick
@given(case=feature_sets())
def test_rotating_the_space_does_not_matter(
    name: str, case: tuple[Features, torch.Generator]
) -> None:
    features, generator = case
    width = features.image_features.shape[-1]
    random = torch.randn(width, width, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(random).Q
    same(loss(name, map_rows(features, lambda rows: rows @ rotation)), loss(name, features))


@every_objective
@quick
@given(case=feature_sets())
def test_masked_negatives_do_not_matter(name: str, case: tuple[Features, torch.Generator]) -> None:
    features, _ = case
    filled = features.negative_features.masked_fill(
        ~features.negative_mask.unsqueeze(-1), float("nan")
    )
    same(loss(name, dataclasses.replace(features, negative_features=filled)), loss(name, features))
    # Nor does how many empty columns the collating left.
    padded = dataclasses.replace(
        features,
        negative_features=torch.cat([features.negative_features, filled], 1),
        negative_mask=torch.cat(
            [features.negative_mask, torch.zeros_like(features.negative_mask)], 1
        ),
    )
    same(loss(name, padded), loss(name, features))


@every_objective
@quick
@given(case=feature_sets())
def test_losses_are_finite_and_not_negative(
    name: str, case: tuple[Features, torch.Generator]
) -> None:
    assert all(0 <= value < math.inf for value in loss(name, case[0]).values())


@quick
@given(case=feature_sets())
def test_order_of_the_slots_matters_to_the_unimodal_term_alone(
    case: tuple[Features, torch.Generator],
) -> None:
    features, generator = case
    order = torch.randperm(features.positive_features.shape[1], generator=generator)
    shuffled = dataclasses.replace(features, positive_features=features.positive_features[:, order])
    objective = ClicObjective(unimodal_weight=0.0)
    same(values(objective, shuffled), values(objective, features))


@quick
@given(case=feature_sets())
def test_a_bias_leaves_the_other_terms(case: tuple[Features, torch.Generator]) -> None:
    with_bias = values(ClicObjective(), case[0], has_bias=True)
    without = values(ClicObjective(), case[0])
    for name in ("hard_negative", "unimodal"):
        assert with_bias.get(name) == without.get(name)


@quick
@given(case=feature_sets())
def test_more_candidates_never_lower_the_loss(case: tuple[Features, torch.Generator]) -> None:
    clip, softmax = loss("clip", case[0]), loss("softmax_negatives", case[0])
    assert softmax["image_to_text"] >= clip["image_to_text"] - 1e-12
    assert softmax["text_to_image"] == pytest.approx(clip["text_to_image"], rel=1e-12)


@quick
@given(case=feature_sets())
def test_negative_equal_to_the_positive_costs_log_two(
    case: tuple[Features, torch.Generator],
) -> None:
    features, _ = case
    equal = features.positive_features[:, :1]
    full = torch.ones(len(equal), 1, dtype=torch.bool)
    tied = dataclasses.replace(features, negative_features=equal, negative_mask=full)
    found = values(ClicObjective(hard_negative_positives=1), tied)
    assert found["hard_negative"] == pytest.approx(math.log(2), rel=1e-9)


@quick
@given(case=feature_sets(), world=st.integers(1, 4), seed=st.integers(0, 1000))
def test_mean_over_ranks_is_the_whole_batch_in_any_order_of_ranks(
    case: tuple[Features, torch.Generator], world: int, seed: int
) -> None:
    features, generator = case
    batch, slots, width = features.positive_features.shape
    order = torch.randperm(world, generator=torch.Generator().manual_seed(seed))

    def unit(*shape: int) -> Tensor:
        rows = torch.randn(world, *shape, width, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(rows, dim=-1)

    images, captions, negatives = unit(batch), unit(batch, slots), unit(batch, 2)
    mask = torch.rand(world, batch, 2, generator=generator) < 0.5
    scale, bias = features.logit_scale, torch.tensor(-4.0, dtype=torch.float64)
    weights = torch.tensor([1.0, 2.5], dtype=torch.float64)
    weighted = (weights * mask.sum((0, 1))).sum()
    valid = (weighted if weighted > 0 else torch.ones_like(weighted)) / world

    def whole(parts: Tensor) -> Tensor:
        return parts[order].flatten(0, 1)

    def per_rank(place: int) -> Tensor:
        rank, first = int(order[place]), place * batch
        image, caption = images[rank], captions[rank]
        every = whole(captions)
        hard = (negatives[rank], mask[rank], scale, weights, valid)
        return torch.stack(
            [
                image_to_text(image, every, scale, first),
                text_to_image(caption, whole(images), scale, first),
                sigmoid_loss(image, every, scale, bias, first),
                hard_negative_loss(image, caption, *hard),
                image_to_text_with_negatives(
                    image, every, whole(negatives), whole(mask), scale, first
                ),
            ]
        )

    found = torch.stack([per_rank(place) for place in range(world)]).mean(0)
    all_images, all_captions = images.flatten(0, 1), captions.flatten(0, 1)
    given = Features(all_images, all_captions, scale, negatives.flatten(0, 1), mask.flatten(0, 1))
    named = dataclasses.replace(given, negative_kinds=("swap", "layout"))
    clic = ClicObjective(negative_weights={"layout": 2.5})(named).terms
    clip, softmax = ClipObjective()(given).terms, SoftmaxNegativesObjective()(given).terms
    expected = torch.stack(
        [
            clip["image_to_text"],
            clip["text_to_image"],
            ClipObjective()(dataclasses.replace(given, logit_bias=bias)).total,
            clic["hard_negative"],
            softmax["image_to_text"],
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@quick
@given(case=feature_sets(), data=st.data())
def test_weighted_mean_is_that_of_plain_loops(
    case: tuple[Features, torch.Generator], data: st.DataObject
) -> None:
    features, _ = case
    mask = features.negative_mask
    assert mask is not None and features.negative_features is not None
    batch, slots = mask.shape
    names = st.lists(st.sampled_from(["swap", "layout", "replace"]), min_size=slots, max_size=slots)
    kinds = tuple(data.draw(names))
    weight = st.floats(0.01, 100)
    weights = data.draw(st.dictionaries(st.sampled_from(kinds), weight))
    sums, counts = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0)
    for b in range(batch):
        image = features.logit_scale * features.image_features[b]
        for k, kind in enumerate(kinds):
            for positive in features.positive_features[b]:
                if mask[b, k]:
                    gap = (image @ features.negative_features[b, k] - image @ positive).item()
                    sums[kind] += max(gap, 0.0) + math.log1p(math.exp(-abs(gap)))
                    counts[kind] += 1
    total = sum(weights.get(kind, 1.0) * counts[kind] for kind in sums)
    part = {kind: sums[kind] / counts[kind] if counts[kind] else 0.0 for kind in sums}
    expected = {f"hard_negative/{kind}": mean for kind, mean in part.items()} if slots > 1 else {}
    expected["hard_negative"] = (
        sum(weights.get(kind, 1.0) * sums[kind] for kind in sums) / total if total else 0.0
    )
    named = dataclasses.replace(features, negative_kinds=kinds)
    terms = values(ClicObjective(negative_weights=weights), named)
    same({n: v for n, v in terms.items() if n.startswith("hard_negative")}, expected)


@quick
@given(case=feature_sets(), weight=st.floats(0.01, 100), factor=st.floats(1e-6, 1e6))
def test_scaling_all_weights_changes_nothing(
    case: tuple[Features, torch.Generator], weight: float, factor: float
) -> None:
    kinds = ("swap", "layout", "replace")[: case[0].negative_mask.shape[1]]
    named = dataclasses.replace(case[0], negative_kinds=kinds)
    once = {kind: weight**place for place, kind in enumerate(kinds)}
    scaled = {kind: factor * value for kind, value in once.items()}
    same(
        values(ClicObjective(negative_weights=scaled), named),
        values(ClicObjective(negative_weights=once), named),
    )
