"""The plain objectives are open_clip's own losses, to rounding."""

from __future__ import annotations

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor

from clic.losses import ClipObjective, SoftmaxNegativesObjective
from clic.types import Features


def leaves(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 12, 24, generator=generator, dtype=torch.float64)
    images, captions = torch.nn.functional.normalize(rows, dim=-1)
    scale = torch.tensor(14.0, dtype=torch.float64)
    bias = torch.tensor(-6.0, dtype=torch.float64)
    return tuple(leaf.detach().requires_grad_() for leaf in (images, captions, scale, bias))


def check(ours: Tensor, theirs: Tensor, wanted: tuple[Tensor, ...]) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    found = torch.autograd.grad(ours, wanted)
    expected = torch.autograd.grad(theirs, wanted)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", [ClipObjective(), SoftmaxNegativesObjective()])
def test_clip(seed: int, objective: ClipObjective | SoftmaxNegativesObjective) -> None:
    images, captions, scale, _ = leaves(seed)
    ours = objective(Features(images, captions.unsqueeze(1), scale)).total
    check(ours, ClipLoss()(images, captions, scale), (images, captions, scale))


@pytest.mark.parametrize("seed", range(3))
def test_siglip(seed: int) -> None:
    images, captions, scale, bias = leaves(seed)
    given = Features(images, captions.unsqueeze(1), scale, logit_bias=bias)
    theirs = SigLipLoss()(images, captions, scale, bias)
    check(ClipObjective()(given).total, theirs, (images, captions, scale, bias))
