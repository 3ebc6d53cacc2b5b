"""The two towers of a CLIP-like model: which one trains, and text without padding.

From a batch to unit-norm features: the forward pass of training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from clic.errors import ConfigError, pick
from clic.types import Batch, Features

OpenClip = Any
"""An open_clip module, whose attributes its own classes do not type."""

VISION_PREFIX = "visual."
SCALARS = ("logit_scale", "logit_bias")


@dataclass(frozen=True)
class Trained:
    """Which towers are trained."""

    vision: bool
    text: bool


PARTS = {
    "text": Trained(vision=False, text=True),
    "vision": Trained(vision=True, text=False),
    "both": Trained(vision=True, text=True),
}


def set_trainable(model: nn.Module, train: str, train_logit_scale: bool) -> Trained:
    """Freeze what is not trained.

    Everything outside the vision tower counts as text, logit_scale and logit_bias included.

    Args:
        model: open_clip's module; `requires_grad` of its parameters is set.
        train: `text`, `vision` or `both`.
        train_logit_scale: Whether logit_scale and logit_bias train with the text tower.

    Returns:
        Which towers train.

    Raises:
        ConfigError: `train` is unknown.
    """
    trained = pick(PARTS, train, "model.train")
    for name, parameter in model.named_parameters():
        if name.startswith(VISION_PREFIX):
            parameter.requires_grad_(trained.vision)
        elif name in SCALARS:
            parameter.requires_grad_(trained.text and train_logit_scale)
        else:
            parameter.requires_grad_(trained.text)
    return trained


def reached(model: nn.Module, loss: Tensor) -> set[str]:
    """Return the names of the trained parameters that a loss was computed from.

    They are those that its backward pass gives a gradient, be it zero.
    """
    leaves: set[int] = set()
    seen: set[Any] = set()
    nodes: list[Any] = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaves.add(id(getattr(node, "variable", None)))
        nodes += [following for following, _ in node.next_functions]
    return {name for name, parameter in model.named_parameters() if id(parameter) in leaves}


def freeze(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Freeze the named parameters; return them for a reader, whole modules as `module.*`."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    names = trained.intersection(names)
    kept = trained - names
    shown: dict[str, None] = {}
    for name, parameter in model.named_parameters():
        if name not in names:
            continue
        parameter.requires_grad_(False)
        parts = name.split(".")
        modules = (".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
        whole = (m for m in modules if not any(other.startswith(m) for other in kept))
        module = next(whole, None)
        shown[name if module is None else f"{module}*"] = None
    return list(shown)


def set_mode(model: nn.Module, trained: Trained) -> None:
    """Put trained towers into training mode and frozen ones into evaluation mode.

    A frozen tower in training mode would still move BatchNorm's statistics and drop activations.
    """
    model.train()
    for name, child in model.named_children():
        child.train(trained.vision if name == "visual" else trained.text)


def enable_grad_checkpointing(model: OpenClip) -> None:
    """Recompute activations in the backward pass.

    Raises:
        ConfigError: A tower of this model cannot.
    """
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, NotImplementedError, AttributeError) as error:
        raise ConfigError(
            "model.grad_checkpointing=true: a tower of this model does not support it; set false"
        ) from error


class TextEncoder(nn.Module):
    """Encodes token ids, leaving out the padding past the longest text where that is exact.

    Behind a causal mask a token never sees what follows it, so when the feature is read at the
    end-of-text token, everything after the longest text's end can be cut. Other towers
    (bidirectional, or pooled elsewhere) get the full context.
    """

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model
        tower: OpenClip = getattr(model, "text", model)
        self._prefix = "model.text." if tower is not model else "model."
        self.pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
        self.can_trim = (
            getattr(tower, "attn_mask", None) is not None
            and self.pool in ("argmax", "eos")
            and getattr(tower, "cls_emb", None) is None
            and not getattr(tower, "use_pad_mask", False)
        )
        self._eos_id: Any = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
        self._tower: list[OpenClip] = [tower]  # a list, so that it is not registered twice

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the text features, not normalised.

        Tokens on a GPU keep the width they have, because reading their longest length back would
        wait for it: `trim` them before they go there.

        Args:
            tokens: int64 [N, L], whole or trimmed.

        Returns:
            [N, D].
        """
        if tokens.device.type == "cpu":
            tokens = self.trim(tokens)
        length = tokens.shape[-1]
        if not self.can_trim or length == len(self._tower[0].positional_embedding):
            return self._encode(tokens)
        tower = self._tower[0]
        trimmed = {
            f"{self._prefix}positional_embedding": tower.positional_embedding[:length],
            f"{self._prefix}attn_mask": tower.attn_mask[:length, :length],
        }
        return functional_call(_Encode(self.model), trimmed, (tokens,))

    def trim(self, tokens: Tensor) -> Tensor:
        """Return token ids [..., L] cut behind the last end-of-text token of all, where exact."""
        if not self.can_trim:
            return tokens
        return tokens[..., : int(self.ends(tokens).max()) + 1]

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the index of each text's end-of-text token, int64 [...].

        The end is found as the tower finds it. Counting what is not padding would be wrong:
        the padding's id 0 is also that of "!" in CLIP's vocabulary.
        """
        marks = tokens if self.pool == "argmax" else tokens.eq(self._eos_id).int()
        return marks.argmax(dim=-1)

    def _encode(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


class _Encode(nn.Module):
    """`encode_text` as a forward, which is what `functional_call` calls."""

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def frozen(is_frozen: bool) -> torch.autograd.grad_mode.set_grad_enabled:
    """Return a context in which a frozen tower keeps nothing for the backward pass."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen)


class FeatureExtractor(nn.Module):
    """The module that data-parallel training wraps: images and captions in, `Features` out.

    Args:
        model: open_clip's module.
        trained: Which of its towers train; a frozen one runs without gradient.
    """

    def __init__(self, model: OpenClip, trained: Trained) -> None:
        super().__init__()
        self.encode_text = TextEncoder(model)
        self.trained = trained

    @property
    def model(self) -> OpenClip:
        """open_clip's module."""
        return self.encode_text.model

    def trim(self, batch: Batch) -> Batch:
        """Return a batch on the CPU without padding behind its longest caption, where exact.

        Before the batch goes to a GPU, because finding the length there would wait for it.
        """
        if batch.negatives is None:
            return replace(batch, positives=self.encode_text.trim(batch.positives))
        texts = self.encode_text.trim(torch.cat([batch.positives, batch.negatives], dim=1))
        slots = batch.positives.shape[1]
        return replace(batch, positives=texts[:, :slots], negatives=texts[:, slots:])

    def forward(
        self,
        images: Tensor,
        positives: Tensor,
        negatives: Tensor | None = None,
        negative_mask: Tensor | None = None,
    ) -> Features:
        """Encode both sides.

        Args:
            images: [B, 3, S, S], normalised.
            positives: int64 [B, P, L].
            negatives: int64 [B, K, L] or None.
            negative_mask: bool [B, K] or None.

        Returns:
            Features of this rank, unit norm in at least fp32.
        """
        with frozen(not self.trained.vision):
            image_features = _unit(self.model.encode_image(images))
        count, slots = positives.shape[:2]
        captions = positives if negatives is None else torch.cat([positives, negatives], dim=1)
        with frozen(not self.trained.text):
            text_features = _unit(self.encode_text(captions.flatten(0, 1)))
        text_features = text_features.unflatten(0, (count, captions.shape[1]))
        logit_bias = getattr(self.model, "logit_bias", None)
        return Features(
            image_features=image_features,
            positive_features=text_features[:, :slots],
            logit_scale=self.model.logit_scale.exp(),
            negative_features=None if negatives is None else text_features[:, slots:],
            negative_mask=negative_mask,
            logit_bias=logit_bias,
        )


def _unit(features: Tensor) -> Tensor:
    # Half-precision norms lose the third digit of a cosine, so normalise in fp32.
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return F.normalize(features, dim=-1)
