"""Image and text features for inference, equal to the model's own up to rounding, but faster.

CLIP reads a feature at one token: the class token of an image, the end-of-text token of a caption.
So the last block computes the query, projection and MLP of that token only. Besides, a token
behind a causal mask depends only on the tokens before it, so captions that begin alike share the
states of their common beginning: together they form a tree, whose nodes are computed once. A pack
is a row of such nodes, each of which attends to its ancestors and itself; only the end of a pack
is padding. On SugarCrepe++ this saves every fourth token.

A tower that is not open_clip's plain transformer falls back to the model's own forward. Nothing
here keeps a graph for a backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clic.models.towers import OpenClip, TextEncoder, images_layout

TEXT_POOLS = ("argmax", "eos", "last", "first")
PACKS = {"cpu": 16, "cuda": 128}
"""Packs in a forward pass; more of them would gain nothing."""
NODES = 128


class PooledImages:
    """Encodes pixels with an open_clip module that is in evaluation mode.

    Attributes:
        recognised: Whether this file's forward is used rather than the model's own.
    """

    def __init__(self, model: OpenClip) -> None:
        from open_clip.transformer import VisionTransformer

        self.model, self._layout = model, images_layout(model)
        tower = model.visual
        self.recognised = (
            type(tower) is VisionTransformer
            and _is_plain(tower.transformer)
            and tower.pool_type == "tok"
            and tower.attn_pool is None
            and not tower.output_tokens
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the features [B, D] of normalised pixels [B, 3, S, S], not of unit norm."""
        if not self.recognised:
            return self.model.encode_image(pixels.contiguous(memory_format=self._layout))
        tower = self.model.visual
        states = tower._embeds(pixels)
        class_token = states.new_zeros((len(states), 1), dtype=torch.int64)
        pooled = _transform(tower.transformer, states, None, class_token).squeeze(1)
        return _project(tower.ln_post(pooled), tower.proj)


class PooledTexts:
    """Encodes token ids with an open_clip module that is in evaluation mode.

    Attributes:
        recognised: Whether this file's forward is used rather than the model's own.
        packed: Whether texts are packed; otherwise they are padded.
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
        """Return features [N, D] on `device`, not of unit norm, of token ids [N, L] on the CPU."""
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
        embedding = self.tower.token_embedding(tokens).to(dtype)
        return embedding + self.tower.positional_embedding.to(dtype)[positions]

    def _read(self, states: Tensor) -> Tensor:
        return _project(self.tower.ln_final(states), self.tower.text_projection)


def _is_plain(transformer: Any) -> bool:
    """Return whether `_block` can compute every block of a transformer."""
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
    """Return the states [B, Q, C] of the tokens `at` [B, Q] after the last block."""
    *blocks, last = transformer.resblocks
    for block in blocks:
        states = _block(block, states, mask)
    return _block(last, states, mask, at)


def _block(block: Any, states: Tensor, mask: Tensor | None, at: Tensor | None = None) -> Tensor:
    """Compute open_clip's ResidualAttentionBlock, only for the tokens `at` [B, Q] if given.

    The mask, [S, S] or [B, S, S], is added to the scores of the states [B, S, C].
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


@dataclass(frozen=True)
class Packs:
    """Texts as trees of tokens, the fullest pack first.

    Attributes:
        tokens: int64 [packs, S], token ids of the nodes.
        positions: int64 [packs, S], the position of each node in its text.
        mask: bool [packs, S, S], whether the first node attends to the second.
        ends: int64 [packs, Q], the nodes at which features are read, padded with 0.
        rows: int64 [packs, Q], the text that each end belongs to, padded with -1.
        used: The number of nodes of each pack; the rest of its row is padding.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor
    rows: Tensor
    used: list[int]


def pack(texts: Sequence[tuple[int, ...]], size: int = NODES) -> Packs:
    """Put texts into packs of `size` nodes, so that texts that begin alike are next to each other.

    Each text has its token ids up to the token at which its feature is read.

    Raises:
        ValueError: There are no texts, or a text is empty or longer than a pack.
    """
    if not texts or not all(0 < len(text) <= size for text in texts):
        raise ValueError(f"there must be texts, each of 1 to {size} tokens")
    packs = _place(texts, size)
    packs.sort(key=lambda placed: -_used(placed))
    count = len(packs)
    tokens, positions = np.zeros((count, size), np.int64), np.zeros((count, size), np.int64)
    mask = np.zeros((count, size, size), dtype=bool)
    mask[:, range(size), range(size)] = True  # a row without any key would become NaN
    ends = np.zeros((count, max(map(len, packs))), np.int64)
    rows = np.full_like(ends, -1)
    causal, steps = np.tri(size, dtype=bool), np.arange(size)
    for number, placed in enumerate(packs):
        for column, (row, nodes, shared) in enumerate(placed):
            length, new = len(nodes), nodes[shared:]
            tokens[number, new] = texts[row][shared:]
            positions[number, new] = steps[shared:length]
            mask[number, new[:, None], nodes] = causal[shared:length, :length]
            ends[number, column], rows[number, column] = nodes[-1], row
    used = [_used(placed) for placed in packs]
    arrays = {"tokens": tokens, "positions": positions, "mask": mask, "ends": ends, "rows": rows}
    return Packs(used=used, **{name: torch.from_numpy(array) for name, array in arrays.items()})


_Placed = tuple[int, np.ndarray, int]
"""A text in a pack: its row, its nodes, and how many of them earlier texts have placed."""


def _place(texts: Sequence[tuple[int, ...]], size: int) -> list[list[_Placed]]:
    """Return the texts of each pack, sorted by their tokens."""
    packs: list[list[_Placed]] = []
    used, before = 0, texts[0]
    for row in sorted(range(len(texts)), key=texts.__getitem__):
        text = texts[row]
        pairs = enumerate(zip(before, text, strict=False))
        shared = next((at for at, (a, b) in pairs if a != b), min(len(before), len(text)))
        if not packs or used + len(text) - shared > size:
            packs.append([])
            used = shared = 0
        path = packs[-1][-1][1][:shared] if shared else np.empty(0, np.int64)
        nodes = np.append(path, np.arange(used, used + len(text) - shared))
        packs[-1].append((row, nodes, shared))
        used, before = used + len(text) - shared, text
    return packs


def _used(placed: Sequence[_Placed]) -> int:
    return sum(len(nodes) - shared for _, nodes, shared in placed)
