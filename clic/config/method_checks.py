"""Checks of the method's settings: true and false captions, and the losses that use them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from clic.config.train_settings import CaptionsConfig, Config, LossConfig
from clic.errors import ConfigError, did_you_mean, no_effect, unknown_choice
from clic.losses.registry import EVERY, KINDS, NEGATIVES, OBJECTIVES, SECOND_POSITIVE

MIXABLE = ("swap", "swap_attributes", "replace")
"""The generators of false captions of one image, to which `captions.mixture` may give weights."""


def check_method(config: Config) -> None:
    """Check that captions and losses fit together for the kinds of samples in use.

    Raises:
        ConfigError: A loss lacks the captions that it needs, captions or weights would have no
            effect, or a weight is not a number above 0.
    """
    used = [kind for kind in KINDS if config.sampling.kinds in ("alternate", kind)]
    for kind in used:
        _check_negatives(kind, config.captions, config.loss)
    for kind in used:
        _check_second_positive(kind, config)
    _check_captions(config, used)
    _check_losses(config, used)


def swaps_within_captions(config: Config) -> bool:
    """Return whether false captions may be swaps within a caption of one image."""
    from clic.captions.negatives import RANKED  # here, because it imports torch

    captions, kinds = config.captions, config.sampling.kinds
    made = set() if kinds == "single" else {captions.composite_negative}
    if kinds != "composite":
        mixed = captions.single_negative == "mixture"
        weights = captions.mixture if mixed else {captions.single_negative: 1}
        made.update(name for name, weight in weights.items() if weight > 0)
    return not made.isdisjoint(RANKED)


def _check_negatives(kind: str, captions: CaptionsConfig, loss: LossConfig) -> None:
    """Check that an objective gets false captions where it needs them, and only there."""
    names, objective = captions.negative_kinds(kind), getattr(loss, kind)
    entry = OBJECTIVES[objective]
    needs, weight = entry.needs_now(NEGATIVES, loss), entry.needs.get(NEGATIVES)
    if needs and not names:
        layout = kind == "composite" and captions.layout_share > 0
        raise ConfigError(
            f"loss.{kind}={objective} needs false captions and captions.{kind}_negative=none makes "
            f"none; choose a generator{', captions.layout_negative=true,' if layout else ','} or "
            + (f"set loss.{weight}=0" if weight else f"another loss.{kind}")
        )
    if names and not needs:
        layout = names[0] == "layout"
        setting = "captions.layout_negative" if layout else f"captions.{kind}_negative"
        because = f"loss.{kind}={objective} that uses no false captions"
        remedy = f"set {setting}={'false' if layout else 'none'}"
        raise no_effect(setting, "true" if layout else names[0], because, remedy)


def _check_second_positive(kind: str, config: Config) -> None:
    loss, objective = config.loss, getattr(config.loss, kind)
    slots = config.captions.positives(kind)
    if slots > 1 or not OBJECTIVES[objective].needs_now(SECOND_POSITIVE, loss):
        return
    weight = OBJECTIVES[objective].needs[SECOND_POSITIVE]
    setting = f"loss.{weight}={getattr(loss, weight)}" if weight else f"loss.{kind}={objective}"
    reason = f"compares p1 with p2, and captions.composite_positives={slots}; use 2 or more"
    if kind == "single":
        reason = (
            "needs a second true caption, and single images have one; set "
            "captions.paraphrase=rules, or choose another loss.single"
        )
    raise ConfigError(f"{setting} {reason}{', or weight 0' if weight else ''}")


def _check_captions(config: Config, used: Sequence[str]) -> None:
    captions = config.captions
    stored = "single" in used and captions.single_negative == "stored"
    if stored and config.data.source == "shapes":
        raise ConfigError(
            "captions.single_negative=stored, and the world (data=shapes) stores no false "
            "captions; name shards that have some (data=shards), or use "
            "captions.single_negative=swap"
        )
    for kind, weight in captions.mixture.items():
        if kind not in MIXABLE:
            raise unknown_choice(f"captions.mixture.{kind}", kind, MIXABLE)
        if not 0 <= weight < math.inf:
            raise ConfigError(f"captions.mixture.{kind}={weight} must be a number, 0 or above")
    mixed = sum(weight > 0 for weight in captions.mixture.values())
    if captions.single_negative == "mixture" and mixed < 2:
        raise ConfigError(
            f"captions.mixture={dict(captions.mixture)} draws from fewer than two generators; "
            f"weigh two of {', '.join(MIXABLE)}, or name one as captions.single_negative"
        )
    if "composite" in used:
        _check_alone(config)
    told = captions.layout_share > 0 or config.compose.layout != "pair"
    if not captions.repair_negatives and told:
        raise ConfigError(
            "captions.repair_negatives=false reproduces the published code, which joins two "
            "sentences; leave it out with captions.layout_share above 0 and with "
            "any compose.layout but pair"
        )


def _check_alone(config: Config) -> None:
    """Check that captions and losses suit one image if a row is a single one, otherwise several."""
    alone, negative = config.compose.layout == "alone", config.captions.composite_negative
    if negative == ("cross_swap" if alone else "swap"):
        other = "swap" if alone else "cross_swap"
        raise ConfigError(
            f"captions.composite_negative={negative} does not go with compose.layout="
            f"{config.compose.layout}: cross_swap exchanges words of two images' captions, swap "
            f"those of one image's; use captions.composite_negative={other}"
        )
    if alone and config.loss.composite == "clic" and config.loss.unimodal_weight > 0:
        raise ConfigError(
            f"loss.unimodal_weight={config.loss.unimodal_weight} compares p1 with p2, and with "
            "compose.layout=alone they are the same text; set it to 0"
        )


def _check_losses(config: Config, used: Sequence[str]) -> None:
    loss, without = config.loss, LossConfig()
    used_now = [OBJECTIVES[getattr(loss, kind)] for kind in used]
    read = {name for objective in used_now for name in objective.reads}
    if any(objective.is_contrastive(loss) for objective in used_now):
        read.update(EVERY)
    for name in (f.name for f in fields(LossConfig) if f.name not in (*KINDS, *read)):
        value, usual = getattr(loss, name), getattr(without, name)
        if value != usual:
            chosen = [f"loss.{kind}={getattr(loss, kind)}" for kind in used]
            because = " and ".join([f"sampling.kinds={config.sampling.kinds}", *chosen])
            remedy = "leave it out" if isinstance(usual, dict) else f"leave it at {usual}"
            raise no_effect(
                f"loss.{name}", value, because, "set it to null" if usual is None else remedy
            )
    _check_negative_weights(loss.negative_weights, config.captions.negative_kinds("composite"))
    if "composite" not in used or loss.composite != "clic":
        return
    if loss.contrastive_weight == loss.hard_negative_weight == loss.unimodal_weight == 0:
        raise ConfigError("loss.*_weight are all 0: there is nothing to train on")
    count, slots = loss.hard_negative_positives, config.captions.composite_positives
    if count is not None and count > slots:
        raise ConfigError(
            f"loss.hard_negative_positives={count} is more than "
            f"captions.composite_positives={slots}"
        )


def _check_negative_weights(weights: Mapping[str, float], names: Sequence[str]) -> None:
    for kind, weight in weights.items():
        if kind not in names:
            raise ConfigError(
                f"loss.negative_weights.{kind} weighs false captions that are not made"
                f"{did_you_mean(kind, names)} (made: {', '.join(names) or 'none'}); leave it out"
            )
        if not 0 < weight < math.inf:
            raise ConfigError(f"loss.negative_weights.{kind}={weight} must be a number above 0")
    if weights and len(names) < 2:
        because = f"one kind of false captions, {names[0]}"
        remedy = "leave it out, or set loss.hard_negative_weight"
        raise no_effect("loss.negative_weights", dict(weights), because, remedy)
