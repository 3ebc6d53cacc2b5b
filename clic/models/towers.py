"""The two towers of a CLIP-like model in training: from a batch to its features and its loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from clic.errors import ConfigError
from clic.parts import Trained
from clic.types import Batch, Features, Kind, LossOutput

if TYPE_CHECKING:
    from clic.losses import Objective

OpenClip = Any
"""An open_clip module; open_clip does not declare the types of its attributes."""


MANY = 4  # convolutions; a transformer's stem has fewer


def enable_grad_checkpointing(model: OpenClip) -> None:
    """Recompute activations in the backward pass; `ConfigError` if a tower does not support it."""
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, NotImplementedError, AttributeError) as error:
        raise ConfigError(
            "model.grad_checkpointing=true: a tower of this model does not support it; set false"
        ) from error


class TextEncoder(nn.Module):
    """Encodes token ids without the padding after the longest text, if that is exact.

    With a causal mask a token does not depend on later ones, so if the feature is read at the
    end-of-text token, everything after the end of the longest text can be dropped. A Hugging Face
    tower masks its padding in attention and pooling alike, so what is padding in all texts can be
    dropped too. Other towers (bidirectional, or pooled elsewhere) get the full context.
    """

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model
        tower: OpenClip = getattr(model, "text", model)
        self._prefix = "model.text." if tower is not model else "model."
        self.pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
        self.padding: int | None = None
        if _is_hugging_face(tower):
            self.padding = tower.config.pad_token_id
        self.can_trim = self.padding is not None or (
            getattr(tower, "attn_mask", None) is not None
            and self.pool in ("argmax", "eos")
            and getattr(tower, "cls_emb", None) is None
            and not getattr(tower, "use_pad_mask", False)
        )
        self._eos_id: Any = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
        self._tower: list[OpenClip] = [tower]  # a list, so that it is not registered twice

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the text features [N, D], not normalised, of token ids [N, L], whole or trimmed.

        Tokens on a GPU keep their width, because finding the longest text there would wait for
        the GPU: `trim` them first.
        """
        if tokens.device.type == "cpu":
            tokens = self.trim(tokens)
        length, tower = tokens.shape[-1], self._tower[0]
        if self.padding is not None or not self.can_trim:
            return self.model.encode_text(tokens)
        if length == len(tower.positional_embedding):
            return self.model.encode_text(tokens)
        trimmed = {
            f"{self._prefix}positional_embedding": tower.positional_embedding[:length],
            f"{self._prefix}attn_mask": tower.attn_mask[:length, :length],
        }
        return functional_call(_Encode(self.model), trimmed, (tokens,))

    def trim(self, tokens: Tensor) -> Tensor:
        """Return token ids [..., L] cut after the end of the longest text, if that is exact."""
        if not self.can_trim:
            return tokens
        if self.padding is not None:
            used = tokens.ne(self.padding).flatten(0, -2).any(0).nonzero()
            return tokens[..., : int(used.max()) + 1] if len(used) else tokens[..., :1]
        return tokens[..., : int(self.ends(tokens).max()) + 1]

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the index of each text's end-of-text token, int64 [...], as the tower finds it.

        Counting the tokens that are not padding would be wrong: in CLIP's vocabulary, the
        padding's id 0 is also the id of "!".
        """
        marks = tokens if self.pool == "argmax" else tokens.eq(self._eos_id).int()
        return marks.argmax(dim=-1)


def _is_hugging_face(tower: nn.Module) -> bool:
    """Return whether a text tower is open_clip's wrapper of one of transformers."""
    from open_clip.hf_model import HFTextEncoder

    return isinstance(tower, HFTextEncoder)


def images_layout(model: OpenClip) -> torch.memory_format:
    """Return the memory format in which the vision tower's convolutions run fastest.

    Convolutional networks (of timm) take half the time on a CPU if channels come last; a
    transformer has one convolution, for which it makes no difference.
    """
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.visual.modules())
    return torch.channels_last if convolutions > MANY else torch.contiguous_format


class _Encode(nn.Module):
    """`encode_text` as the `forward` that `functional_call` needs."""

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def _grad_if(trains: bool) -> torch.autograd.grad_mode.set_grad_enabled:
    """Return a context in which a frozen tower stores nothing for the backward pass."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and trains)


class FeatureExtractor(nn.Module):
    """From images and captions to `Features`; a tower that does not train runs without gradient."""

    def __init__(self, model: OpenClip, trained: Trained) -> None:
        super().__init__()
        self.encode_text, self.trained = TextEncoder(model), trained
        self._layout = images_layout(model)

    @property
    def model(self) -> OpenClip:
        """open_clip's module."""
        return self.encode_text.model

    def trim(self, batch: Batch) -> Batch:
        """Return a batch on the CPU without the padding after its longest caption, if exact."""
        if batch.negatives is None:
            return replace(batch, positives=self.encode_text.trim(batch.positives))
        texts = self.encode_text.trim(torch.cat([batch.positives, batch.negatives], dim=1))
        slots = batch.positives.shape[1]
        return replace(batch, positives=texts[:, :slots], negatives=texts[:, slots:])

    def of_images(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of normalised images [B, 3, S, S], unit norm."""
        layout = self._layout
        if self.trained.vision and images.device.type == "cpu":
            # In the other layout torch 2.14's backward pass on a CPU writes beyond its memory for
            # some networks (FastViT, that of MobileCLIP), and the process dies.
            layout = torch.contiguous_format
        with _grad_if(self.trained.vision):
            return _unit(self.model.encode_image(images.contiguous(memory_format=layout)))

    def of_texts(self, texts: Tensor) -> Tensor:
        """Return the features [B, N, D] of token ids [B, N, L], unit norm."""
        with _grad_if(self.trained.text):
            features = _unit(self.encode_text(texts.flatten(0, 1)))
        return features.unflatten(0, (texts.shape[0], texts.shape[1]))

    def forward(
        self,
        images: Tensor,
        positives: Tensor,
        negatives: Tensor | None = None,
        negative_mask: Tensor | None = None,
        negative_kinds: tuple[str, ...] = (),
    ) -> Features:
        """Encode images [B, 3, S, S] (normalised) and captions, int64 [B, P, L] and [B, K, L].

        `negative_mask` is bool [B, K]; `negative_kinds` has the kind of each of the K negatives, or
        nothing. The features are those of this rank, with unit norm in at least fp32.
        """
        slots = positives.shape[1]
        captions = positives if negatives is None else torch.cat([positives, negatives], dim=1)
        image_features, text_features = self.of_images(images), self.of_texts(captions)
        return Features(
            image_features=image_features,
            positive_features=text_features[:, :slots],
            logit_scale=self.model.logit_scale.exp(),
            negative_features=None if negatives is None else text_features[:, slots:],
            negative_mask=negative_mask,
            logit_bias=getattr(self.model, "logit_bias", None),
            negative_kinds=negative_kinds,
        )


class LossModule(nn.Module):
    """The module that data-parallel training wraps: from a batch's tensors to its loss.

    It includes the objective of each kind of batch, so that the wrapper sees which features a loss
    does not use.
    """

    def __init__(self, features: FeatureExtractor, objectives: dict[Kind, Objective]) -> None:
        super().__init__()
        self.features, self.objectives = features, objectives

    def forward(
        self,
        images: Tensor,
        positives: Tensor,
        negatives: Tensor | None,
        negative_mask: Tensor | None,
        kind: Kind,
        negative_kinds: tuple[str, ...],
        base_images: Tensor | None = None,
        base_positives: Tensor | None = None,
    ) -> LossOutput:
        """Return the loss of a batch; see `FeatureExtractor.forward`, `Batch` and `Features`."""
        features = self.features(images, positives, negatives, negative_mask, negative_kinds)
        features = replace(features, base_images=base_images, base_positives=base_positives)
        return self.objectives[kind](features)


def _unit(features: Tensor) -> Tensor:
    # Norms in half precision would cost the third digit of a cosine.
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return F.normalize(features, dim=-1)
