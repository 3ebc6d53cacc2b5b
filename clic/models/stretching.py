"""More positions for a tower: Long-CLIP's for a context, open_clip's for another image size."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clic.errors import ConfigError
from clic.models.loading import ClipModel, preprocess_of
from clic.models.text_encoder import OpenClip

KEPT = 20
"""Positions that stay as they are; nearly all of CLIP's training captions end within them."""


def stretched(positions: Tensor, length: int) -> Tensor:
    """Return a position embedding for more positions.

    Knowledge-preserving stretching of Long-CLIP (arXiv 2403.15378, section 3.1): with L positions
    before and l after, the first 20 are kept, and the others are spread by the ratio
    r = (l - 20) / (L - 20), which is 4 for 77 and 248:

        new[20 + j] = PE(20 + j / r), j = 0, ..., l - 21,

    where PE is linear between two neighbours, and beyond the last position continues with the last
    step (as the published code does).

    Args:
        positions: Embedding of L >= 22 positions, floating [L, width].
        length: l, more than L.

    Returns:
        [l, width] of the same dtype and device, computed in float64.
    """
    old = positions.detach().double()
    ratio = (length - KEPT) / (len(old) - KEPT)
    at = KEPT + torch.arange(length - KEPT, dtype=torch.float64, device=old.device) / ratio
    lower = at.floor().long().clamp(max=len(old) - 2)
    share = (at - lower)[:, None]
    spread = (1 - share) * old[lower] + share * old[lower + 1]
    return torch.cat([old[:KEPT], spread]).to(positions.dtype)


def stretch(clip: ClipModel, length: int) -> ClipModel:
    """Return a model with a longer context; its module is changed in place.

    Tokenizer, causal mask and architecture are adapted, so the model is saved and loaded like any
    other. With a causal mask, texts that fit into the first 20 tokens keep their features.

    Args:
        clip: A model whose text tower is open_clip's own.
        length: Tokens of the new context, more than the present one has.

    Raises:
        ConfigError: The text tower is of another kind, or `length` is not larger.
    """
    tower: OpenClip = getattr(clip.model, "text", clip.model)
    setting, name = f"model.context_length={length}", clip.source.name
    positions = getattr(tower, "positional_embedding", None)
    if not isinstance(positions, nn.Parameter) or getattr(tower, "cls_emb", None) is not None:
        raise ConfigError(
            f"{setting}: the text tower of {name} is not a plain one of open_clip, so its context "
            "cannot be stretched; leave it out"
        )
    present = len(positions)
    if length == present:
        raise ConfigError(f"{setting} has no effect: that is the context of {name}; leave it out")
    if length < present or present < KEPT + 2:
        raise ConfigError(
            f"{setting}: the context of {name} is {present}; one of at least {KEPT + 2} can be "
            "stretched, to a longer one"
        )
    tower.positional_embedding = nn.Parameter(stretched(positions, length), positions.requires_grad)
    tower.context_length = length
    if hasattr(tower, "num_pos"):
        tower.num_pos = length
    if clip.model is not tower and hasattr(clip.model, "context_length"):
        clip.model.context_length = length
    if getattr(tower, "attn_mask", None) is not None:
        mask = torch.full((length, length), -torch.inf, device=positions.device)
        tower.attn_mask = mask.triu(1).to(tower.attn_mask.dtype)  # as open_clip builds it
    tokenizer: Any = copy.copy(clip.tokenizer)
    tokenizer.context_length = length
    architecture = copy.deepcopy(clip.source.architecture)
    architecture["text_cfg"]["context_length"] = length
    source = replace(clip.source, architecture=architecture)
    return replace(clip, tokenizer=tokenizer, source=source)


def resize_images(clip: ClipModel, size: int) -> ClipModel:
    """Return a model for images of another size; its module is changed in place.

    The position embedding of the patches is interpolated as open_clip does when it loads weights
    for another size (bicubic, antialiased). Preprocessing and architecture are adapted.

    Args:
        clip: A model whose vision tower is open_clip's own vision transformer.
        size: Side S of the square input in pixels.

    Raises:
        ConfigError: The vision tower is of another kind, or `size` does not fit its patches.
    """
    import open_clip
    from open_clip.model import resize_pos_embed

    visual: Any = clip.model.visual
    setting, name = f"model.image_size={size}", clip.source.name
    positions, present = getattr(visual, "positional_embedding", None), clip.preprocess.size
    learned = clip.source.architecture["vision_cfg"].get("pos_embed_type", "learnable")
    if not isinstance(positions, nn.Parameter) or learned != "learnable":
        raise ConfigError(
            f"{setting}: the vision tower of {name} is not a vision transformer of open_clip with "
            f"learned positions, and is built for one size, {present}; leave it out, or take a "
            "model of another size, or one with such a tower, which takes any multiple of its "
            "patches (e.g. model=vitb32 model.image_size=256)"
        )
    side = visual.patch_size[0]
    if size == present:
        raise ConfigError(f"{setting} has no effect: that is the size of {name}; leave it out")
    if size % side:
        below = size // side * side
        near = " or ".join(str(n) for n in (below, below + side) if n not in (0, present))
        own = f", or leave it out for {present}" if present in (below, below + side) else ""
        raise ConfigError(
            f"{setting} is no multiple of the patches of {side} pixels; use {near}{own}"
        )
    visual.image_size, visual.grid_size = (size, size), (size // side, size // side)
    state = {"visual.positional_embedding": positions.detach().float()}
    resize_pos_embed(state, clip.model)
    resized = state["visual.positional_embedding"].to(positions.dtype)
    visual.positional_embedding = nn.Parameter(resized, positions.requires_grad)
    config = {**visual.preprocess_cfg, "size": (size, size)}
    open_clip.set_model_preprocess_cfg(clip.model, config)
    architecture = copy.deepcopy(clip.source.architecture)
    architecture["vision_cfg"]["image_size"] = size
    source = replace(clip.source, architecture=architecture)
    return replace(clip, preprocess=preprocess_of(clip.model), source=source)
