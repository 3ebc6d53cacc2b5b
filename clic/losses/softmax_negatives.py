"""Hard negatives as further candidates: NegCLIP (arXiv 2210.01936), CLoVe (arXiv 2402.15021)."""

from __future__ import annotations

import torch
from torch import Tensor

from clic.losses.contrastive import caption_logits, own_cross_entropy


def image_to_text_with_negatives(
    images: Tensor,
    captions: Tensor,
    negatives: Tensor,
    mask: Tensor,
    logit_scale: Tensor,
    first: int,
) -> Tensor:
    """Return the InfoNCE loss from images to captions, with all negatives among the candidates.

    L = -1/(P B) sum_p sum_b log( e^{s(u_b, v_{b,p})}
        / (sum_n e^{s(u_b, v_{n,p})} + sum_m e^{s(u_b, h_m)}) ), s = logit_scale * cosine,
    n over the captions of slot p and m over the hard negatives of all ranks. The other direction
    is plain CLIP's, because a hard negative has no image of its own.

    Args:
        images: [B, D] of this rank, unit norm.
        captions: [W * B, P, D] of all ranks, unit norm.
        negatives: [W * B, K, D] of all ranks, unit norm where the mask is True.
        mask: bool [W * B, K], True where there is a negative.
        logit_scale: Scalar, already exponentiated.
        first: This rank's first row among the candidates, `rank * B`.

    Returns:
        Scalar, the mean over this rank's B images and P slots.
    """
    true = caption_logits(images, captions, logit_scale)
    false = (logit_scale * images) @ negatives.flatten(0, 1).T
    false = false.masked_fill(~mask.flatten(), float("-inf"))
    shared = false.unsqueeze(1).expand(-1, true.shape[1], -1)
    return own_cross_entropy(torch.cat([true, shared], dim=-1), first)
