"""Hard negatives in the sigmoid loss: the counterpart of NegCLIP's softmax for SigLIP models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from clic.errors import ConfigError
from clic.losses.objectives import Objective, Terms
from clic.types import Features


def sigmoid_negatives_loss(
    images: Tensor,
    negatives: Tensor,
    mask: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    first: int = 0,
) -> Tensor:
    """Return the binary loss of recognising that no hard negative matches any image.

    L = -1/B sum_b sum_m log sigmoid( -(s(u_b, h_m) + bias) ), m over the valid hard negatives of
    all ranks: these are further captions with z = -1 in SigLIP's loss (arXiv 2303.15343), and as in
    NegCLIP (arXiv 2210.01936) every image is paired with every hard negative (the
    combination is ours).

    Args:
        images: [B, D] of this rank.
        negatives: [W * B, K, D] of all ranks, unit norm where the mask is True.
        mask: bool [W * B, K], True where there is a negative.
        logit_scale: Scalar.
        logit_bias: Scalar.
        first: Number of the first row among those of all ranks; it makes no difference here.

    Returns:
        Scalar: summed over negatives, mean over this rank's B images.
    """
    logits = (logit_scale * images) @ negatives.flatten(0, 1).T + logit_bias
    kept = F.softplus(logits).masked_fill(~mask.flatten(), 0.0)
    return kept.sum() / images.shape[0]


@dataclass(frozen=True)
class SigmoidNegativesObjective(Objective):
    """SigLIP with all ranks' hard negatives among the captions that match no image.

    total = contrastive = pairs + negatives (terms: contrastive, pairs, negatives): the sigmoid loss
    of the true captions, as `ClipObjective` has it, and `sigmoid_negatives_loss`.
    """

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        bias, negatives = features.logit_bias, features.negative_features
        if bias is None:
            raise ConfigError(
                "the objective sigmoid_negatives needs a model with a logit_bias (sigmoid loss), "
                "and this one has none; set loss.composite and loss.single to softmax_negatives, "
                "clic or clip"
            )
        pairs = self._contrastive(features)["contrastive"]
        if negatives is None:
            return pairs, {"contrastive": pairs}
        everyone, mask = self._gather_negatives(features, negatives)
        images, scale = features.image_features, features.logit_scale
        false = self._by_rows(
            sigmoid_negatives_loss, mask.numel(), images, everyone, mask, scale, bias
        )
        total = pairs + false
        return total, {"contrastive": total, "pairs": pairs, "negatives": false}
