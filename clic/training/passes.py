"""Forward and backward pass of a step: a batch at once, or in chunks with cached gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clic import images
from clic.errors import ConfigError
from clic.losses import Objective
from clic.models import FeatureExtractor, LossModule
from clic.training.frozen_base import FrozenBase
from clic.training.strategy import DataParallel
from clic.types import Batch, Features, Kind, LossOutput, TextPlan

SCALE, BIAS = "logit_scale", "logit_bias"

Scale = Callable[[Tensor], Tensor]
"""Scales a loss, as the gradient scaler does."""


class Pass(ABC):
    """Computes a batch's loss and adds its gradient to the trained parameters."""

    def __init__(self, strategy: DataParallel, base: FrozenBase | None) -> None:
        self.strategy, self.base = strategy, base

    @abstractmethod
    def __call__(self, batch: Batch, scale: Scale) -> LossOutput:
        """Return the loss of a batch on the device, once its backward pass is done."""

    def _base_features(self, pixels: Tensor, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return the frozen base's features of images and true captions, if there is a base."""
        if self.base is None:
            return None, None
        plan, slots = batch.text_plan, batch.positives.shape[1]
        # A plan includes the false captions.
        read = batch.positives if plan is None else batch.texts
        base_images, base_texts = self.base(pixels, read, plan)
        return base_images, None if base_texts is None else base_texts[:, :slots]


class WholePass(Pass):
    """Computes a batch at once.

    Args:
        losses: From a batch's tensors to its loss.
        strategy: Device, precision and ranks.
        base: The frozen base, with self-distillation.
        find_unused: Whether some kinds of batch leave trained parameters without gradient.
    """

    def __init__(
        self,
        losses: LossModule,
        strategy: DataParallel,
        base: FrozenBase | None = None,
        find_unused: bool = False,
    ) -> None:
        super().__init__(strategy, base)
        self.losses = strategy.wrap(losses, find_unused)

    def __call__(self, batch: Batch, scale: Scale) -> LossOutput:
        """Return the loss of a batch on the device, once its backward pass is done."""
        pixels = _pixels(batch)
        with self.strategy.autocast():
            output: LossOutput = self.losses(
                pixels, batch.positives, batch.negatives, batch.negative_mask, batch.kind,
                batch.negative_kinds, *self._base_features(pixels, batch), batch.text_plan,
            )  # fmt: skip
        _backward(output.total, scale)
        return output


class CachedPass(Pass):
    """Computes a batch in chunks of `size` rows, with the whole batch's gradient: GradCache.

    As in arXiv 2101.06983: it computes the features of all chunks without a graph; the objective
    and its gradient for these features; then each chunk again with a graph, which propagates this
    gradient back. Only one chunk's activations are in memory at a time. Random numbers, such as
    those of dropout, are the same both times. Towers that do not train run only once. The objective
    gathers all ranks' features as usual, and the ranks average the parameters' gradients once, with
    the last chunk.

    Args:
        losses: The objectives, and the features they are computed from.
        strategy: Device, precision and ranks.
        size: Rows of a chunk; the last one may have fewer.
        base: The frozen base, with self-distillation.
        find_unused: Whether some kinds of batch leave trained parameters without gradient.
    """

    def __init__(
        self,
        losses: LossModule,
        strategy: DataParallel,
        size: int,
        base: FrozenBase | None = None,
        find_unused: bool = False,
    ) -> None:
        super().__init__(strategy, base)
        self.size, self.features = size, losses.features
        self.objectives: dict[Kind, Objective] = losses.objectives
        self.replay = strategy.wrap(_Replay(losses.features), find_unused)

    def __call__(self, batch: Batch, scale: Scale) -> LossOutput:
        """Return the loss of a batch on the device, once its backward pass is done."""
        starts, chunks = range(0, batch.images.shape[0], self.size), batch.chunks(self.size)
        leaves, draws = self._encode(batch, chunks)
        output = self.objectives[batch.kind](leaves.features(batch))
        _backward(output.total, scale)
        for start, chunk, drawn in zip(starts, chunks, draws, strict=True):
            last = start == starts[-1]
            gradients = leaves.gradients(start, start + self.size, with_scalars=last)
            if not gradients:  # e.g. only a scale has one, which goes with the last chunk
                continue
            with nullcontext() if last else self.strategy.no_sync(self.replay):
                drawn.restore()
                with self.strategy.autocast():
                    product = self.replay(_pixels(chunk), chunk.texts, gradients, chunk.text_plan)
                product.backward()
        return output

    @torch.no_grad()
    def _encode(self, batch: Batch, chunks: list[Batch]) -> tuple[_Leaves, list[_RandomState]]:
        """Return the features of all chunks, and the random state before each of them."""
        found: dict[str, list[Any]] = {"images": [], "texts": []}
        found |= {"base_images": [], "base_positives": []}
        draws = []
        for chunk in chunks:
            draws.append(_RandomState(self.strategy.device))
            pixels = _pixels(chunk)
            with self.strategy.autocast():
                found["images"].append(self.features.of_images(pixels))
                found["texts"].append(self.features.of_texts(chunk.texts, chunk.text_plan))
                base = self._base_features(pixels, chunk)
            found["base_images"].append(base[0])
            found["base_positives"].append(base[1])
        joined = {name: _joined(parts) for name, parts in found.items()}
        return _Leaves(self.features, **joined), draws


class _Leaves:
    """The features of a batch as leaves of a graph, which collect an objective's gradient."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        images: Tensor,
        texts: Tensor,
        base_images: Tensor | None,
        base_positives: Tensor | None,
    ) -> None:
        model, trained = extractor.model, extractor.trained
        self.rows = {
            "images": images.requires_grad_(trained.vision),
            "texts": texts.requires_grad_(trained.text),
        }
        self.scalars = {SCALE: _leaf(model.logit_scale, model.logit_scale.exp())}
        if getattr(model, "logit_bias", None) is not None:
            self.scalars[BIAS] = _leaf(model.logit_bias, model.logit_bias)
        self.base = base_images, base_positives

    def features(self, batch: Batch) -> Features:
        """Return the input of an objective."""
        texts, slots = self.rows["texts"], batch.positives.shape[1]
        return Features(
            image_features=self.rows["images"],
            positive_features=texts[:, :slots],
            logit_scale=self.scalars[SCALE],
            negative_features=None if batch.negatives is None else texts[:, slots:],
            negative_mask=batch.negative_mask,
            logit_bias=self.scalars.get(BIAS),
            negative_kinds=batch.negative_kinds,
            base_images=self.base[0],
            base_positives=self.base[1],
        )

    def gradients(self, start: int, stop: int, with_scalars: bool) -> dict[str, Tensor]:
        """Return the gradients of rows `start` to `stop`, and of the scalars, if there are any."""
        leaves = {name: leaf.grad for name, leaf in self.rows.items()}
        found = {name: grad[start:stop] for name, grad in leaves.items() if grad is not None}
        for name, scalar in self.scalars.items() if with_scalars else ():
            if scalar.grad is not None:
                found[name] = scalar.grad
        return found


class _Replay(nn.Module):
    """The module that data-parallel training wraps: it returns a scalar with the loss's gradient.

    The scalar sums a chunk's features and the scale and bias, each times the gradient of the whole
    batch's loss for it.
    """

    def __init__(self, features: FeatureExtractor) -> None:
        super().__init__()
        self.features = features

    def forward(
        self,
        pixels: Tensor,
        texts: Tensor,
        gradients: dict[str, Tensor],
        plan: TextPlan | None = None,
    ) -> Tensor:
        """Return the scalar; `gradients` has the entries of `_Leaves.gradients`."""
        model = self.features.model
        makers: dict[str, Callable[[], Tensor]] = {
            "images": lambda: self.features.of_images(pixels),
            "texts": lambda: self.features.of_texts(texts, plan),
            SCALE: lambda: model.logit_scale.exp(),
            BIAS: lambda: model.logit_bias,
        }
        products = [(makers[name]() * gradient).sum() for name, gradient in gradients.items()]
        return torch.stack(products).sum()


class _RandomState:
    """The state of a device's random numbers, to draw the same ones again."""

    def __init__(self, device: torch.device) -> None:
        self._cpu, self._device = torch.get_rng_state(), device
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Make the next numbers those that followed this state."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def check_no_batch_norm(model: nn.Module, size: int) -> None:
    """Refuse chunks for a model in which the rows of a batch depend on each other.

    Raises:
        ConfigError: A BatchNorm trains, whose statistics would be those of `size` rows.
    """
    for name, module in model.named_modules():
        trains = any(p.requires_grad for p in module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and trains:
            raise ConfigError(
                f"train.micro_batch={size} would change the statistics of {name} (BatchNorm), "
                "which are those of a whole batch; leave it out, or train another part of the "
                "model, e.g. model.train=text"
            )


def _pixels(batch: Batch) -> Tensor:
    return images.normalise(batch.images, batch.mean, batch.std)


def _leaf(parameter: Tensor, value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_(parameter.requires_grad)


def _joined(parts: list[Any]) -> Any:
    """Return the rows of all parts, or None if there are none."""
    whole = [part for part in parts if part is not None]
    return torch.cat(whole) if whole else None


def _backward(total: Tensor, scale: Scale) -> None:
    """Run the backward pass of a loss.

    A loss that is not finite makes the gradients of all ranks NaN, so that all skip the step.
    """
    spoilt = torch.where(total.detach().isfinite(), 1.0, math.nan)
    scale(total * spoilt).backward()
