"""Weights of the kinds of hard negatives, and of the slots that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from clic.errors import ConfigError, did_you_mean


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
