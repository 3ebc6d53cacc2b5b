"""Pairwise sigmoid loss: SigLIP (arXiv 2303.15343), Algorithm 1, with several positive slots."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clic.losses.contrastive import caption_logits


def sigmoid_loss(
    images: Tensor, captions: Tensor, logit_scale: Tensor, logit_bias: Tensor, first: int
) -> Tensor:
    """Return the binary loss of telling matching pairs from all other pairs.

    L = -1/(P B) sum_p sum_b sum_n log sigmoid( z_{bn} (logit_scale cos(u_b, v_{n,p}) + bias) ),
    z = 1 for the matching caption and -1 otherwise, n over the captions of slot p of all ranks.

    Args:
        images: [B, D] of this rank, unit norm.
        captions: [W * B, P, D] of all ranks, unit norm.
        logit_scale: Scalar, already exponentiated.
        logit_bias: Scalar.
        first: This rank's first row among the candidates, `rank * B`.

    Returns:
        Scalar: summed over candidates, mean over this rank's B images and P slots.
    """
    logits = caption_logits(images, captions, logit_scale) + logit_bias
    rows, slots, candidates = logits.shape
    sign = logits.new_full((rows, 1, candidates), -1.0)
    row = torch.arange(rows, device=logits.device)
    sign[row, 0, first + row] = 1.0
    return -F.logsigmoid(sign * logits).sum() / (rows * slots)
