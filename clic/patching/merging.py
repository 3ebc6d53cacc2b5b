"""One tensor made from several models' tensors: averages, and combined differences from a base.

Each function takes floating tensors of one shape and type, at least fp32 and finite, and is pure.
`merged` converts any tensors to that form. mergekit has the same methods for language models, and
also applies them per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clic.errors import ConfigError, ModelError
from clic.models import check_numbers
from clic.patching.interpolation import COUNTER
from clic.seeding import generator

Combine = Callable[[Sequence[Tensor]], Tensor]
"""Makes one tensor from the models' tensors; the base, if one is needed, comes first."""


def average(models: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sum_i w_i * theta_i / sum_i w_i, a model soup (arXiv 2203.05482, section 2).

    Args:
        models: The models' tensors.
        weights: Their weights, whose sum is not 0; equal weights give the uniform soup.
    """
    total = sum(weights)
    mean = models[0] * (weights[0] / total)
    for one, weight in zip(models[1:], weights[1:], strict=True):
        mean += one * (weight / total)
    return mean


def task_arithmetic(base: Tensor, tuned: Sequence[Tensor], scale: float) -> Tensor:
    """Return theta_0 + lambda * sum_i (theta_i - theta_0) (arXiv 2212.04089, section 2).

    Args:
        base: theta_0.
        tuned: theta_i, each tuned from the base.
        scale: lambda.
    """
    change = torch.zeros_like(base)
    for one in tuned:
        change += one - base
    return base + scale * change


def ties(base: Tensor, tuned: Sequence[Tensor], density: float, scale: float) -> Tensor:
    """Return theta_0 + lambda * tau, the TIES merge (arXiv 2306.01708, Algorithm 1).

    Of each difference theta_i - theta_0, the share `density` with the largest magnitudes is kept,
    including all ties at the limit. For each element the sign of their sum is elected, and tau is
    the mean of those with that sign, or 0 where the sum is 0. The paper trims a model's whole
    difference at once; this function trims each tensor's, as mergekit does.

    Args:
        base: theta_0.
        tuned: theta_i, each tuned from the base.
        density: Share of each difference that is kept, above 0 and at most 1.
        scale: lambda.
    """
    total, agreeing, count = torch.zeros_like(base), torch.zeros_like(base), torch.zeros_like(base)
    trimmed = [_trimmed(one - base, density) for one in tuned]
    for change in trimmed:
        total += change
    elected = total.sign()
    for change in trimmed:
        agrees = (change.sign() == elected) & (change != 0)
        agreeing += torch.where(agrees, change, 0)
        count += agrees
    return base + scale * agreeing / count.clamp(min=1)


def _trimmed(change: Tensor, density: float) -> Tensor:
    """Return a difference with all but its largest magnitudes set to 0."""
    size = change.abs()
    kept = max(1, math.ceil(density * change.numel() - 1e-9))
    limit = size.flatten().kthvalue(change.numel() - kept + 1).values
    return torch.where(size >= limit, change, 0)


def dare(
    base: Tensor,
    tuned: Sequence[Tensor],
    density: float,
    scale: float,
    sources: Sequence[np.random.Generator],
) -> Tensor:
    """Return theta_0 + lambda * sum_i m_i * (theta_i - theta_0) / (1 - p), DARE (arXiv 2311.03099).

    m_i is 1 with probability 1 - p = `density` and 0 otherwise, so the expectation is that of
    `task_arithmetic`, with which the paper combines models too.

    Args:
        base: theta_0.
        tuned: theta_i, each tuned from the base.
        density: 1 - p, above 0 and at most 1.
        scale: lambda.
        sources: A generator for each m_i, which continues from one piece of a tensor to the next.
    """
    change = torch.zeros_like(base)
    for one, source in zip(tuned, sources, strict=True):
        drawn = torch.from_numpy(source.random(base.numel(), dtype=np.float32))
        change += torch.where(drawn.reshape(base.shape) < density, one - base, 0) / density
    return base + scale * change


def model_stock(base: Tensor, tuned: Sequence[Tensor]) -> Tensor:
    """Return t * mean_i theta_i + (1 - t) * theta_0, the model stock (arXiv 2403.19522).

    t = k * cos / (1 + (k - 1) * cos) of k models, where cos is the mean cosine between two of the
    differences theta_i - theta_0 of this tensor. A mean cosine below 0 counts as 0, which gives the
    base; a difference of 0 has cosines of 0.

    Args:
        base: theta_0.
        tuned: theta_i, two or more, each tuned from the base.
    """
    k = len(tuned)
    changes = [(one - base).flatten().double() for one in tuned]
    norms = [float(change.norm()) for change in changes]
    cosines = [
        float(changes[i] @ changes[j]) / (norms[i] * norms[j]) if norms[i] and norms[j] else 0.0
        for i in range(k)
        for j in range(i)
    ]
    cosine = max(0.0, sum(cosines) / len(cosines))
    way = k * cosine / (1 + (k - 1) * cosine)
    return way * average(tuned, [1.0] * k) + (1 - way) * base


def slerp(first: Tensor, second: Tensor, way: float) -> Tensor:
    """Return the point at `way` of the arc between two tensors (Shoemake, SIGGRAPH 1985).

    sin((1 - t) * omega) / sin(omega) * theta_1 + sin(t * omega) / sin(omega) * theta_2, where omega
    is the angle between the two as vectors. If they are parallel, opposite or 0, there is no unique
    arc, and the straight line is used. (The paper has no arXiv number.)

    Args:
        first: theta_1, at `way` 0.
        second: theta_2, at `way` 1.
        way: t, from 0 to 1.
    """
    one, other = first.flatten().double(), second.flatten().double()
    lengths = float(one.norm() * other.norm())
    cosine = float(one @ other) / lengths if lengths else 1.0
    omega = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(omega) < 1e-6:
        return (1 - way) * first + way * second
    parts = math.sin((1 - way) * omega), math.sin(way * omega)
    return (parts[0] * first + parts[1] * second) / math.sin(omega)


class MergeSettings(NamedTuple):
    """How models are merged.

    Attributes:
        method: `uniform`, `weights`, `greedy`, `task`, `ties`, `dare`, `stock` or `slerp`.
        weights: One for each model; empty for equal weights.
        scale: lambda.
        density: Share of each difference that is kept.
        seed: Seed of `dare`'s random masks.
    """

    method: str = "uniform"
    weights: Sequence[float] = ()
    scale: float = 1.0
    density: float = 1.0
    seed: int = 0

    @property
    def in_pieces(self) -> bool:
        """Whether each element depends only on the elements at the same position."""
        return self.method not in ("ties", "stock", "slerp")

    def check(self, models: int) -> None:
        """Check the settings for this number of models, the base not counted.

        Raises:
            ConfigError: A number is out of range, or there are too few or too many models.
        """
        least = 1 if self.method in ("task", "ties", "dare") else 2
        if models < least or (self.method == "slerp" and models != 2):
            asked = "exactly 2" if self.method == "slerp" else f"at least {least}"
            raise ConfigError(f"method={self.method} takes {asked} models, and there are {models}")
        if not math.isfinite(self.scale):
            raise ConfigError(f"scale={self.scale} must be a finite number")
        if not 0.0 < self.density <= 1.0:
            raise ConfigError(f"density={self.density} must be above 0 and at most 1")
        if self.method == "weights" and not self.weights:
            raise ConfigError("method=weights needs weights, one for each model")
        if self.weights and len(self.weights) != models:
            raise ConfigError(f"there are {len(self.weights)} weights for {models} models")
        if any(not 0 <= one < math.inf for one in self.weights) or sum(self.weights or [1]) == 0:
            raise ConfigError(
                f"weights={','.join(f'{one:g}' for one in self.weights)}: each must be 0 or more, "
                "and one above 0"
            )

    def of_tensor(self, name: str, models: int) -> Combine:
        """Return a function that merges one tensor, whole or piece by piece in order."""
        weights = list(self.weights) or [1.0] * models
        if self.method == "task":
            return lambda all_: task_arithmetic(all_[0], all_[1:], self.scale)
        if self.method == "ties":
            return lambda all_: ties(all_[0], all_[1:], self.density, self.scale)
        if self.method == "dare":
            sources = [generator(self.seed, f"dare/{name}", slot=i) for i in range(models)]
            return lambda all_: dare(all_[0], all_[1:], self.density, self.scale, sources)
        if self.method == "stock":
            return lambda all_: model_stock(all_[0], all_[1:])
        if self.method == "slerp":
            return lambda all_: slerp(all_[0], all_[1], weights[1] / sum(weights))
        return lambda all_: average(all_, weights)


def merged(
    name: str, tensors: Sequence[Tensor], combine: Combine, origins: Sequence[object]
) -> Tensor:
    """Return one tensor of several models, or a piece of one.

    It is computed in at least fp32 and returned in the widest of the models' types. Tensors that
    are equal in all models keep their bits; infinite entries and tensors that are not weights must
    agree.

    Args:
        name: The tensor's name.
        tensors: The models' tensors, of one shape.
        combine: The method.
        origins: What errors call the models.

    Raises:
        ModelError: A tensor contains NaN, or models differ where they must agree.
    """
    first = tensors[0]
    if not first.is_floating_point():
        same = all(torch.equal(first, other) for other in tensors[1:])
        if not same and not name.endswith(COUNTER):
            raise ModelError(f"tensor {name!r} holds no weights, yet differs between the models")
        return first.clone()
    dtype = first.dtype
    for other in tensors[1:]:
        dtype = torch.promote_types(dtype, other.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    values = [one.to(exact) for one in tensors]
    for one, origin in zip(values, origins, strict=True):
        if not math.isfinite(float(one.sum())):
            check_numbers({name: one}, origin)
    if all(torch.equal(values[0], other) for other in values[1:]):
        return first.to(dtype, copy=True)
    infinite = values[0].isinf()
    for one in values[1:]:
        if not torch.equal(infinite, one.isinf()) or not torch.equal(
            values[0][infinite], one[infinite]
        ):
            raise ModelError(f"tensor {name!r} is infinite in different places in the models")
    finite = [one.masked_fill(infinite, 0) for one in values] if infinite.any() else values
    made = torch.where(infinite, values[0], combine(finite)).to(dtype)
    if not torch.equal(made.isinf(), infinite):
        raise ModelError(f"tensor {name!r} becomes too large for {dtype}; choose a smaller scale")
    return made
