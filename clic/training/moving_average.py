"""The moving average of the weights, which a run keeps in their place if `train.ema` is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """The exponential moving average of the parameters that train, from their first values on.

    theta_ema <- d theta_ema + (1 - d) theta after every step that was not skipped (Polyak and
    Juditsky 1992, in the form of arXiv 1703.01780). As it starts from the base model's weights, it
    needs no correction of its bias. Buffers, such as BatchNorm's statistics, stay those of the
    model.

    Args:
        model: The model, on its device, with what does not train already frozen.
        decay: d, from 0 to below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._mean = {name: p.detach().clone() for name, p in self._own.items()}

    @torch.no_grad()
    def update(self, skipped: Tensor) -> None:
        """Take in the weights after a step, unless it was skipped (1.0, else 0.0)."""
        share = (1 - self.decay) * (1 - skipped)  # on the device, which is not waited for
        for name, mean in self._mean.items():
            mean.add_((self._own[name] - mean) * share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average for the duration of the block, without a copy."""
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
