"""What a model is, told from its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from clic.models.clip_model import ClipModel
from clic.models.towers import SCALARS, VISION_PREFIX


def weights_sha256(model: nn.Module, prefix: str = "") -> str:
    """Return the SHA-256 of the tensors' names, types and values, of names with `prefix` alone."""
    return _sha256(model, lambda name: name.startswith(prefix))


def _sha256(model: nn.Module, counts: Callable[[str], bool]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if counts(name):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def text_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of the weights that decide text features: neither vision nor scalars."""
    return _sha256(model, lambda name: not name.startswith(VISION_PREFIX) and name not in SCALARS)


def identity(clip: ClipModel) -> dict[str, Any]:
    """Return name, source, architecture, sizes and the hashes of the weights."""
    source = clip.source
    return {
        "name": source.name,
        "source": source.open_clip_name,
        "pretrained": source.pretrained,
        "architecture": source.architecture,
        "activation": source.activation,
        "parameters": sum(p.numel() for p in clip.model.parameters()),
        "image_size": clip.preprocess.size,
        "context_length": clip.context_length,
        "weights_sha256": weights_sha256(clip.model),
        "vision_sha256": weights_sha256(clip.model, VISION_PREFIX),
        "text_sha256": text_sha256(clip.model),
    }
