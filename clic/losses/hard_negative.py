"""Every positive against the image's own false captions: CLIC Eq. 5 (arXiv 2505.24424).

Weights of the kinds of hard negatives, and of the slots that hold them.
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
    """Return the loss of preferring each positive to each hard negative of the same image.

    L = sum_{b,p,k} w_k l_bpk / (P sum_k w_k N_k),
    l_bpk = -log( e^{s(u_b, v_bp)} / (e^{s(u_b, v_bp)} + e^{s(u_b, n_bk)}) )
          = -log sigmoid( s(u_b, v_bp) - s(u_b, n_bk) ),
    s = logit_scale * cosine, over the valid pairs, N_k the valid negatives of slot k of all ranks.
    With equal weights it is the mean over all pairs: the paper's. A logit_bias would cancel.

    Nothing is gathered. Ranks hold unequal numbers of negatives; dividing by their mean number
    makes the mean of the ranks' losses the (weighted) mean over all valid pairs of all ranks.

    Args:
        images: [B, D], unit norm.
        positives: [B, P, D], unit norm.
        negatives: [B, K, D], unit norm where there is one.
        mask: bool [B, K], True where there is a negative.
        logit_scale: Scalar, already exponentiated.
        weights: [K], relative weight w_k of each slot's pairs, none below 0.
        valid_per_rank: Scalar, sum_k w_k N_k / W, greater than 0.

    Returns:
        Scalar: this rank's weighted sum over valid pairs / (P * valid_per_rank); 0 where it has
        none.
    """
    queries = (logit_scale * images).unsqueeze(1)
    own = (queries @ positives.mT).transpose(1, 2)  # [B, P, 1]
    false = queries @ negatives.mT  # [B, 1, K]
    losses = -F.logsigmoid(own - false)
    kept = losses.masked_fill(~mask.unsqueeze(1), 0.0)
    return (weights * kept).sum() / (positives.shape[1] * valid_per_rank)


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise an error where a weight cannot be.

    Raises:
        ConfigError: A weight is not a positive finite number.
    """
    for kind, weight in weights.items():
        if not 0 < weight < math.inf:
            raise ConfigError(
                f"loss.negative_weights.{kind}={weight} must be a positive number; to train "
                "without a kind of hard negatives, make none of it"
            )


def slot_weights(weights: Mapping[str, float], kinds: Sequence[str], slots: int) -> list[float]:
    """Return each slot's weight, relative to the largest: equal weights are 1 to the last bit.

    Args:
        weights: Weights by kind, 1 for those not named.
        kinds: The kind of each slot; empty where the slots have no names.
        slots: Number of slots K, at least 1.

    Raises:
        ConfigError: There are names for another number of slots, or a weight has no slot.
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
