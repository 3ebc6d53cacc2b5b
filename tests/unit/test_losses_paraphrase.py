"""The loss between a caption and its paraphrase, against values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clic.errors import ConfigError
from clic.losses import ParaphraseObjective, SoftmaxNegativesObjective
from clic.losses.terms import paraphrase_loss
from clic.types import Features

EYE = torch.eye(3, dtype=torch.float64)


def unit(*shape: int, seed: int) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def test_false_captions_of_all_rows_are_candidates_where_the_mask_is_true() -> None:
    captions, paraphrases = EYE[:2], EYE[:2]
    false = EYE[[0, 2]].unsqueeze(1)  # the first equals its caption, the second is far from all
    mask = torch.tensor([[True], [True]])
    # Row 0: true 2, other 0, false 2 and 0. Row 1: true 2, other 0, false 0 and 0.
    e = math.exp(2)
    expected = (math.log((2 * e + 2) / e) + math.log((e + 3) / e)) / 2
    assert float(paraphrase_loss(captions, paraphrases, false, mask, 2.0, 0)) == pytest.approx(
        expected, abs=1e-12
    )
    mask = torch.tensor([[False], [True]])
    expected = math.log((e + 2) / e)
    assert float(paraphrase_loss(captions, paraphrases, false, mask, 2.0, 0)) == pytest.approx(
        expected, abs=1e-12
    )


def features(positives: int = 2, bias: bool = False, negatives: bool = True) -> Features:
    false = unit(4, 2, 8, seed=2).requires_grad_() if negatives else None
    mask = torch.tensor([[True, True], [False, True], [True, False], [False, False]])
    return Features(
        unit(4, 8, seed=0),
        unit(4, positives, 8, seed=1).requires_grad_(),
        torch.tensor(5.0, dtype=torch.float64),
        false,
        mask if negatives else None,
        torch.tensor(-1.0, dtype=torch.float64) if bias else None,
    )


def test_the_objective_is_the_sum_of_its_terms_in_both_directions() -> None:
    given = features()
    out = ParaphraseObjective(paraphrase_weight=0.7, paraphrase_scale=9.0)(given)
    assert given.negative_features is not None and given.negative_mask is not None
    one, two = given.positive_features.unbind(1)
    false, mask = given.negative_features, given.negative_mask
    there = paraphrase_loss(one, two, false, mask, 9.0, 0)
    back = paraphrase_loss(two, one, false, mask, 9.0, 0)
    torch.testing.assert_close(out.terms["paraphrase"], (there + back) / 2)
    contrastive = SoftmaxNegativesObjective()(given).total
    torch.testing.assert_close(out.total, contrastive + 0.7 * (there + back) / 2)


def test_masked_false_captions_have_no_influence() -> None:
    given = features()
    assert given.negative_features is not None
    ParaphraseObjective()(given).total.backward()
    gradient = given.negative_features.grad
    assert gradient is not None
    assert gradient[given.negative_mask].abs().sum() > 0
    assert gradient[~given.negative_mask].abs().sum() == 0


def test_without_false_captions_the_other_paraphrases_are_left() -> None:
    out = ParaphraseObjective()(features(negatives=False))
    assert torch.isfinite(out.total)


def test_what_it_cannot_compute_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"captions\.paraphrase=rules"):
        ParaphraseObjective()(features(positives=1))
    with pytest.raises(ConfigError, match="paraphrase needs a softmax"):
        ParaphraseObjective()(features(bias=True))
    for name in ("paraphrase_weight", "paraphrase_scale"):
        with pytest.raises(ConfigError, match=rf"loss\.{name}=0 must be a positive number"):
            ParaphraseObjective(**{name: 0})
