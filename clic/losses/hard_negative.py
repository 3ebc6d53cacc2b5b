"""Each positive against the false captions of its own image: CLIC Eq. 5 (arXiv 2505.24424).

The kinds of hard negatives may be weighted; the paper weighs all pairs equally.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from clic.errors import ConfigError, did_you_mean


def hard_negative_loss(
    images: Tensor,
    positives: Tensor,
    negatives: Tensor,
    mask: Tensor,
    logit_scale: Tensor,
    weights: Tensor,
    valid_per_rank: Tensor,
) -> Tensor:
    """Return the loss of ranking each positive above each hard negative of the same image.

    L = sum_{b,p,k} w_k l_bpk / (P sum_k w_k N_k),
    l_bpk = -log( e^{s(u_b, v_bp)} / (e^{s(u_b, v_bp)} + e^{s(u_b, n_bk)}) )
          = -log sigmoid( s(u_b, v_bp) - s(u_b, n_bk) ),
    s = logit_scale * cosine, summed over the valid pairs; N_k counts the valid negatives of slot k
    on all ranks. Equal weights give the paper's mean over all pairs. A logit_bias would cancel.

    Features are not gathered. Ranks hold different numbers of negatives, so each divides by the
    mean number per rank: the mean of the ranks' losses is then the (weighted) mean over all pairs.

    Args:
        images: [B, D], unit norm.
        positives: [B, P, D], unit norm.
        negatives: [B, K, D], unit norm where the mask is True.
        mask: bool [B, K], True where there is a negative.
        logit_scale: Scalar, already exponentiated.
        weights: [K], relative weight w_k >= 0 of each slot's pairs.
        valid_per_rank: Scalar, sum_k w_k N_k / W, greater than 0.

    Returns:
        Scalar: this rank's weighted sum over valid pairs / (P * valid_per_rank), 0 without any.
    """
    queries = (logit_scale * images).unsqueeze(1)
    own = (queries @ positives.mT).transpose(1, 2)  # [B, P, 1]
    false = queries @ negatives.mT  # [B, 1, K]
    losses = -F.logsigmoid(own - false)
    kept = losses.masked_fill(~mask.unsqueeze(1), 0.0)
    return (weights * kept).sum() / (positives.shape[1] * valid_per_rank)


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `ConfigError` unless every weight is a positive finite number."""
    for kind, weight in weights.items():
        if not 0 < weight < math.inf:
            raise ConfigError(
                f"loss.negative_weights.{kind}={weight} must be a positive number; to train "
                "without a kind of hard negatives, do not generate it"
            )


def slot_weights(weights: Mapping[str, float], kinds: Sequence[str], slots: int) -> list[float]:
    """Return each slot's weight relative to the largest, so that equal weights are exactly 1.

    Args:
        weights: Weights by kind; the default is 1.
        kinds: The kind of each slot; empty if the slots have no names.
        slots: Number of slots K, at least 1.

    Raises:
        ConfigError: The number of names is not the number of slots, or a weight has no slot.
    """
    if kinds and len(kinds) != slots:
        raise ConfigError(
            f"negative_kinds={tuple(kinds)} has {len(kinds)} names for {slots} hard negatives a "
            "row; name every slot, or none"
        )
    for kind, weight in weights.items():
        if kind not in kinds:
            found = ", ".join(dict.fromkeys(kinds)) or "without names"
            raise ConfigError(
                f"loss.negative_weights.{kind}={weight} has no effect: the batch has no such hard "
                f"negatives{did_you_mean(kind, kinds)} (its kinds: {found}); leave it out"
            )
    own = [weights.get(kind, 1.0) for kind in kinds] or [1.0] * slots
    return [weight / max(own) for weight in own]
