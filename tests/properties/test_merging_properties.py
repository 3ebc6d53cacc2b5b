"""What holds of every way to make one tensor of several."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clic.errors import ModelError
from clic.patching.merging import MergeSettings, merged

DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
FINITE = st.floats(-100, 100, width=16)
METHODS = ("uniform", "task", "ties", "dare", "stock", "slerp")
BASED = ("task", "ties", "dare", "stock")
ORIGINS = tuple("abcdefgh")


@st.composite
def several(draw: st.DrawFn, count: int | None = None) -> list[Tensor]:
    """Draw tensors of one shape, each of its own floating type; scalars and empty ones, too."""
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5))
    count = count or draw(st.integers(2, 4))
    drawn = [draw(arrays.arrays(np.float32, shape, elements=FINITE)) for _ in range(count)]
    return [torch.from_numpy(one).to(draw(DTYPES)) for one in drawn]


def make(how: MergeSettings, tensors: list[Tensor]) -> Tensor:
    count = len(tensors) - (how.method in BASED)
    return merged("w", tensors, how.of_tensor("w", count), ORIGINS[: len(tensors)])


def near(one: Tensor, other: Tensor, tensors: list[Tensor], slack: float = 16) -> bool:
    eps = max(torch.finfo(one.dtype).eps, 2**-23)
    size = 1 + max((float(t.double().abs().max()) for t in tensors if t.numel()), default=0.0)
    return bool(((one.double() - other.double()).abs() <= slack * eps * size).all())


@given(st.sampled_from(METHODS), several(3), st.floats(0.1, 1))
def test_shape_and_widest_type_and_inputs_left_alone(
    method: str, tensors: list[Tensor], density: float
) -> None:
    tensors = tensors[:2] if method == "slerp" else tensors
    kept = [tensor.clone() for tensor in tensors]
    made = make(MergeSettings(method, density=density), tensors)
    widest = tensors[0].dtype
    for other in tensors[1:]:
        widest = torch.promote_types(widest, other.dtype)
    assert (made.shape, made.dtype) == (tensors[0].shape, widest)
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))
    made.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))


@given(st.sampled_from(METHODS), several(1), st.integers(2, 4))
def test_equal_models_keep_their_bits(method: str, one: list[Tensor], count: int) -> None:
    count = 2 if method == "slerp" else count
    made = make(MergeSettings(method, density=0.5), [one[0].clone() for _ in range(count)])
    assert torch.equal(made, one[0])


@given(st.sampled_from(["uniform", "task", "ties", "stock"]), several(4), st.data())
def test_the_order_of_the_models_does_not_matter(
    method: str, tensors: list[Tensor], data: st.DataObject
) -> None:
    tensors = [tensor.double() for tensor in tensors]
    fixed = 1 if method in BASED else 0
    rest = data.draw(st.permutations(tensors[fixed:]))
    how = MergeSettings(method, density=0.5)
    one, other = make(how, tensors), make(how, [*tensors[:fixed], *rest])
    assert bool(((one - other).abs() <= 1e-9 * 1000).all())


@given(several(2), st.floats(0, 1))
def test_two_weights_are_alpha(pair: list[Tensor], alpha: float) -> None:
    made = make(MergeSettings("weights", (1 - alpha, alpha)), pair)
    expected = (1 - alpha) * pair[0].double() + alpha * pair[1].double()
    assert near(made, expected, pair)


@given(several(2), st.floats(0, 1))
def test_task_arithmetic_with_one_model_is_alpha(pair: list[Tensor], scale: float) -> None:
    expected = (1 - scale) * pair[0].double() + scale * pair[1].double()
    assert near(make(MergeSettings("task", scale=scale), pair), expected, pair)


@given(st.sampled_from(["task", "ties", "dare"]), several(3))
def test_a_scale_of_0_is_the_base(method: str, tensors: list[Tensor]) -> None:
    made = make(MergeSettings(method, scale=0.0, density=0.5), tensors)
    assert torch.equal(made.double(), tensors[0].double())


@given(several(3))
def test_what_keeps_everything_is_task_arithmetic_or_the_mean(tensors: list[Tensor]) -> None:
    whole = make(MergeSettings("dare"), tensors)
    assert near(whole, make(MergeSettings("task"), tensors), tensors)
    same = [tensors[0], tensors[1], tensors[1].clone()]
    assert near(make(MergeSettings("ties"), same), tensors[1].to(torch.float64), same)
    assert near(make(MergeSettings("stock"), same), tensors[1].to(torch.float64), same)


@given(several(3), st.integers(0, 2**31))
def test_dare_is_its_seeds(tensors: list[Tensor], seed: int) -> None:
    how = MergeSettings("dare", density=0.5, seed=seed)
    assert torch.equal(make(how, tensors), make(how, tensors))


@given(several(3), st.floats(0.1, 1))
def test_ties_lies_between_the_base_and_the_models(tensors: list[Tensor], density: float) -> None:
    made = make(MergeSettings("ties", density=density), tensors).double()
    stack = torch.stack([tensor.double() for tensor in tensors])
    low, high = stack.amin(0), stack.amax(0)
    assert near(made.clamp(low, high), made, tensors)


@given(several(2))
def test_the_ends_of_an_arc_are_its_models(pair: list[Tensor]) -> None:
    for weights, end in (((1.0, 0.0), 0), ((0.0, 1.0), 1)):
        made = make(MergeSettings("slerp", weights), pair)
        assert near(made, pair[end].to(torch.float64), pair)


@given(several(2), st.floats(0, 1))
def test_an_arc_keeps_the_length_of_equally_long_ones(pair: list[Tensor], way: float) -> None:
    one, other = (tensor.double().flatten() for tensor in pair)
    if float(one.norm()) < 1e-3 or float(other.norm()) < 1e-3:
        return
    one, other = one / one.norm(), other / other.norm()
    if abs(float(one @ other)) > 0.999:
        return  # the straight line, or nearly
    made = make(MergeSettings("slerp", (1 - way, way)), [one, other])
    assert float(made.norm()) == pytest.approx(1, abs=1e-6)


@given(st.sampled_from(METHODS), several(3), st.data())
def test_infinite_entries_are_copied_and_nan_is_refused(
    method: str, tensors: list[Tensor], data: st.DataObject
) -> None:
    tensors = tensors[:2] if method == "slerp" else tensors
    if not tensors[0].numel():
        return
    place = data.draw(st.integers(0, tensors[0].numel() - 1))
    for tensor in tensors:
        tensor.view(-1)[place] = -torch.inf
    how = MergeSettings(method, density=0.5)
    made = make(how, tensors).view(-1)
    assert made[place] == -torch.inf and made.isinf().sum() == 1 and not made.isnan().any()
    side = data.draw(st.integers(0, len(tensors) - 1))
    tensors[side].view(-1)[place] = 0.0
    with pytest.raises(ModelError, match="is infinite in different places"):
        make(how, tensors)
    tensors[side].view(-1)[place] = torch.nan
    with pytest.raises(ModelError, match=f"'w' of {ORIGINS[side]} holds NaN"):
        make(how, tensors)
