"""Terms of many logits in chunks of rows: the same gradients, and few logits at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clic.config.checks import validate
from clic.config.train_settings import Config, LossConfig
from clic.errors import ConfigError
from clic.losses import OBJECTIVES, ClipObjective, Objective, objectives, terms
from clic.types import Features

B, D = 22, 12
CASES = {name: (name, False) for name in OBJECTIVES if name != "sigmoid_negatives"}
CASES |= {"sigmoid": ("clic", True), "sigmoid_negatives": ("sigmoid_negatives", True)}


def leaves(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, D), (B, 3, D), (B, 2, D), (), ()]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [value.to(dtype).requires_grad_() for value in made]


def run(objective: Objective, bias: bool, dtype: torch.dtype) -> tuple[Any, list[Tensor]]:
    """Return the output and the gradients of features, scale and bias."""
    own = leaves(dtype)
    images, captions, negatives = (normalize(value, dim=-1) for value in own[:3])
    mask = torch.arange(2 * B).view(B, 2) % 3 > 0
    scale = 10 + own[3]
    features = Features(
        images, captions, scale, negatives, mask, logit_bias=own[4] if bias else None
    )
    output = objective(features)
    output.total.backward()
    return output, [value.grad for value in own if value.grad is not None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("at_once", [1, 300])
@pytest.mark.parametrize(("name", "bias"), CASES.values(), ids=CASES)
def test_chunks_have_the_loss_and_gradients_of_all_rows(
    name: str, bias: bool, at_once: int, dtype: torch.dtype, tolerance: float
) -> None:
    whole, expected = run(OBJECTIVES[name](logits_at_once=None), bias, dtype)
    chunked, found = run(OBJECTIVES[name](logits_at_once=at_once), bias, dtype)
    assert float(chunked.total.detach()) == pytest.approx(
        float(whole.total.detach()), rel=tolerance
    )
    for term, value in whole.terms.items():
        assert float(chunked.terms[term]) == pytest.approx(float(value), rel=tolerance), term
    assert len(found) == len(expected) >= 3
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= tolerance * float(other.norm())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str]]:
    """Return what becomes a list of the calls: rows, captions, and the precision of products."""
    seen: list[tuple[int, int, str]] = []
    term: Callable[..., Tensor] = terms.image_to_text

    def watched(images: Tensor, captions: Tensor, *words: Any, **named: Any) -> Tensor:
        many = captions.shape[:2].numel()
        seen.append((len(images), many, torch.get_float32_matmul_precision()))
        return term(images, captions, *words, **named)

    monkeypatch.setattr(objectives, "image_to_text", watched)
    return seen


def test_no_more_logits_than_asked_for_are_made_and_in_full_precision(
    calls: list[tuple[int, int, str]],
) -> None:
    objective = ClipObjective(logits_at_once=8 * B)
    features = leaves(torch.float32)
    output = objective(Features(*features[:2], features[3]))
    forward = [(8, B, "highest"), (8, B, "highest"), (6, B, "highest")] * 3  # of three slots
    assert calls == forward
    torch.set_float32_matmul_precision("high")  # as the backward pass of towers in TF32
    try:
        output.total.backward()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert sorted(calls[9:]) == sorted(forward)


@pytest.mark.parametrize("at_once", [None, 3 * B * B])
def test_small_batches_are_computed_at_once(
    calls: list[tuple[int, int, str]], at_once: int | None
) -> None:
    run(ClipObjective(logits_at_once=at_once), False, torch.float32)
    assert calls == [(B, 3 * B, "highest")]


def test_false_captions_may_be_none() -> None:
    """An array of them without columns is none: the sigmoid loss of the pairs alone."""
    own = leaves(torch.float64)
    features = Features(own[0], own[1], own[3], own[2][:, :0], logit_bias=own[4])
    output = OBJECTIVES["sigmoid_negatives"]()(features)
    without = OBJECTIVES["sigmoid_negatives"]()(replace(features, negative_features=None))
    assert output.total == without.total and output.terms.keys() == without.terms.keys()


def test_the_setting_reaches_every_objective() -> None:
    for name, entry in OBJECTIVES.items():
        assert entry().logits_at_once == LossConfig().logits_at_once == objectives.LOGITS, name
        assert entry.of(LossConfig(logits_at_once=7)).logits_at_once == 7
        assert replace(entry(), logits_at_once=None).logits_at_once is None


def test_the_setting_is_refused_where_nothing_is_contrastive(
    settings: Callable[..., Config],
) -> None:
    for value in ("null", "1000"):
        validate(settings(f"loss.logits_at_once={value}"))
    alone = ("sampling.kinds=composite", "loss.contrastive_weight=0", "loss.logits_at_once=1000")
    with pytest.raises(ConfigError, match=r"^loss\.logits_at_once=1000 has no effect with"):
        validate(settings(*alone))
    with pytest.raises(ConfigError, match=r"^loss\.logits_at_once=0 is too small"):
        validate(settings("loss.logits_at_once=0"))
