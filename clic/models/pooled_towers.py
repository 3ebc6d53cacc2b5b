"""Image and text features equal to the model's own up to rounding, with less work.

CLIP reads a feature at one token: the class token of an image, the end-of-text token of a caption.
So the last block computes the query, projection and MLP of that token only. Besides, under a causal
mask a token depends only on the tokens before it, so captions share the states of a common prefix:
together they form a tree, whose nodes are computed once (`text_encoder`). Everything but attention
works on the nodes directly, without padding; attention puts them into packs, in which each node
attends to its ancestors and itself.

A tower that is not open_clip's plain transformer falls back to the model's own forward. Gradients
flow through all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clic.models.text_encoder import OpenClip, TextEncoder, pack_groups
from clic.types import TextGroups, TextPacks, TextPlan

TEXT_POOLS = ("argmax", "eos", "last", "first")
PACKS = {"cpu": 16, "cuda": 128}
"""Packs per forward pass in inference; more would gain nothing."""
QUICK = 1.702
"""The factor of QuickGELU."""
MANY_CONVOLUTIONS = 4
"""No transformer's stem has more."""


def images_layout(model: OpenClip) -> torch.memory_format:
    """Return the memory format in which the vision tower's convolutions run fastest.

    Convolutional networks (of timm) take half the time on a CPU with channels last; a transformer
    has one convolution, for which it makes no difference.
    """
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.visual.modules())
    return torch.channels_last if convolutions > MANY_CONVOLUTIONS else torch.contiguous_format


class PooledImages:
    """Encodes pixels with an open_clip module.

    Attributes:
        recognised: Whether this file's forward is used rather than the model's own.
        block: What computes a block of it, `_block` or the same compiled.
    """

    def __init__(self, model: OpenClip) -> None:
        from open_clip.transformer import VisionTransformer

        self.model, self._layout, self.block = model, images_layout(model), _block
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
        layout = _Rows(None, class_token)
        pooled = _transform(tower.transformer, states, layout, self.block).squeeze(1)
        return _project(tower.ln_post(pooled), tower.proj)


class PooledTexts:
    """Encodes token ids with an open_clip module.

    Attributes:
        whole: The encoder used when this file's forward is not.
        recognised: Whether this file's forward is used rather than the model's own.
        packed: Whether texts are packed; otherwise they are padded.
        block: What computes a block of it, `_block` or the same compiled.
    """

    def __init__(self, model: OpenClip) -> None:
        from open_clip.model import CLIP
        from open_clip.transformer import TextTransformer

        self.whole, self.block = TextEncoder(model), _block
        self.tower: OpenClip = getattr(model, "text", model)
        known = type(model) is CLIP or type(self.tower) is TextTransformer
        self.recognised = (
            known
            and _is_plain(getattr(self.tower, "transformer", None))
            and self.whole.rule.pool in TEXT_POOLS
            and getattr(self.tower, "cls_emb", None) is None
            and not getattr(self.tower, "use_pad_mask", False)
            and not getattr(self.tower, "output_tokens", False)
        )
        self.packed = self.recognised and self.whole.can_trim

    def __call__(self, tokens: Tensor, device: torch.device) -> Tensor:
        """Return features [N, D] on `device`, not of unit norm, of token ids [N, L] on the CPU."""
        if not self.recognised:
            return self.whole(self.whole.rule.trim(tokens).to(device))
        if not self.packed:
            return self._padded(tokens.to(device))
        rows, parts = [], []
        for texts, packs in pack_groups(self.whole.rule.texts(tokens), PACKS[device.type]):
            rows += texts
            parts.append(self.planned(tokens, packs.to(device)))
        features = torch.cat(parts)
        return torch.empty_like(features).index_copy_(
            0, torch.tensor(rows, device=device), features
        )

    def planned(self, tokens: Tensor, plan: TextPlan) -> Tensor:
        """Return features [N, D], not of unit norm, of token ids [N, L], encoded by a plan.

        All tensors are on one device, and nothing waits for it.
        """
        if isinstance(plan, TextPacks):
            states = self._embed(plan.tokens, plan.positions)
            layout = _Trees(plan, states)
            return self._read(_transform(self.tower.transformer, states, layout, self.block))
        assert isinstance(plan, TextGroups)
        counts = [count for count, _ in plan.sizes]
        groups = zip(tokens[plan.order].split(counts), plan.sizes, strict=True)
        parts = [self.whole(group[:, :length]) for group, (_, length) in groups]
        return torch.cat(parts).index_select(0, plan.back)

    def _padded(self, tokens: Tensor) -> Tensor:
        states = self._embed(tokens, torch.arange(tokens.shape[1], device=tokens.device))
        last = self.whole.rule.pool == "last"
        at = torch.full_like(tokens[:, :1], tokens.shape[1] - 1 if last else 0)
        if self.whole.rule.pool in ("argmax", "eos"):
            at = self.whole.rule.ends(tokens)[:, None]
        layout = _Rows(self.tower.attn_mask, at)
        pooled = _transform(self.tower.transformer, states, layout, self.block).squeeze(1)
        return self._read(pooled)

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        dtype = self.tower.transformer.get_cast_dtype()
        embedding = self.tower.token_embedding(tokens).to(dtype)
        return embedding + F.embedding(positions, self.tower.positional_embedding.to(dtype))

    def _read(self, states: Tensor) -> Tensor:
        return _project(self.tower.ln_final(states), self.tower.text_projection)


class _Rows:
    """States [B, S, C] that attend within their row; features are read at tokens `at` [B, Q].

    The mask, [S, S] or None, is added to the scores.
    """

    def __init__(self, mask: Tensor | None, at: Tensor) -> None:
        self._row = torch.arange(len(at), device=at.device)[:, None]
        self._at = at
        self.mask = None if mask is None else mask[None, None]
        self.read_mask = None if mask is None else mask[at][:, None]

    def spread(self, states: Tensor) -> Tensor:
        """Return states in the layout of attention, [rows, S, C]."""
        return states

    gather = spread_read = gather_read = spread

    def read(self, states: Tensor) -> Tensor:
        """Return the states that are read."""
        return states[self._row, self._at]


class _Trees:
    """States [T, C] of nodes, each of which attends to its ancestors and itself.

    A place without a node is filled with another node's state, which attends to itself and which no
    node attends to: its results are dropped in both the forward and the backward pass.
    """

    def __init__(self, packs: TextPacks, states: Tensor) -> None:
        self._packs, mask = packs, packs.mask()
        bias = torch.zeros_like(mask, dtype=states.dtype).masked_fill_(~mask, -torch.inf)
        self.mask = bias[:, None]
        row = torch.arange(len(bias), device=bias.device)[:, None]
        self.read_mask = bias[row, packs.read_at][:, None]

    def spread(self, states: Tensor) -> Tensor:
        """Return the states at each place of each pack, [packs, S, C]."""
        return _spread(states, self._packs.grid, self._packs.places)

    def gather(self, states: Tensor) -> Tensor:
        """Return the states of the nodes, the inverse of `spread`."""
        places, grid = self._packs.places, self._packs.grid.flatten()
        picked: Tensor = _Pick.apply(states.flatten(0, 1), places, grid)
        return picked

    def read(self, states: Tensor) -> Tensor:
        """Return the states that are read, [N, C]."""
        return states.index_select(0, self._packs.ends)

    def spread_read(self, states: Tensor) -> Tensor:
        """Return the states that are read in each pack, [packs, Q, C]."""
        return _spread(states, self._packs.readers, self._packs.reads)

    def gather_read(self, states: Tensor) -> Tensor:
        """Return the states that are read, the inverse of `spread_read`.

        An unused reader still attends to a real node, so its gradient must be 0.
        """
        return states.flatten(0, 1).index_select(0, self._packs.reads)


def _spread(states: Tensor, grid: Tensor, places: Tensor) -> Tensor:
    picked: Tensor = _Pick.apply(states, grid.flatten(), places)
    return picked.unflatten(0, grid.shape)


class _Pick(torch.autograd.Function):
    """Picks rows of a matrix by number, and their gradients by the inverse numbers.

    Accumulating the gradients of rows, as torch does, takes ten times as long. This is equivalent
    only if each row that matters is picked once; the other rows' gradients are arbitrary.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, numbers: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return states.index_select(0, numbers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse), None, None


class _QuickGelu(torch.autograd.Function):
    """OpenAI's x * sigmoid(1.702 x), as silu(1.702 x) / 1.702, saving only x for backward."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return F.silu(inputs * QUICK, inplace=True).mul_(1 / QUICK)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.silu_backward(gradients[0], inputs * QUICK)
        return found


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


def _transform(
    transformer: Any, states: Tensor, layout: _Rows | _Trees, block: Callable[..., Tensor]
) -> Tensor:
    """Return the states that are read after the last block."""
    run: Any = block
    if transformer.grad_checkpointing and torch.is_grad_enabled():
        run = partial(checkpoint, block, use_reentrant=False)
    *blocks, last = transformer.resblocks
    for one in blocks:
        states = run(one, states, layout, False)
    return run(last, states, layout, True)


def _block(block: Any, states: Tensor, layout: _Rows | _Trees, last: bool) -> Tensor:
    """Compute open_clip's ResidualAttentionBlock; in the last, only the states that are read."""
    attention, width = block.attn, states.shape[-1]
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    inputs = block.ln_1(states)
    if last:
        states, chosen, mask = layout.read(states), layout.read(inputs), layout.read_mask
        query = layout.spread_read(F.linear(chosen, weight[:width], bias[:width]))
        both = layout.spread(F.linear(inputs, weight[width:], bias[width:]))
        key, value = both.chunk(2, dim=-1)
    else:
        mask = layout.mask
        query, key, value = layout.spread(F.linear(inputs, weight, bias)).chunk(3, dim=-1)
    if mask is not None:
        mask = mask.to(query.dtype)
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    mixed = mixed.transpose(1, 2).flatten(2)
    mixed = layout.gather_read(mixed) if last else layout.gather(mixed)
    states = states + block.ls_1(attention.out_proj(mixed))
    return states + block.ls_2(_mlp(block.mlp, block.ln_2(states)))


def _mlp(mlp: Any, states: Tensor) -> Tensor:
    from open_clip.transformer import QuickGELU

    if type(mlp.gelu) is not QuickGELU:
        found: Tensor = mlp(states)
        return found
    hidden: Tensor = _QuickGelu.apply(mlp.c_fc(states))
    return mlp.c_proj(hidden)


def _project(pooled: Tensor, projection: nn.Module | Tensor | None) -> Tensor:
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
