"""The terms of the losses, each a pure function of unit-norm features in at least fp32.

Letters: B rows of this rank, W ranks, P positive slots, K hard negatives, D width; cosines are
multiplied by `logit_scale`, which is already exponentiated, and s stands for the product. Where a
term compares with the candidates of all ranks, `first` is the number of this rank's first row
among them, rank * B. For large batches, `by_rows` computes a term some rows at a time, so that
its logits need not all be in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from clic import distributed
from clic.errors import ConfigError, did_you_mean


def caption_logits(images: Tensor, captions: Tensor, logit_scale: Tensor) -> Tensor:
    """Return each image's logit for every caption, slot by slot.

    Args:
        images: [B, D].
        captions: [N, P, D].
        logit_scale: Scalar.

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
    """Return the mean cross-entropy over B rows and P slots of logits [B, P, N].

    The correct candidate of row b is number `first + b`.
    """
    rows, slots, _ = logits.shape
    own = torch.arange(first, first + rows, device=logits.device)
    return F.cross_entropy(logits.flatten(0, 1), own.repeat_interleave(slots))


def image_to_text(images: Tensor, captions: Tensor, logit_scale: Tensor, first: int) -> Tensor:
    """Return the InfoNCE loss from images to captions, the first half of CLIC Eq. 4.

    L = -1/(P B) sum_p sum_b log( e^{s(u_b, v_{b,p})} / sum_n e^{s(u_b, v_{n,p})} ),
    n over the captions of slot p of all ranks (arXiv 2103.00020 and 2505.24424).

    Args:
        images: [B, D] of this rank.
        captions: [W * B, P, D] of all ranks.
        logit_scale: Scalar.
        first: This rank's first row among the candidates.

    Returns:
        Scalar, the mean over this rank's B images and P slots.
    """
    return own_cross_entropy(caption_logits(images, captions, logit_scale), first)


def text_to_image(captions: Tensor, images: Tensor, logit_scale: Tensor, first: int) -> Tensor:
    """Return the InfoNCE loss from captions to images, the second half of CLIC Eq. 4.

    L = -1/(P B) sum_p sum_b log( e^{s(u_b, v_{b,p})} / sum_n e^{s(u_n, v_{b,p})} ),
    n over the images of all ranks.

    Args:
        captions: [B, P, D] of this rank.
        images: [W * B, D] of all ranks.
        logit_scale: Scalar.
        first: This rank's first row among the candidates.

    Returns:
        Scalar, the mean over this rank's B captions and P slots.
    """
    return own_cross_entropy(image_logits(captions, images, logit_scale), first)


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
        / (sum_n e^{s(u_b, v_{n,p})} + sum_m e^{s(u_b, h_m)}) ),
    n over the captions of slot p and m over the hard negatives of all ranks: NegCLIP (arXiv
    2210.01936) and CLoVe (arXiv 2402.15021). The other direction is plain CLIP's, because a hard
    negative has no image of its own.

    Args:
        images: [B, D] of this rank.
        captions: [W * B, P, D] of all ranks.
        negatives: [W * B, K, D] of all ranks, unit norm where the mask is True.
        mask: bool [W * B, K], True where there is a negative.
        logit_scale: Scalar.
        first: This rank's first row among the candidates.

    Returns:
        Scalar, the mean over this rank's B images and P slots.
    """
    true = caption_logits(images, captions, logit_scale)
    false = (logit_scale * images) @ negatives.flatten(0, 1).T
    false = false.masked_fill(~mask.flatten(), float("-inf"))
    shared = false.unsqueeze(1).expand(-1, true.shape[1], -1)
    return own_cross_entropy(torch.cat([true, shared], dim=-1), first)


def sigmoid_loss(
    images: Tensor, captions: Tensor, logit_scale: Tensor, logit_bias: Tensor, first: int
) -> Tensor:
    """Return the binary loss of telling matching pairs from all other pairs.

    L = -1/(P B) sum_p sum_b sum_n log sigmoid( z_{bn} (s(u_b, v_{n,p}) + bias) ),
    z = 1 for the matching caption and -1 otherwise, n over the captions of slot p of all ranks:
    SigLIP (arXiv 2303.15343), Algorithm 1, with several positive slots.

    Args:
        images: [B, D] of this rank.
        captions: [W * B, P, D] of all ranks.
        logit_scale: Scalar.
        logit_bias: Scalar.
        first: This rank's first row among the candidates.

    Returns:
        Scalar: summed over candidates, mean over this rank's B images and P slots.
    """
    logits = caption_logits(images, captions, logit_scale) + logit_bias
    rows, slots, candidates = logits.shape
    sign = logits.new_full((rows, 1, candidates), -1.0)
    row = torch.arange(rows, device=logits.device)
    sign[row, 0, first + row] = 1.0
    return -F.logsigmoid(sign * logits).sum() / (rows * slots)


def unimodal_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared distance between the two joined captions p1 and p2: CLIC Eq. 6.

    L = 1/B sum_b || v_{b,1} - v_{b,2} ||_2^2. Nothing is gathered; as B is equal on all ranks, the
    mean of their losses is the mean over all images.

    Args:
        first: [B, D], features of p1.
        second: [B, D], features of p2.

    Returns:
        Scalar, summed over D, mean over this rank's B images.
    """
    return (first - second).square().sum(-1).mean()


def hard_negative_loss(
    images: Tensor,
    positives: Tensor,
    negatives: Tensor,
    mask: Tensor,
    logit_scale: Tensor,
    weights: Tensor,
    valid_per_rank: Tensor,
) -> Tensor:
    """Return the loss of ranking each positive above each hard negative of its image: CLIC Eq. 5.

    L = sum_{b,p,k} w_k l_bpk / (P sum_k w_k N_k),
    l_bpk = -log( e^{s(u_b, v_bp)} / (e^{s(u_b, v_bp)} + e^{s(u_b, n_bk)}) )
          = -log sigmoid( s(u_b, v_bp) - s(u_b, n_bk) ),
    summed over the valid pairs; N_k counts the valid negatives of slot k on all ranks. Equal
    weights give the paper's mean over all pairs. A logit_bias would cancel.

    Features are not gathered. Ranks have different numbers of negatives, so each divides by the
    mean number per rank: the mean of the ranks' losses is then the (weighted) mean over all pairs.

    Args:
        images: [B, D].
        positives: [B, P, D].
        negatives: [B, K, D], unit norm where the mask is True.
        mask: bool [B, K], True where there is a negative.
        logit_scale: Scalar.
        weights: [K], relative weight w_k >= 0 of each slot's pairs.
        valid_per_rank: Scalar, sum_k w_k N_k / W, greater than 0.

    Returns:
        Scalar: this rank's weighted sum over valid pairs / (P * valid_per_rank), 0 without any.
    """
    queries = (logit_scale * images).unsqueeze(1)
    own = (queries @ positives.mT).transpose(1, 2)  # [B, P, 1]
    false = queries @ negatives.mT  # [B, 1, K]
    kept = -F.logsigmoid(own - false).masked_fill(~mask.unsqueeze(1), 0.0)
    return (weights * kept).sum() / (positives.shape[1] * valid_per_rank)


def paraphrase_loss(
    captions: Tensor,
    paraphrases: Tensor,
    negatives: Tensor,
    mask: Tensor,
    scale: float,
    first: int,
) -> Tensor:
    """Return the InfoNCE loss from captions to paraphrases, with false captions as candidates.

    L = -1/B sum_b log( e^{t c_b . p_b} / (sum_n e^{t c_b . p_n} + sum_m e^{t c_b . h_m}) ),
    n over the paraphrases and m over the hard negatives of all ranks, t the scale: the text-only
    condition of SugarCrepe++ (TOT, arXiv 2406.11171) as a loss. READ-CLIP (arXiv 2510.16540) also
    pulls a caption towards its paraphrase, but compares it only with the other captions of the
    batch. Here its own false versions are candidates, too, so a text with other words and the same
    meaning must rank above one with the same words and another meaning.

    Args:
        captions: [B, D] of this rank.
        paraphrases: [W * B, D] of all ranks.
        negatives: [W * B, K, D] of all ranks, unit norm where the mask is True.
        mask: bool [W * B, K], True where there is a negative.
        scale: Factor t of the cosines. A constant, because the text tower has no temperature of
            its own, and a trained one would only grow.
        first: This rank's first row among the candidates.

    Returns:
        Scalar, the mean over this rank's B captions.
    """
    true = scale * captions @ paraphrases.T
    false = (scale * captions @ negatives.flatten(0, 1).T).masked_fill(
        ~mask.flatten(), float("-inf")
    )
    return own_cross_entropy(torch.cat([true, false], dim=-1).unsqueeze(1), first)


def by_rows(
    term: Callable[..., Tensor],
    rows: Tensor,
    *others: Any,
    first: int,
    logits: int,
    at_once: int | None,
) -> Tensor:
    """Return a term, which is a mean over rows, in chunks of rows if it has many logits.

    The mean over B rows is the mean over chunks c of rows, L = sum_c B_c / B L_c, with the
    same candidates for all. The logits of a chunk are discarded after its forward pass and
    recomputed in the backward pass (arXiv 1604.06174): the same gradient up to the order of sums.

    Args:
        term: One of the terms above, called with rows, `others` and the keyword `first`.
        rows: [B, ...], the features to compare with the candidates.
        others: The term's other arguments.
        first: The number of the first row among the candidates of all ranks.
        logits: Number of logits per row.
        at_once: Logits that are in memory at once; None for all.

    Returns:
        Scalar, the term over all B rows.
    """
    size = len(rows) if at_once is None else max(1, at_once // max(1, logits))
    if len(rows) <= size:
        return term(rows, *others, first=first)

    def in_full(chunk: Tensor, *words: Any, first: int) -> Tensor:
        with distributed.matrix_products(tf32=False):  # in the backward pass, too
            return term(chunk, *words, first=first)

    parts = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        mean = checkpoint(
            in_full, chunk, *others, first=first + start,
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        parts.append(mean * (len(chunk) / len(rows)))
    return torch.stack(parts).sum()


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
