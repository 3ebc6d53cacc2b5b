"""Every positive against the image's own false captions: CLIC Eq. 5 (arXiv 2505.24424)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def hard_negative_loss(
    images: Tensor,
    positives: Tensor,
    negatives: Tensor,
    mask: Tensor,
    logit_scale: Tensor,
    valid_per_rank: Tensor,
) -> Tensor:
    """Return the loss of preferring each positive to each hard negative of the same image.

    L = mean over (b, p, k) of -log( e^{s(u_b, v_bp)} / (e^{s(u_b, v_bp)} + e^{s(u_b, n_bk)}) )
      = mean over (b, p, k) of -log sigmoid( s(u_b, v_bp) - s(u_b, n_bk) ),
    s = logit_scale * cosine. A logit_bias would cancel.

    Nothing is gathered. Ranks hold unequal numbers of negatives; dividing by their mean number
    makes the mean of the ranks' losses the mean over all valid pairs of all ranks.

    Args:
        images: [B, D], unit norm.
        positives: [B, P, D], unit norm.
        negatives: [B, K, D], unit norm where there is one.
        mask: bool [B, K], True where there is a negative.
        logit_scale: Scalar, already exponentiated.
        valid_per_rank: Scalar, the number of negatives of all ranks / W, greater than 0.

    Returns:
        Scalar: this rank's sum over valid pairs / (P * valid_per_rank); 0 where it has none.
    """
    queries = (logit_scale * images).unsqueeze(1)
    own = (queries @ positives.mT).transpose(1, 2)  # [B, P, 1]
    false = queries @ negatives.mT  # [B, 1, K]
    losses = -F.logsigmoid(own - false)
    kept = losses.masked_fill(~mask.unsqueeze(1), 0.0)
    return kept.sum() / (positives.shape[1] * valid_per_rank)
