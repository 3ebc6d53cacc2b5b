"""Objectives: from a rank's features to the scalar to minimise and its named terms.

An objective gathers the candidates of its losses from all W ranks, with gradient, and computes
only the B rows of its own rank. The mean over ranks of `total` is the loss of the whole batch of
W * B images, so data-parallel averaging gives the gradient of that loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from clic import distributed
from clic.errors import ConfigError
from clic.losses.terms import (
    by_rows,
    check_weights,
    hard_negative_loss,
    image_to_text,
    image_to_text_with_negatives,
    paraphrase_loss,
    sigmoid_loss,
    slot_weights,
    text_to_image,
    unimodal_loss,
)
from clic.types import Features, LossOutput

Terms = dict[str, Tensor]
LOGITS = 2**22
"""Logits of a contrastive term that are in memory at once, 17 MB in fp32."""


@dataclass(frozen=True)
class Objective(ABC):
    """Base of the objectives: computes in at least fp32 (float64 stays) and detaches the terms.

    Autocast and, in the forward pass, TF32 are off, whatever the towers use.

    Args:
        group: Process group that features are gathered over; None is the default group.
        logits_at_once: A contrastive term with more logits on this rank is computed in chunks of
            rows with so many, and again in the backward pass (see `by_rows`); None turns this off.
    """

    group: ProcessGroup | None = field(default=None, kw_only=True)
    logits_at_once: int | None = field(default=LOGITS, kw_only=True)

    def __call__(self, features: Features) -> LossOutput:
        """Return this rank's loss; the features have the same shapes on every rank.

        Raises:
            ConfigError: The objective cannot be computed from these features.
        """
        off = torch.autocast(features.image_features.device.type, enabled=False)
        with off, distributed.matrix_products(tf32=False):
            total, terms = self._compute(_at_least_fp32(features))
        return LossOutput(total, {name: term.detach() for name, term in terms.items()})

    @abstractmethod
    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        """Return the scalar to minimise and its terms."""

    def _contrastive(self, features: Features) -> Terms:
        """Return CLIC Eq. 4 and its two directions, or with a logit_bias the sigmoid loss."""
        if features.logit_bias is not None:
            loss = self._over_slots(sigmoid_loss, features, features.logit_bias)
            return {"contrastive": loss}
        return self._with_text_to_image(self._over_slots(image_to_text, features), features)

    def _over_slots(self, term: Callable[..., Tensor], features: Features, *others: Any) -> Tensor:
        """Return a term from this rank's images to all captions, averaged over positive slots.

        If it has many logits, the slots are gathered one at a time, so that the backward pass
        frees the gradient of each before it computes the next.
        """
        rows, slots, _ = features.positive_features.shape
        logits = rows * distributed.world_size(self.group) * slots
        many = self.logits_at_once is not None and rows * logits > self.logits_at_once
        means = []
        for own in features.positive_features.split(1 if many else slots, dim=1):
            words = distributed.all_gather(own, self.group), features.logit_scale, *others
            share = logits * own.shape[1] // slots
            means.append(self._by_rows(term, share, features.image_features, *words))
        return torch.stack(means).mean()

    def _with_text_to_image(self, to_text: Tensor, features: Features) -> Terms:
        """Return the symmetric loss and its two halves, given the image-to-text half."""
        images, captions = features.image_features, features.positive_features
        everyone = distributed.all_gather(images, self.group)
        logits = len(everyone) * captions.shape[1]
        scale = features.logit_scale
        to_image = self._by_rows(text_to_image, logits, captions, everyone, scale)
        return {
            "contrastive": (to_text + to_image) / 2,
            "image_to_text": to_text,
            "text_to_image": to_image,
        }

    def _gather_negatives(self, features: Features, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Return all ranks' hard negatives [W * B, K, D], and which are valid, bool [W * B, K]."""
        # As bytes, because gloo does not gather booleans in every supported version of torch.
        mask = distributed.all_gather(_mask(features, negatives).byte(), self.group).bool()
        return distributed.all_gather(negatives, self.group), mask

    def _by_rows(
        self, term: Callable[..., Tensor], logits: int, rows: Tensor, *others: Any
    ) -> Tensor:
        """Return a term over this rank's rows, each of which has this many logits."""
        first = distributed.rank(self.group) * rows.shape[0]
        return by_rows(term, rows, *others, first=first, logits=logits, at_once=self.logits_at_once)


@dataclass(frozen=True)
class ClipObjective(Objective):
    """Plain CLIP on every positive slot; with a logit_bias, SigLIP.

    total = contrastive (terms: contrastive, and without a logit_bias image_to_text and
    text_to_image). Hard negatives are ignored.
    """

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        terms = self._contrastive(features)
        return terms["contrastive"], terms


@dataclass(frozen=True)
class ClicObjective(Objective):
    """CLIC, arXiv 2505.24424 Eq. 7: a weighted sum of Eq. 4, Eq. 5 and Eq. 6.

    A term is computed only if its weight is above 0 and the batch has what it needs (hard
    negatives, a second positive); otherwise it is absent from the terms.

    Args:
        contrastive_weight: Weight of Eq. 4 (with a logit_bias, of the sigmoid loss).
        hard_negative_weight: Weight of Eq. 5.
        unimodal_weight: Weight of Eq. 6.
        hard_negative_positives: How many positives, counted from the first, Eq. 5 compares with
            the hard negatives; None means all of them, as published.
        negative_weights: Relative weight in Eq. 5 of each kind of hard negatives, 1 by default;
            equal weights give the published mean. If a row has several negatives of known kinds,
            the terms also include `hard_negative/<kind>`, the unweighted mean of each kind.
        group: Process group to gather over; None for the default group.

    Raises:
        ConfigError: A weight is negative, all weights are 0, or `hard_negative_positives` or
            `negative_weights` cannot work.
    """

    contrastive_weight: float = 0.5
    hard_negative_weight: float = 0.5
    unimodal_weight: float = 1.0
    hard_negative_positives: int | None = None
    negative_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for term, weight in self._weights().items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"loss.{term}_weight={weight} must be 0 (term off) or positive")
        if not any(self._weights().values()):
            names = ", ".join(f"loss.{term}_weight=0" for term in self._weights())
            raise ConfigError(f"{names}: set one above 0")
        count, weights = self.hard_negative_positives, dict(self.negative_weights)
        if count is not None and count < 1:
            raise ConfigError(
                f"loss.hard_negative_positives={count} must be at least 1 (null means all)"
            )
        check_weights(weights)
        needless = {"hard_negative_positives": count, "negative_weights": weights or None}
        for name, value in needless.items():
            if value is not None and not self.hard_negative_weight:
                raise ConfigError(
                    f"loss.{name}={value} has no effect with loss.hard_negative_weight=0; "
                    "leave it out"
                )

    def _weights(self) -> dict[str, float]:
        return {
            "contrastive": self.contrastive_weight,
            "hard_negative": self.hard_negative_weight,
            "unimodal": self.unimodal_weight,
        }

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        terms: Terms = {}
        if self.contrastive_weight:
            terms |= self._contrastive(features)
        if self.hard_negative_weight and features.negative_features is not None:
            terms |= self._hard_negative(features, features.negative_features)
        if self.unimodal_weight and features.positive_features.shape[1] > 1:
            first, second = features.positive_features[:, :2].unbind(1)
            terms["unimodal"] = unimodal_loss(first, second)
        parts = [w * terms[name] for name, w in self._weights().items() if name in terms]
        if not parts:
            raise ConfigError(
                "loss.contrastive_weight=0 leaves nothing to minimise on a batch without hard "
                "negatives and second positives; set it above 0"
            )
        return torch.stack(parts).sum(), terms

    def _hard_negative(self, features: Features, negatives: Tensor) -> Terms:
        """Return Eq. 5 and, if there are several kinds of negatives, the mean of each."""
        positives, count = features.positive_features, self.hard_negative_positives
        if count is not None and count > positives.shape[1]:
            raise ConfigError(
                f"loss.hard_negative_positives={count} is more than the {positives.shape[1]} "
                "positives of the batch; lower it, or set it to null for all"
            )
        mask, kinds = _mask(features, negatives), features.negative_kinds
        own = slot_weights(self.negative_weights, kinds, mask.shape[1])
        valid = distributed.all_reduce_sum(mask.sum(0), self.group)
        world = distributed.world_size(self.group)

        def mean(slots: Iterable[float]) -> Tensor:
            # Filled on the device, because a copy from the CPU would wait for the GPU.
            weights = torch.stack([negatives.new_full((), weight) for weight in slots])
            total = (weights * valid).sum()
            return hard_negative_loss(
                features.image_features,
                positives[:, :count],
                negatives,
                mask,
                features.logit_scale,
                weights,
                total.masked_fill(total == 0, 1.0) / world,
            )

        terms = {"hard_negative": mean(own)}
        if len(kinds) > 1:
            with torch.no_grad():
                for kind in dict.fromkeys(kinds):
                    terms[f"hard_negative/{kind}"] = mean(float(kind == slot) for slot in kinds)
        return terms


@dataclass(frozen=True)
class SoftmaxNegativesObjective(Objective):
    """NegCLIP and CLoVe: plain CLIP with all ranks' hard negatives among the candidates.

    total = contrastive (terms: contrastive, image_to_text, text_to_image).
    """

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        _check_softmax("softmax_negatives", features)
        negatives = features.negative_features
        if negatives is None:
            terms = self._contrastive(features)
            return terms["contrastive"], terms
        captions = distributed.all_gather(features.positive_features, self.group)
        false, mask = self._gather_negatives(features, negatives)
        candidates = captions.shape[0] + mask.numel()
        to_text = self._by_rows(
            image_to_text_with_negatives, candidates * captions.shape[1],
            features.image_features, captions, false, mask, features.logit_scale,
        )  # fmt: skip
        terms = self._with_text_to_image(to_text, features)
        return terms["contrastive"], terms


@dataclass(frozen=True)
class ParaphraseObjective(Objective):
    """NegCLIP's loss and the same between texts: a caption must match its paraphrase.

    total = contrastive + paraphrase_weight * paraphrase. `contrastive` is the loss of
    `SoftmaxNegativesObjective` on every positive slot; the first two slots are a caption and its
    paraphrase. `paraphrase` is the mean of `clic.losses.terms.paraphrase_loss` from the caption
    to its paraphrase and back. The other terms are image_to_text and text_to_image.

    Args:
        paraphrase_weight: Weight of the term between texts, above 0.
        paraphrase_scale: Factor of its cosines, above 0.
        group: Process group to gather over; None for the default group.

    Raises:
        ConfigError: A value is not above 0, or a batch has only one positive slot.
    """

    paraphrase_weight: float = 1.0
    paraphrase_scale: float = 20.0

    def __post_init__(self) -> None:
        for name in ("paraphrase_weight", "paraphrase_scale"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"loss.{name}={value} must be a positive number")

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        _check_softmax("paraphrase", features)
        if features.positive_features.shape[1] < 2:
            raise ConfigError(
                "the objective paraphrase compares a caption with its paraphrase, and the batch "
                "has one true caption an image; set captions.paraphrase=rules"
            )
        contrastive = SoftmaxNegativesObjective(
            group=self.group, logits_at_once=self.logits_at_once
        )
        total, terms = contrastive._compute(features)
        terms["paraphrase"] = self._paraphrase(features)
        return total + self.paraphrase_weight * terms["paraphrase"], terms

    def _paraphrase(self, features: Features) -> Tensor:
        """Return the mean of the two directions."""
        negatives, scale = features.negative_features, self.paraphrase_scale
        positives = features.positive_features[:, :2]
        if negatives is None:  # leaves the softmax over the batch's other captions
            negatives = positives.new_zeros(positives.shape[0], 0, positives.shape[2])
        everyone = distributed.all_gather(positives, self.group)
        false, mask = self._gather_negatives(features, negatives)
        candidates = everyone.shape[0] + mask.numel()
        halves = [
            self._by_rows(
                paraphrase_loss, candidates,
                positives[:, slot], everyone[:, 1 - slot], false, mask, scale,
            )
            for slot in (0, 1)
        ]  # fmt: skip
        return torch.stack(halves).mean()


def _check_softmax(objective: str, features: Features) -> None:
    """Raise `ConfigError` if a model with the sigmoid loss is used with a softmax objective."""
    if features.logit_bias is not None:
        raise ConfigError(
            f"the objective {objective} needs a softmax, and this model has a logit_bias (sigmoid "
            "loss); set loss.composite and loss.single to clic or clip"
        )


def _mask(features: Features, negatives: Tensor) -> Tensor:
    """Return which negatives are valid, bool [B, K]; without a mask, all of them."""
    if features.negative_mask is not None:
        return features.negative_mask.bool()
    return torch.ones(negatives.shape[:2], dtype=torch.bool, device=negatives.device)


def _at_least_fp32(features: Features) -> Features:
    """Return the features in one dtype, their widest and at least fp32, with masked rows zeroed.

    Masked negatives may contain anything. A NaN there would reach the gradients as 0 * NaN, even
    though the mask keeps it out of the losses.
    """
    given = vars(features).items()
    floats = {n: v for n, v in given if isinstance(v, Tensor) and v.is_floating_point()}
    dtype = torch.float32
    for value in floats.values():
        dtype = torch.promote_types(dtype, value.dtype)
    cast = replace(features, **{n: v.to(dtype) for n, v in floats.items()})  # type: ignore[arg-type]
    if cast.negative_features is not None and not cast.negative_features.shape[1]:
        return replace(cast, negative_features=None, negative_mask=None)  # no slot, no negatives
    if cast.negative_features is None or cast.negative_mask is None:
        return cast
    missing = ~cast.negative_mask.bool()
    return replace(
        cast, negative_features=cast.negative_features.masked_fill(missing.unsqueeze(-1), 0.0)
    )
