"""The distance between two true captions of one image: CLIC Eq. 6 (arXiv 2505.24424)."""

from __future__ import annotations

from torch import Tensor


def unimodal_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared distance between the two joined captions p1 and p2.

    L = 1/B sum_b || v_{b,1} - v_{b,2} ||_2^2

    Nothing is gathered; as B is equal on all ranks, the mean of their losses is the mean over all
    images.

    Args:
        first: [B, D], unit norm, features of p1.
        second: [B, D], unit norm, features of p2.

    Returns:
        Scalar, summed over D, mean over this rank's B images.
    """
    return (first - second).square().sum(-1).mean()
