"""How a step changes the weights: the optimizer, its parameter groups, and the weights' average.

Learning rates are pure functions of the step. With `train.ema`, a run keeps the moving average
of the weights in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer

from clic import models
from clic.errors import ConfigError, pick

Schedule = Callable[[int], float]

FUSED_DEVICES = ("cpu", "cuda")
"""Devices with a fused AdamW, which makes a single pass over the weights."""


def rate_factors(
    model: nn.Module, layer_decay: float = 1.0, vision: float = 1.0
) -> dict[str, float]:
    """Return the factor on the learning rate of each trained parameter, by its name.

    layer_decay ** (N + 1 - d) for a parameter at depth d of a tower of N layers (see
    `models.Tower`), as in BEiT (arXiv 2106.08254), times `vision` in the vision tower;
    logit_scale and logit_bias have 1.

    Raises:
        ConfigError: A tower that trains has no layers to give different rates.
    """
    factors = {name: 1.0 for name, p in model.named_parameters() if p.requires_grad}
    for name, tower in models.towers_of(model).items():
        trained = {n: depth for n, depth in tower.depths.items() if n in factors}
        if trained and layer_decay != 1 and not tower.layers:
            raise ConfigError(
                f"optim.layer_decay={layer_decay} needs a {name} tower whose layers are numbered, "
                "and this model has none; leave it out"
            )
        rate = vision if name == "vision" else 1.0
        for parameter, depth in trained.items():
            factors[parameter] = rate * layer_decay ** (tower.layers + 1 - depth)
    return factors


def param_groups(
    model: nn.Module, weight_decay: float, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups with and without weight decay.

    Matrices decay; biases, norms and scalars (logit_scale) do not. There are at most two groups
    for each factor on the learning rate (see `rate_factors`; 1 by default), the largest factor
    first, and each group is in the model's order.

    Raises:
        ConfigError: No parameter of the model trains.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ConfigError("model.train leaves no parameter to train; name a part of the model")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        factor = 1.0 if factors is None else factors[name]
        groups.setdefault((factor, decays(name, parameter)), []).append(parameter)
    return [
        {
            "params": groups[factor, decay],
            "weight_decay": weight_decay if decay else 0.0,
            "lr_factor": factor,
        }
        for factor, decay in sorted(groups, reverse=True)
    ]


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter has weight decay: matrices do, but not biases, norms, scalars."""
    return parameter.ndim >= 2 and "bias" not in name.rpartition(".")[2]


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-8,
    factors: Mapping[str, float] | None = None,
) -> AdamW:
    """Return AdamW (arXiv 1711.05101) over the trained parameters, fused if possible.

    The model is already on its device. At each step `set_lr` replaces the learning rate, which
    also multiplies the decay of matrices; `betas` are the decay rates of the two moments, and
    `factors` multiply the learning rate of each parameter (see `rate_factors`).

    Raises:
        ConfigError: No parameter of the model trains.
    """
    groups = param_groups(model, weight_decay, factors)
    fused = all(p.device.type in FUSED_DEVICES for group in groups for p in group["params"])
    return AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group: `lr` times the group's factor, if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def step_if_finite(
    optimizer: AdamW, parameters: Iterable[nn.Parameter], grad_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """Take a step unless a gradient is not finite; decided on the device, without waiting for it.

    A skipped step changes neither the weights nor the optimizer's moments. Ranks that average
    their gradients skip the same steps.

    Args:
        optimizer: The result of `adamw`, its gradients already unscaled.
        parameters: All trained parameters.
        grad_clip: Largest norm of the gradients; None does not clip.

    Returns:
        The gradients' norm before clipping, and 1.0 if the step was skipped, otherwise 0.0.
    """
    trained = [p for p in parameters if p.grad is not None]
    norm = get_total_norm([p.grad for p in trained if p.grad is not None])
    if grad_clip is not None:
        clip_grads_with_norm_(trained, grad_clip, norm)
    skipped = (~norm.isfinite()).float()
    # The fused kernel reads this attribute, which torch's gradient scaler also sets.
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]
    return norm, skipped


class SkippedSteps:
    """Counts, on their `device`, how many steps in a row `step_if_finite` skipped."""

    def __init__(self, device: torch.device) -> None:
        # The current streak, the longest one since the last reading, the last skipped step.
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)

    def add(self, skipped: Tensor, number: int) -> None:
        """Count a step, given whether it was skipped (1.0 or 0.0) and its number."""
        row, most, last = self._counts.unbind()
        row = (row + 1) * skipped.long()
        last = torch.where(skipped > 0, number, last)
        self._counts = torch.stack([row, torch.maximum(most, row), last])

    def read(self) -> tuple[int, int]:
        """Return the longest streak since the last reading, and the last skipped step's number.

        This waits for the device.
        """
        row, most, last = self._counts.tolist()
        self._counts[1] = row
        return most, last


class RunningStatistics:
    """Restores BatchNorm's statistics, which the forward pass of a skipped step has spoilt."""

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._own = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._before: list[Tensor] = []

    def remember(self) -> None:
        """Save them before a step."""
        self._before = [buffer.clone() for buffer in self._own]

    @torch.no_grad()
    def put_back(self, skipped: Tensor) -> None:
        """Restore them, on the device, if the step was skipped (1.0, else 0.0)."""
        for buffer, before in zip(self._own, self._before, strict=True):
            buffer.copy_(torch.where(skipped > 0, before, buffer))


class MovingAverage:
    """The exponential moving average of the trained parameters, from their initial values on.

    theta_ema <- d theta_ema + (1 - d) theta after every step that was not skipped (Polyak and
    Juditsky 1992, in the form of arXiv 1703.01780). As it starts from the base model's weights, it
    needs no bias correction. Buffers, such as BatchNorm's statistics, stay those of the
    model.

    Args:
        model: The model, on its device, with parameters that do not train already frozen.
        decay: d, from 0 to below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._mean = {name: p.detach().clone() for name, p in self._own.items()}

    @torch.no_grad()
    def update(self, skipped: Tensor) -> None:
        """Add the weights after a step, unless it was skipped (1.0, else 0.0)."""
        share = (1 - self.decay) * (1 - skipped)  # on the device, without waiting for it
        for name, mean in self._mean.items():
            mean.add_((self._own[name] - mean) * share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the average for the duration of the block, without a copy."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self._own.items():
            parameter.data, self._mean[name] = self._mean[name], parameter.data

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint stores."""
        return dict(self._mean)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a checkpoint; one without an average starts it from the model's weights.

        Raises:
            KeyError: The checkpoint averages other parameters.
        """
        for name, mean in self._mean.items():
            mean.copy_(state[name] if state else self._own[name].detach())


def clic_schedule(
    step: int, *, lr: float, steps: int, warmup_steps: int, lr_start: float, lr_end: float
) -> float:
    """Return CLIC's learning rate: a linear warm-up that includes both ends, then half a cosine.

    For t < warmup: lr_start + (lr - lr_start) t / (warmup - 1); then with i = t - warmup and
    n = steps - warmup: lr_end + (lr - lr_end) / 2 (1 + cos(pi i / n)). So the peak occurs twice
    and lr_end is never quite reached, as in the code of arXiv 2505.24424.
    """
    if step < warmup_steps:
        # As with numpy.linspace, a warm-up of one step stays at its lower end.
        return lr_start + (lr - lr_start) * step / max(1, warmup_steps - 1)
    done = (step - warmup_steps) / (steps - warmup_steps)
    return lr_end + (lr - lr_end) / 2 * (1 + math.cos(math.pi * done))


def warmup_cosine(step: int, *, lr: float, steps: int, warmup_steps: int) -> float:
    """Return open_clip's learning rate: a warm-up from lr / warmup, then a cosine to 0.

    For t < warmup: lr (t + 1) / warmup; then
    lr / 2 (1 + cos(pi (t - warmup) / (steps - warmup))).
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return lr / 2 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def constant(step: int, *, lr: float, steps: int, warmup_steps: int) -> float:
    """Return a learning rate that stays at `lr` after a warm-up of lr (t + 1) / warmup."""
    return lr * min(1.0, (step + 1) / warmup_steps) if warmup_steps else lr


SCHEDULES: dict[str, Callable[..., float]] = {
    "clic": clic_schedule,
    "warmup_cosine": warmup_cosine,
    "constant": constant,
}


def make_schedule(
    name: str,
    *,
    lr: float,
    steps: int,
    warmup_steps: int = 0,
    lr_start: float | None = None,
    lr_end: float | None = None,
) -> Schedule:
    """Return the learning rate as a function of the step, which raises ValueError beyond the run.

    Args:
        name: A key of `SCHEDULES`.
        lr: Peak.
        steps: Length of the run; the function is defined on 0..steps - 1.
        warmup_steps: Steps of warm-up; a shorter run ends within it.
        lr_start: Start of the warm-up of ``"clic"``; None means 0.
        lr_end: End of the cosine of ``"clic"``; None means 0.

    Raises:
        ConfigError: A name or value is invalid, or the schedule does not use a setting.
    """
    rate = pick(SCHEDULES, name, "optim.schedule")
    if steps < 1:
        raise ConfigError(f"train.max_steps={steps} must be at least 1")
    if warmup_steps < 0:
        raise ConfigError(f"optim.warmup_steps={warmup_steps} must not be negative")
    ends = {"lr_start": lr_start, "lr_end": lr_end}
    for setting, value in {"lr": lr, **ends}.items():
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"optim.{setting}={value} must be a finite number, 0 or above")
        if value is not None and setting in ends and name != "clic":
            raise ConfigError(
                f"optim.{setting}={value} has no effect with optim.schedule={name}; "
                "set it to null, or use optim.schedule=clic"
            )
    used = {setting: value or 0.0 for setting, value in ends.items()} if name == "clic" else {}

    def at(step: int) -> float:
        if not 0 <= step < steps:
            raise ValueError(f"step {step} is outside the schedule's 0..{steps - 1}")
        return rate(step, lr=lr, steps=steps, warmup_steps=warmup_steps, **used)

    return at
