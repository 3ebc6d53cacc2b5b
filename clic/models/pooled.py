"""Features by no more work than they need; equal to the model's own up to rounding.

CLIP reads a feature at one token: the class token of an image, the end-of-text token of a caption.
In the last block nothing but that token goes on, so only its query, its projection and its MLP are
computed there; and captions behind a causal mask are packed (`packing`). What is not recognised as
open_clip's plain transformer keeps the model's own forward. Without gradient: for inference.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clic.models.prefix_trees import NODES, Packs, pack
from clic.models.towers import OpenClip, TextEncoder

TEXT_POOLS = ("argmax", "eos", "last", "first")
PACKS = {"cpu": 16, "cuda": 128}
"""Packs in a text forward: as many as still gain something."""


class PooledImages:
    """Encodes pixels with an open_clip module that is in evaluation mode.

    Attributes:
        recognised: Whether the last block is cut; otherwise the model's own forward runs.
    """

    def __init__(self, model: OpenClip) -> None:
        from open_clip.transformer import VisionTransformer

        self.model = model
        tower = model.visual
        self.recognised = (
            type(tower) is VisionTransformer
            and _is_plain(tower.transformer)
            and tower.pool_type == "tok"
            and tower.attn_pool is None
            and not tower.output_tokens
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return [B, D], not normalised, of normalised pixels [B, 3, S, S]."""
        if not self.recognised:
            return self.model.encode_image(pixels)
        tower = self.model.visual
        states = tower._embeds(pixels)
        class_token = states.new_zeros((len(states), 1), dtype=torch.int64)
        pooled = _transform(tower.transformer, states, None, class_token).squeeze(1)
        return _project(tower.ln_post(pooled), tower.proj)


class PooledTexts:
    """Encodes token ids with an open_clip module that is in evaluation mode.

    Attributes:
        recognised: Whether the last block is cut; otherwise the model's own forward runs.
        packed: Whether texts are packed; otherwise they are padded, to the longest where exact.
    """

    def __init__(self, model: OpenClip) -> None:
        from open_clip.model import CLIP
        from open_clip.transformer import TextTransformer

        self.whole = TextEncoder(model)
        self.tower: OpenClip = getattr(model, "text", model)
        known = type(model) is CLIP or type(self.tower) is TextTransformer
        self.recognised = (
            known
            and _is_plain(getattr(self.tower, "transformer", None))
            and self.whole.pool in TEXT_POOLS
            and getattr(self.tower, "cls_emb", None) is None
            and not getattr(self.tower, "use_pad_mask", False)
            and not getattr(self.tower, "output_tokens", False)
        )
        self.packed = self.recognised and self.whole.can_trim

    def __call__(self, tokens: Tensor, device: torch.device) -> Tensor:
        """Return [N, D] on `device`, not normalised, of token ids int64 [N, L] on the CPU."""
        if not self.recognised:
            return self.whole(self.whole.trim(tokens).to(device))
        if not self.packed:
            return self._padded(tokens.to(device))
        ends = self.whole.ends(tokens).tolist()
        ids = [tuple(row[: end + 1]) for row, end in zip(tokens.tolist(), ends, strict=True)]
        return self._packs(pack(ids, max(NODES, tokens.shape[1])), len(ids), device)

    def _padded(self, tokens: Tensor) -> Tensor:
        states = self._embed(tokens, torch.arange(tokens.shape[1], device=tokens.device))
        last = self.whole.pool == "last"
        at = torch.full_like(tokens[:, :1], tokens.shape[1] - 1 if last else 0)
        if self.whole.pool in ("argmax", "eos"):
            at = self.whole.ends(tokens)[:, None]
        states = _transform(self.tower.transformer, states, self.tower.attn_mask, at)
        return self._read(states.squeeze(1))

    def _packs(self, packs: Packs, texts: int, device: torch.device) -> Tensor:
        parts = []
        at_once = PACKS[device.type]
        for start in range(0, len(packs.used), at_once):
            mine, used = slice(start, start + at_once), packs.used[start]
            tokens = packs.tokens[mine, :used].to(device)
            states = self._embed(tokens, packs.positions[mine, :used].to(device))
            mask = packs.mask[mine, :used, :used].to(device)
            bias = torch.zeros_like(mask, dtype=states.dtype).masked_fill_(~mask, -torch.inf)
            ends = packs.ends[mine].to(device)
            states = _transform(self.tower.transformer, states, bias, ends)
            parts.append(states[(packs.rows[mine] >= 0).to(device)])
        features = self._read(torch.cat(parts))
        rows = packs.rows[packs.rows >= 0].to(device)
        return torch.empty_like(features).index_copy_(0, rows, features)

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        dtype = self.tower.transformer.get_cast_dtype()
        places = self.tower.positional_embedding.to(dtype)[positions]
        return self.tower.token_embedding(tokens).to(dtype) + places

    def _read(self, states: Tensor) -> Tensor:
        return _project(self.tower.ln_final(states), self.tower.text_projection)


def _is_plain(transformer: Any) -> bool:
    """Return whether a transformer is made of the blocks that `_block` computes."""
    from open_clip.transformer import ResidualAttentionBlock, Transformer

    return (
        type(transformer) is Transformer
        and transformer.batch_first
        and all(
            type(block) is ResidualAttentionBlock and type(block.attn) is nn.MultiheadAttention
            for block in transformer.resblocks
        )
    )


def _transform(transformer: Any, states: Tensor, mask: Tensor | None, at: Tensor) -> Tensor:
    """Return the states [B, Q, C] of the tokens `at` [B, Q] behind the last block."""
    *blocks, last = transformer.resblocks
    for block in blocks:
        states = _block(block, states, mask)
    return _block(last, states, mask, at)


def _block(block: Any, states: Tensor, mask: Tensor | None, at: Tensor | None = None) -> Tensor:
    """Return what open_clip's ResidualAttentionBlock does, at the tokens `at` alone if given.

    Args:
        block: The block.
        states: [B, S, C].
        mask: Added to the scores, [S, S] or [B, S, S]; None for none.
        at: int64 [B, Q], the tokens that go on; None for all.
    """
    attention, width = block.attn, states.shape[-1]
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    inputs = block.ln_1(states)
    if at is None:
        query, key, value = F.linear(inputs, weight, bias).chunk(3, dim=-1)
    else:
        row = torch.arange(len(states), device=states.device)[:, None]
        states = states[row, at]
        query = F.linear(inputs[row, at], weight[:width], bias[:width])
        key, value = F.linear(inputs, weight[width:], bias[width:]).chunk(2, dim=-1)
        if mask is not None:
            mask = mask[at] if mask.ndim == 2 else mask[row, at]
    if mask is not None:
        mask = mask.unsqueeze(-3).to(query.dtype)  # the same for every head
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    mixed = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    states = states + block.ls_1(mixed)
    return states + block.ls_2(block.mlp(block.ln_2(states)))


def _project(pooled: Tensor, projection: nn.Module | Tensor | None) -> Tensor:
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
