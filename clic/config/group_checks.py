"""Checks across settings: where samples come from, and which captions the objectives need.

A setting that another one leaves without effect is an error, and so is a missing one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

from clic.config.train_settings import CaptionsConfig, Config, DataConfig, LossConfig
from clic.errors import ConfigError, did_you_mean
from clic.losses.registry import KINDS, NEGATIVES, OBJECTIVES, SECOND_POSITIVE


def no_effect(setting: str, value: object, because: str, remedy: str) -> ConfigError:
    """Return the error that says so, why, and what to do."""
    return ConfigError(f"{setting}={value} has no effect with {because}; {remedy}")


def validate_data(config: Config) -> None:
    """Check where samples come from, and which of them make a batch; raises `ConfigError`."""
    data = config.data
    if data.source == "shards":
        _validate_shards(config)
    else:
        if data.shards or data.single_shards:
            raise no_effect("data.shards", data.shards, "data=shapes", "add data=shards")
        for setting in ("mix", "cache_dir"):
            if getattr(data, setting) is not None:
                raise no_effect(
                    f"data.{setting}", getattr(data, setting), "data=shapes", "add data=shards"
                )
        if data.decode == "scaled":
            raise no_effect("data.decode", "scaled", "data=shapes", "use fast or exact")
        if data.max_broken != DataConfig().max_broken:
            raise no_effect("data.max_broken", data.max_broken, "data=shapes", "leave it out")
        if data.samples is None or data.split is None:
            raise ConfigError("data=shapes needs data.samples and data.split")
    if data.single_shards and config.sampling.kinds != "alternate":
        raise no_effect(
            "data.single_shards",
            data.single_shards,
            f"sampling.kinds={config.sampling.kinds}",
            "use data.shards alone",
        )
    _validate_hard_images(config)


def _validate_shards(config: Config) -> None:
    data = config.data
    if data.mix is not None:
        _validate_mix(data)
    elif not data.shards:
        raise ConfigError(
            "data.shards is not set; give the folder or pattern of your WebDataset shards, "
            "e.g. data.shards=/data/laion, or use data=shapes"
        )
    if data.split is not None:
        raise no_effect("data.split", data.split, "data=shards", "leave it out")
    if data.samples is not None and data.mix is None and not config.sampling.replacement:
        raise no_effect(
            "data.samples",
            data.samples,
            "data.shards alone, of which an epoch has all",
            "leave it out, or add sampling.replacement=true",
        )


def _validate_mix(data: DataConfig) -> None:
    form = "data.mix='[{shards: /data/a, weight: 2}, {shards: /data/b, weight: 1}]'"
    if data.shards:
        raise ConfigError(f"data.shards={data.shards} and data.mix exclude each other; keep one")
    if not isinstance(data.mix, list) or len(data.mix) < 2:
        raise ConfigError(
            f"data.mix={data.mix} must be a list of two sources or more, as in {form}"
        )
    for number, entry in enumerate(data.mix):
        name = f"data.mix[{number}]"
        if not isinstance(entry, dict) or not entry.get("shards"):
            raise ConfigError(f"{name}={entry} names no shards; write {form}")
        for key in entry:
            if key not in ("shards", "weight"):
                hint = did_you_mean(str(key), ("shards", "weight"))
                raise ConfigError(f"{name}.{key} is not known{hint} (choices: shards, weight)")
        weight = entry.get("weight", 1)
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not 0 < weight < math.inf
        ):
            raise ConfigError(f"{name}.weight={weight} must be a number above 0")


def _validate_hard_images(config: Config) -> None:
    path, kinds = config.sampling.hard_images, config.sampling.kinds
    if path is None:
        return
    if kinds != "single":
        raise no_effect(
            "sampling.hard_images", path, f"sampling.kinds={kinds}", "use sampling.kinds=single"
        )
    if config.data.source != "shards" or config.data.mix is not None:
        raise ConfigError(
            f"sampling.hard_images={path} is of the shards that data.shards names; set that, and "
            "neither data=shapes nor data.mix"
        )
    if config.train.batch_size % 2:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} counts the images and their hard images, "
            "one each with sampling.hard_images; make it even"
        )


MIXABLE = ("swap", "replace")
"""Generators that `captions.mixture` may weigh."""


def validate_method(config: Config) -> None:
    """Check that objectives get the captions they need, and that none are made for nothing."""
    kinds, captions, loss = config.sampling.kinds, config.captions, config.loss
    used = [kind for kind in KINDS if kinds in ("alternate", kind)]
    for kind in used:
        _check_negatives(kind, captions, loss)
    stored = "single" in used and captions.single_negative == "stored"
    if stored and config.data.source == "shapes":
        raise ConfigError(
            "captions.single_negative=stored, and the world (data=shapes) stores no false "
            "captions; name shards that have some (data=shards), or use "
            "captions.single_negative=swap"
        )
    _validate_mixture(captions)
    _validate_layout(config)
    _validate_repair(config)
    _validate_negative_weights(config)
    for kind in used:
        _check_second_positive(kind, config)
    _check_read(config, used)
    if "composite" in used and loss.composite == "clic":
        _validate_clic(config)


def _check_read(config: Config, used: Sequence[str]) -> None:
    """Refuse settings of `loss` that no objective in use reads."""
    loss, without = config.loss, LossConfig()
    read = {name for kind in used for name in OBJECTIVES[getattr(loss, kind)].reads}
    for name in (f.name for f in fields(LossConfig) if f.name not in (*KINDS, *read)):
        value, usual = getattr(loss, name), getattr(without, name)
        if value != usual:
            chosen = [f"loss.{kind}={getattr(loss, kind)}" for kind in used]
            because = " and ".join([f"sampling.kinds={config.sampling.kinds}", *chosen])
            remedy = "set it to null" if usual is None else f"leave it at {usual}"
            raise no_effect(f"loss.{name}", value, because, remedy)


def _check_second_positive(kind: str, config: Config) -> None:
    loss, objective = config.loss, getattr(config.loss, kind)
    slots = config.captions.composite_positives if kind == "composite" else 1
    if slots > 1 or not OBJECTIVES[objective].needs_now(SECOND_POSITIVE, loss):
        return
    weight = OBJECTIVES[objective].needs[SECOND_POSITIVE]
    setting = f"loss.{weight}={getattr(loss, weight)}" if weight else f"loss.{kind}={objective}"
    if kind == "single":
        raise ConfigError(
            f"{setting} needs a second true caption, and single images have one; choose another "
            f"loss.single{', or weight 0' if weight else ''}"
        )
    raise ConfigError(
        f"{setting} compares p1 with p2, and captions.composite_positives={slots}; use 2 or more"
        f"{', or weight 0' if weight else ''}"
    )


def _check_negatives(kind: str, captions: CaptionsConfig, loss: LossConfig) -> None:
    names, objective = captions.negative_kinds(kind), getattr(loss, kind)
    entry = OBJECTIVES[objective]
    needs, weight = entry.needs_now(NEGATIVES, loss), entry.needs.get(NEGATIVES)
    if needs and not names:
        told = kind == "composite" and captions.layout_share > 0
        layout = ", captions.layout_negative=true," if told else ","
        raise ConfigError(
            f"loss.{kind}={objective} needs false captions and captions.{kind}_negative=none makes "
            f"none; choose a generator{layout} or "
            + (f"set loss.{weight}=0" if weight else f"another loss.{kind}")
        )
    if not needs and names:
        because = f"loss.{kind}={objective} that uses no false captions"
        if names[0] == "layout":
            raise no_effect(
                "captions.layout_negative", "true", because, "set captions.layout_negative=false"
            )
        raise no_effect(
            f"captions.{kind}_negative", names[0], because, f"set captions.{kind}_negative=none"
        )


def _validate_mixture(captions: CaptionsConfig) -> None:
    weights = captions.mixture
    if captions.single_negative != "mixture":
        if weights:
            raise no_effect(
                "captions.mixture",
                dict(weights),
                f"captions.single_negative={captions.single_negative}",
                "set captions.single_negative=mixture, or take another group than captions=mixed",
            )
        return
    for kind, weight in weights.items():
        if kind not in MIXABLE:
            hint = did_you_mean(kind, MIXABLE)
            raise ConfigError(
                f"captions.mixture.{kind} is not known{hint} (choices: {', '.join(MIXABLE)})"
            )
        if not 0 <= weight < math.inf:
            raise ConfigError(f"captions.mixture.{kind}={weight} must be a number from 0 on")
    if sum(weight > 0 for weight in weights.values()) < 2:
        raise ConfigError(
            f"captions.mixture={dict(weights)} draws from fewer than two generators; weigh two of "
            f"{', '.join(MIXABLE)}, or name one as captions.single_negative"
        )


def _validate_layout(config: Config) -> None:
    """Check what tells where images lie."""
    captions, grid = config.captions, config.compose.layout != "pair"
    share, kinds = captions.layout_share, f"sampling.kinds={config.sampling.kinds}"
    if config.sampling.kinds == "single" and share > 0:
        raise no_effect("captions.layout_share", share, kinds, "set it to 0")
    if config.sampling.kinds == "single" and grid:
        raise no_effect("compose.layout", config.compose.layout, kinds, "leave it out")
    if share == 0 and captions.layout_period != CaptionsConfig().layout_period:
        raise no_effect(
            "captions.layout_period",
            captions.layout_period,
            "captions.layout_share=0",
            "leave it out",
        )
    if share == 0 and not captions.layout_negative:
        raise no_effect(
            "captions.layout_negative", "false", "captions.layout_share=0", "leave it out"
        )
    if share == 0 and captions.layout_held_out:
        raise no_effect(
            "captions.layout_held_out",
            list(captions.layout_held_out),
            "captions.layout_share=0",
            "set it to []",
        )


def _validate_repair(config: Config) -> None:
    captions = config.captions
    if captions.repair_negatives:
        return
    if captions.composite_negative == "none":
        raise no_effect(
            "captions.repair_negatives", "false", "captions.composite_negative=none", "leave it out"
        )
    if captions.layout_share > 0 or config.compose.layout != "pair":
        raise ConfigError(
            "captions.repair_negatives=false is the published way for two joined sentences; leave "
            "it out with captions.layout_share above 0 and with compose.layout=grid4"
        )


def _validate_negative_weights(config: Config) -> None:
    weights = config.loss.negative_weights
    if not weights:
        return
    kinds, names = config.sampling.kinds, config.captions.negative_kinds("composite")
    if kinds == "single" or "negative_weights" not in OBJECTIVES[config.loss.composite].reads:
        because = f"sampling.kinds={kinds} and loss.composite={config.loss.composite}"
        raise no_effect("loss.negative_weights", dict(weights), because, "leave it out")
    for kind, weight in weights.items():
        if kind not in names:
            hint = did_you_mean(kind, names)
            raise ConfigError(
                f"loss.negative_weights.{kind} weighs false captions that are not made{hint} "
                f"(made: {', '.join(names) or 'none'}); leave it out"
            )
        if not 0 < weight < math.inf:
            raise ConfigError(f"loss.negative_weights.{kind}={weight} must be a number above 0")
    if len(names) < 2:
        raise no_effect(
            "loss.negative_weights",
            dict(weights),
            f"one kind of false captions, {names[0]}",
            "leave it out, or set loss.hard_negative_weight",
        )


def _validate_clic(config: Config) -> None:
    loss, slots = config.loss, config.captions.composite_positives
    if loss.contrastive_weight == loss.hard_negative_weight == loss.unimodal_weight == 0:
        raise ConfigError("loss.*_weight are all 0: there is nothing to train on")
    if loss.hard_negative_positives is not None:
        if loss.hard_negative_positives > slots:
            raise ConfigError(
                f"loss.hard_negative_positives={loss.hard_negative_positives} is more than "
                f"captions.composite_positives={slots}"
            )
        if loss.hard_negative_weight == 0:
            raise no_effect(
                "loss.hard_negative_positives",
                loss.hard_negative_positives,
                "loss.hard_negative_weight=0",
                "set it to null",
            )
