"""Symmetric InfoNCE over positive slots: CLIP (arXiv 2103.00020), CLIC Eq. 4 (arXiv 2505.24424)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def caption_logits(images: Tensor, captions: Tensor, logit_scale: Tensor) -> Tensor:
    """Return each image's logit for every caption, slot by slot.

    Args:
        images: [B, D], unit norm.
        captions: [N, P, D], unit norm.
        logit_scale: Scalar, already exponentiated.

    Returns:
        [B, P, N], contiguous; one matrix product and one softmax cover all slots.
    """
    candidates, slots, width = captions.shape
    by_slot = captions.transpose(0, 1).reshape(slots * candidates, width)
    return ((logit_scale * images) @ by_slot.T).view(-1, slots, candidates)


def image_logits(captions: Tensor, images: Tensor, logit_scale: Tensor) -> Tensor:
    """Return each caption's logit for every image, [B, P, N] from [B, P, D] and [N, D]."""
    return (logit_scale * captions) @ images.T


def own_cross_entropy(logits: Tensor, first: int) -> Tensor:
    """Return the mean cross-entropy; the correct candidate of row b is number `first + b`.

    Args:
        logits: [B, P, N].
        first: This rank's first row among the candidates, `rank * B`.

    Returns:
        Scalar, the mean over B rows and P slots.
    """
    rows, slots, _ = logits.shape
    own = torch.arange(first, first + rows, device=logits.device)
    return F.cross_entropy(logits.flatten(0, 1), own.repeat_interleave(slots))


def image_to_text(images: Tensor, captions: Tensor, logit_scale: Tensor, first: int) -> Tensor:
    """Return the InfoNCE loss from images to captions, the first half of CLIC Eq. 4.

    L = -1/(P B) sum_p sum_b log( e^{s(u_b, v_{b,p})} / sum_n e^{s(u_b, v_{n,p})} ),
    s = logit_scale * cosine, n over the captions of slot p of all ranks.

    Args:
        images: [B, D] of this rank, unit norm.
        captions: [W * B, P, D] of all ranks, unit norm.
        logit_scale: Scalar, already exponentiated.
        first: This rank's first row among the candidates, `rank * B`.

    Returns:
        Scalar, the mean over this rank's B images and P slots.
    """
    return own_cross_entropy(caption_logits(images, captions, logit_scale), first)


def text_to_image(captions: Tensor, images: Tensor, logit_scale: Tensor, first: int) -> Tensor:
    """Return the InfoNCE loss from captions to images, the second half of CLIC Eq. 4.

    L = -1/(P B) sum_p sum_b log( e^{s(u_b, v_{b,p})} / sum_n e^{s(u_n, v_{b,p})} ),
    s = logit_scale * cosine, n over the images of all ranks.

    Args:
        captions: [B, P, D] of this rank, unit norm.
        images: [W * B, D] of all ranks, unit norm.
        logit_scale: Scalar, already exponentiated.
        first: This rank's first row among the candidates, `rank * B`.

    Returns:
        Scalar, the mean over this rank's B captions and P slots.
    """
    return own_cross_entropy(image_logits(captions, images, logit_scale), first)
