"""What holds for every pair of models and every alpha."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clic.patching import interpolate

ALPHAS = st.floats(0, 1)
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
FINITE = st.floats(-1000, 1000, width=32)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draw two tensors of one shape, each of its own floating type."""
    shape = draw(arrays.array_shapes(max_dims=3, max_side=4))
    base, tuned = (draw(arrays.arrays(np.float32, shape, elements=FINITE)) for _ in range(2))
    return torch.from_numpy(base).to(draw(DTYPES)), torch.from_numpy(tuned).to(draw(DTYPES))


def mix(base: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    return interpolate({"w": base}, {"w": tuned}, alpha)["w"]


@given(pairs(), ALPHAS)
def test_between_the_two_in_the_wider_type(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    base, tuned = pair
    mixed = mix(base, tuned, alpha)
    assert mixed.dtype == torch.promote_types(base.dtype, tuned.dtype)
    low, high = (
        torch.minimum(base.double(), tuned.double()),
        torch.maximum(base.double(), tuned.double()),
    )
    slack = 4 * torch.finfo(mixed.dtype).eps * (1 + torch.maximum(low.abs(), high.abs()))
    assert bool(((mixed.double() >= low - slack) & (mixed.double() <= high + slack)).all())


@given(pairs(), ALPHAS)
def test_matches_the_formula(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    base, tuned = pair
    exact = (1 - alpha) * base.double() + alpha * tuned.double()
    mixed = mix(base, tuned, alpha)
    eps = max(torch.finfo(mixed.dtype).eps, torch.finfo(torch.float32).eps)
    if mixed.dtype == torch.float64:
        eps = torch.finfo(torch.float64).eps
    bound = 4 * eps * (1 + base.double().abs() + tuned.double().abs())
    assert bool(((mixed.double() - exact).abs() <= bound).all())


@given(pairs())
def test_ends_are_exact(pair: tuple[Tensor, Tensor]) -> None:
    base, tuned = pair
    assert torch.equal(mix(base, tuned, 0.0).double(), base.double())
    assert torch.equal(mix(base, tuned, 1.0).double(), tuned.double())


@given(pairs(), ALPHAS)
def test_a_model_with_itself_is_itself(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    assert torch.equal(mix(pair[0], pair[0].clone(), alpha), pair[0])


@given(pairs(), ALPHAS)
def test_inputs_are_left_alone(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    kept = [tensor.clone() for tensor in pair]
    mix(*pair, alpha).add_(1)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(pair, kept, strict=True))
