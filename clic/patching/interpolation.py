"""Interpolated weights theta(alpha) (WiSE-FT, arXiv 2109.01903), and whether two models fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clic import models
from clic.errors import ConfigError, ModelError
from clic.models import check_numbers, filled
from clic.models.description import PROBES
from clic.models.loading import check_vocabulary
from clic.patching.tensor_files import Layout

if TYPE_CHECKING:
    from clic.patching.folders import Weights

COUNTER = "num_batches_tracked"
"""BatchNorm's batch counter, which is not a weight and changes with any training."""

ORIGINS = ("the base", "the tuned model")


def interpolate(
    base: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    alpha: float,
    extrapolate: bool = False,
) -> dict[str, Tensor]:
    """Return theta(alpha) = (1 - alpha) * theta_base + alpha * theta_tuned (arXiv 2109.01903).

    The result is computed in at least fp32 and returned in the wider of the two dtypes. Integer and
    boolean tensors must agree and are copied; so are infinite entries (the causal mask's -inf) and
    equal tensors, so that a frozen tower keeps its bits. BatchNorm's batch counters, which may
    differ, come from the tuned model. Alpha 0 and 1 return the values of the inputs exactly.

    Args:
        base: Tensors of the base model by name.
        tuned: Tensors of the tuned model, the same names and shapes.
        alpha: 0 (base) to 1 (tuned).
        extrapolate: Allow alphas below 0 and above 1.

    Raises:
        ConfigError: `alpha` lies outside 0..1 without `extrapolate`.
        ModelError: Names, shapes or tensors that must agree differ, or a tensor contains NaN.
    """
    check_alpha(alpha, extrapolate)
    check_names(base.keys(), tuned.keys())
    return {name: blend(name, base[name], tuned[name], alpha) for name in base}


def blend(
    name: str, base: Tensor, tuned: Tensor, alpha: float, origins: tuple[object, object] = ORIGINS
) -> Tensor:
    """Return one tensor of theta(alpha); see `interpolate`."""
    dtype = blended(name, _layout(base), _layout(tuned)).dtype
    if not dtype.is_floating_point:
        if name.endswith(COUNTER):
            return base.clone() if alpha == 0.0 else tuned.clone()
        if not torch.equal(base, tuned):
            raise ModelError(f"tensor {name!r} holds no weights, yet differs between the models")
        return base.clone()
    if alpha != 1.0 and equal(base, tuned):
        return base.to(dtype, copy=True)
    return mixed(name, base, tuned, alpha, origins)


def blended(name: str, base: Layout, tuned: Layout) -> Layout:
    """Return the layout of a tensor of theta(alpha), after checking that the two inputs fit.

    Raises:
        ModelError: Their shapes differ, or their types do and one of them is not floating point.
    """
    if base.shape != tuned.shape:
        raise ModelError(
            f"tensor {name!r} has shape {list(base.shape)} in the base "
            f"and {list(tuned.shape)} in the tuned"
        )
    if base.dtype == tuned.dtype:
        return base
    if not (base.dtype.is_floating_point and tuned.dtype.is_floating_point):
        raise ModelError(
            f"tensor {name!r} is {base.dtype} in the base and {tuned.dtype} in the tuned"
        )
    return Layout(torch.promote_types(base.dtype, tuned.dtype), base.shape)


def equal(base: Tensor, tuned: Tensor) -> bool:
    """Return whether two tensors contain equal numbers, of whatever type, and no NaN."""
    dtype = torch.promote_types(base.dtype, tuned.dtype)
    return torch.equal(base.to(dtype), tuned.to(dtype))


def mixed(
    name: str,
    base: Tensor,
    tuned: Tensor,
    alpha: float,
    origins: tuple[object, object] = ORIGINS,
    room: Tensor | None = None,
) -> Tensor:
    """Return (1 - alpha) * base + alpha * tuned of floating tensors, or of pieces of them.

    `origins` is what errors call the two models. `room`, [2, at least a piece's elements], is
    reusable memory for the sum and one summand, so that consecutive flat pieces need no new pages;
    the result then lies there until the next call.
    """
    dtype = torch.promote_types(base.dtype, tuned.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    first, second = base.to(exact), tuned.to(exact)
    spare = room[:, : first.numel()] if room is not None and room.dtype == exact else (None, None)
    mix = torch.mul(first, 1.0 - alpha, out=spare[0])
    mix += torch.mul(second, alpha, out=spare[1])
    between = 0.0 < alpha < 1.0
    # NaN or infinity in either input shows in the sum, so one check here replaces four.
    if between and math.isfinite(float(mix.sum())):
        return mix.to(dtype)
    for values, origin in zip((first, second), origins, strict=True):
        check_numbers({name: values}, origin)
    infinite = first.isinf()
    if not torch.equal(infinite, second.isinf()) or not torch.equal(
        first[infinite], second[infinite]
    ):
        raise ModelError(f"tensor {name!r} is infinite in different places in the two models")
    if alpha in (0.0, 1.0):
        return (tuned if alpha else base).to(dtype, copy=True)
    mix = torch.where(infinite, first, mix).to(dtype)
    if not torch.equal(mix.isinf(), infinite):
        raise ModelError(f"tensor {name!r} becomes too large for {dtype} at alpha={alpha}")
    return mix


def _layout(tensor: Tensor) -> Layout:
    return Layout(tensor.dtype, tuple(tensor.shape))


def check_alpha(alpha: float, extrapolate: bool = False) -> None:
    """Raise `ConfigError` if alpha is not finite, or outside 0..1 without `extrapolate`."""
    if not math.isfinite(alpha) or not (extrapolate or 0.0 <= alpha <= 1.0):
        raise ConfigError(
            f"alpha={alpha} lies outside 0..1; 0 is the base model, 1 the tuned one, and only with "
            "--extrapolate (extrapolate=True) may alpha lie beyond them"
        )


def check_names(base: Iterable[str], tuned: Iterable[str]) -> None:
    """Raise `ModelError` if two models do not have the same tensors."""
    only_base, only_tuned = sorted(set(base) - set(tuned)), sorted(set(tuned) - set(base))
    if only_base or only_tuned:
        raise ModelError(
            "the models differ in their tensors: "
            f"only in the base {first_few(only_base)}; only in the tuned {first_few(only_tuned)}"
        )


def check_architecture(base: Weights, tuned: Weights) -> None:
    """Raise `ModelError` if two models differ in architecture, image preprocessing or tokenizer.

    The written model gets the tokenizer of `tuned`, whose files must exist.
    """
    first, second = (side.config.get("model_cfg", {}) for side in (base, tuned))
    differing: list[str] = []
    if first != second:  # filling in defaults imports open_clip, which is slow
        differing += _differences(filled(first), filled(second))
    sizes = [_sides(side.config.get("preprocess_cfg", {}).get("size")) for side in (base, tuned)]
    if None not in sizes:
        differing += _differences(sizes[0], sizes[1], "preprocess_cfg.size")
    for name in ("mean", "std", "interpolation", "resize_mode"):
        stated = [side.config.get("preprocess_cfg", {}).get(name) for side in (base, tuned)]
        if None not in stated:
            first, second = (list(one) if name in ("mean", "std") else one for one in stated)
            differing += _differences(first, second, f"preprocess_cfg.{name}")
    if differing:
        raise ModelError(
            f"{base.label} and {tuned.label} differ in architecture: {first_few(differing)}; "
            "only a model and what was tuned from it can be patched"
        )
    named = tuned.config.get("model_cfg", {}).get("text_cfg", {}).get("hf_tokenizer_name")
    if named:
        check_vocabulary(tuned.folder, named)
        _check_tokenizers(base, tuned)


def _check_tokenizers(base: Weights, tuned: Weights) -> None:
    """Raise `ModelError` if two models give the same texts different token ids."""
    files = [{p.name: p.read_bytes() for p in side.files_beside} for side in (base, tuned)]
    if files[0] == files[1]:
        return  # so transformers need not be installed
    sources = [models.resolve(str(side.folder), None) for side in (base, tuned)]
    try:
        first, second = (models.tokenizer_of(source)(list(PROBES)) for source in sources)
    except ImportError as error:
        raise ModelError(
            f"the tokenizer files of {base.label} and {tuned.label} differ, and the package "
            f"{error.name} is needed to compare what they do; pip install {error.name}"
        ) from error
    if not torch.equal(first, second):
        raise ModelError(
            f"the tokenizers of {base.label} and {tuned.label} give the same texts other token "
            "ids; only a model and what was tuned from it, with its tokenizer, can be patched"
        )


def _sides(size: Any) -> Any:
    """Return height and width of an image size, which may be one number."""
    return [size, size] if isinstance(size, int) else size


def _differences(first: Any, second: Any, name: str = "") -> Iterator[str]:
    """Yield `field (a against b)` for each difference between two nested configurations."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from _differences(first.get(key), second.get(key), f"{name}.{key}".strip("."))
    elif first != second:
        yield f"{name} ({first} against {second})"


def first_few(names: Sequence[str], count: int = 3) -> str:
    """Return the first few names for a message, with the number of the others."""
    shown = ", ".join(names[:count]) or "none"
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown
