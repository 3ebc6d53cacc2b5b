"""What holds for every pair of models and every alpha."""

from __future__ import annotations

from unittest.mock import patch as replaced

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from clic.errors import ModelError
from clic.patching import interpolate, tensor_files
from clic.patching.blending import write_blend
from clic.patching.tensor_files import open_tensors

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


@st.composite
def states(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw two state dicts: scalars, empty tensors, equal ones, masks of -inf, counters."""
    names = draw(st.lists(st.text(min_size=1, max_size=6), unique=True, min_size=1, max_size=4))
    base: dict[str, Tensor] = {}
    tuned: dict[str, Tensor] = {}
    for name in names:
        shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        first, second = (draw(arrays.arrays(np.float32, shape, elements=FINITE)) for _ in "ab")
        kind = draw(st.sampled_from(["trained", "equal", "mask", "integer"]))
        if kind == "mask":
            first[second > 0] = second[second > 0] = -np.inf
        base[name] = torch.from_numpy(first).to(draw(DTYPES))
        tuned[name] = torch.from_numpy(second).to(draw(DTYPES))
        if kind == "equal":
            tuned[name] = base[name].clone()
        if kind == "integer":
            base[name] = base[name].to(torch.int64)
            tuned[name] = base[name].clone()
    return base, tuned


@given(pair=states(), alpha=ALPHAS, chunk=st.integers(1, 9))
def test_the_file_is_the_one_that_save_file_writes(
    pair: tuple[dict[str, Tensor], dict[str, Tensor]],
    alpha: float,
    chunk: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    for name, state in zip(("base", "tuned"), pair, strict=True):
        save_file(state, folder / name)
    with (
        replaced.object(tensor_files, "CHUNK", chunk),
        open_tensors([folder / "base"]) as base,
        open_tensors([folder / "tuned"]) as tuned,
    ):
        write_blend(base, tuned, dict.fromkeys(base.layout, alpha), folder / "new")
    save_file(interpolate(*pair, alpha), folder / "expected")
    assert (folder / "new").read_bytes() == (folder / "expected").read_bytes()
    assert load_file(folder / "new").keys() == pair[0].keys()


@given(pairs(), ALPHAS)
def test_swapping_the_models_is_one_minus_alpha(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    there, back = mix(*pair, alpha), mix(pair[1], pair[0], 1 - alpha)
    assert there.dtype == back.dtype
    bound = _rounding(there.dtype) * (1 + pair[0].double().abs() + pair[1].double().abs())
    assert bool(((there.double() - back.double()).abs() <= bound).all())


@given(pairs(), ALPHAS, ALPHAS)
def test_linear_in_alpha(pair: tuple[Tensor, Tensor], one: float, other: float) -> None:
    """Half way between two alphas lies half way between their models."""
    half = mix(*pair, (one + other) / 2).double()
    ends = mix(*pair, one).double(), mix(*pair, other).double()
    bound = _rounding(mix(*pair, one).dtype) * (1 + pair[0].double().abs() + pair[1].double().abs())
    assert bool(((half - (ends[0] + ends[1]) / 2).abs() <= bound).all())


@given(pairs(), ALPHAS, st.sampled_from([0, 1]), st.data())
def test_nan_is_refused_anywhere(
    pair: tuple[Tensor, Tensor], alpha: float, side: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, pair[side].numel() - 1))
    pair[side].view(-1)[place] = float("nan")
    with pytest.raises(ModelError, match="holds NaN"):
        mix(*pair, alpha)


@given(pairs(), ALPHAS)
def test_a_tensor_under_two_names_is_blended_under_both(
    pair: tuple[Tensor, Tensor], alpha: float
) -> None:
    base, tuned = pair
    both = interpolate({"a": base, "b": base}, {"a": tuned, "b": tuned}, alpha)
    assert torch.equal(both["a"], both["b"])
    assert both["a"].data_ptr() != both["b"].data_ptr() or not both["a"].numel()


def _rounding(dtype: torch.dtype) -> float:
    return 8 * max(torch.finfo(dtype).eps, 0 if dtype == torch.float64 else 2**-23)
