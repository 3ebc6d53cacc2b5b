"""What the settings' types cannot say: ranges, choices, and settings without effect."""

from __future__ import annotations

import math
from typing import Any

from clic.config import CaptionsConfig, Config, DataConfig, OptimConfig, TrainConfig
from clic.errors import ConfigError, did_you_mean

CHOICES: dict[str, tuple[str, ...]] = {
    "model.train": ("text", "vision", "both"),
    "data.source": ("shards", "shapes"),
    "data.decode": ("fast", "exact", "scaled"),
    "data.split": ("train", "validation", "test"),
    "sampling.kinds": ("alternate", "composite", "single"),
    "sampling.square": ("landscape", "either"),
    "compose.layout": ("pair",),
    "compose.fit": ("squash", "crop"),
    "compose.statistics": ("model", "imagenet"),
    "captions.tagger": ("hanta", "spacy", "stored"),
    "captions.composite_negative": ("cross_swap", "none"),
    "captions.single_negative": ("swap", "replace", "mixture", "none"),
    "loss.composite": ("clic", "clip", "softmax_negatives"),
    "loss.single": ("clip", "softmax_negatives"),
    "optim.schedule": ("clic", "warmup_cosine", "constant"),
    "train.precision": ("auto", "fp32", "bf16", "fp16"),
    "wandb.mode": ("online", "offline"),
}

MIXABLE = ("swap", "replace")
"""Generators that `captions.mixture` may weigh."""

MINIMUM: dict[str, float] = {
    "seed": 0,
    "data.workers": 0,
    "data.samples": 1,
    "data.cache_gb": 0,
    "data.max_broken": 0,
    "captions.composite_positives": 1,
    "loss.contrastive_weight": 0,
    "loss.hard_negative_weight": 0,
    "loss.unimodal_weight": 0,
    "loss.hard_negative_positives": 1,
    "optim.lr": 0,
    "optim.warmup_steps": 0,
    "optim.warmup_fraction": 0,
    "optim.lr_start": 0,
    "optim.lr_end": 0,
    "optim.weight_decay": 0,
    "optim.grad_clip": 0,
    "train.batch_size": 1,
    "train.epochs": 1,
    "train.max_steps": 1,
    "train.save_every": 0,
    "train.keep_checkpoints": 0,
    "train.log_every": 1,
    "train.eval_every": 0,
}


def lookup(config: Config, setting: str) -> Any:
    """Return the value of a dotted setting such as ``"optim.lr"``."""
    value: Any = config
    for part in setting.split("."):
        value = getattr(value, part)
    return value


def validate(config: Config) -> None:
    """Check what the types cannot say, before anything is read or written.

    Raises:
        ConfigError: A value is out of its range or choices, or a setting would have no effect.
    """
    for setting, choices in CHOICES.items():
        value = lookup(config, setting)
        if value is not None and value not in choices:
            hint = did_you_mean(str(value), choices)
            raise ConfigError(
                f"{setting}={value!r} is not known{hint} (choices: {', '.join(choices)})"
            )
    for setting, least in MINIMUM.items():
        value = lookup(config, setting)
        if value is not None and not value >= least:  # also true for NaN
            raise ConfigError(f"{setting}={value} is too small; it must be {least} or more")
    _validate_data(config)
    _validate_hard_images(config)
    _validate_method(config)
    _validate_optim(config.optim)
    _validate_train(config.train)


def _no_effect(setting: str, value: object, because: str, remedy: str) -> ConfigError:
    return ConfigError(f"{setting}={value} has no effect with {because}; {remedy}")


def _validate_data(config: Config) -> None:
    data = config.data
    if data.max_broken > 1:
        raise ConfigError(f"data.max_broken={data.max_broken} is a share from 0 to 1")
    if data.source == "shards":
        _validate_shards(config)
    else:
        if data.shards or data.single_shards:
            raise _no_effect("data.shards", data.shards, "data=shapes", "add data=shards")
        for setting in ("mix", "cache_dir"):
            if getattr(data, setting) is not None:
                raise _no_effect(
                    f"data.{setting}", getattr(data, setting), "data=shapes", "add data=shards"
                )
        if data.decode == "scaled":
            raise _no_effect("data.decode", "scaled", "data=shapes", "use fast or exact")
        if data.max_broken != DataConfig().max_broken:
            raise _no_effect("data.max_broken", data.max_broken, "data=shapes", "leave it out")
        if data.samples is None or data.split is None:
            raise ConfigError("data=shapes needs data.samples and data.split")
    if data.single_shards and config.sampling.kinds != "alternate":
        raise _no_effect(
            "data.single_shards",
            data.single_shards,
            f"sampling.kinds={config.sampling.kinds}",
            "use data.shards alone",
        )


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
        raise _no_effect("data.split", data.split, "data=shards", "leave it out")
    if data.samples is not None and data.mix is None and not config.sampling.replacement:
        raise _no_effect(
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
        raise _no_effect(
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


def _validate_method(config: Config) -> None:
    """Check that objectives get the captions they need, and that none are made for nothing."""
    kinds, captions, loss = config.sampling.kinds, config.captions, config.loss
    if kinds != "single":
        needs = loss.composite == "softmax_negatives" or (
            loss.composite == "clic" and loss.hard_negative_weight > 0
        )
        _check_negatives("composite", loss.composite, captions.composite_negative, needs)
    if kinds != "composite":
        needs = loss.single == "softmax_negatives"
        _check_negatives("single", loss.single, captions.single_negative, needs)
    _validate_mixture(captions)
    if not captions.repair_negatives and captions.composite_negative == "none":
        raise _no_effect(
            "captions.repair_negatives", "false", "captions.composite_negative=none", "leave it out"
        )
    if kinds != "single" and loss.composite == "clic":
        _validate_clic(config)
    elif loss.hard_negative_positives is not None:
        raise _no_effect(
            "loss.hard_negative_positives",
            loss.hard_negative_positives,
            f"sampling.kinds={kinds} and loss.composite={loss.composite}",
            "set it to null",
        )


def _check_negatives(kind: str, objective: str, negative: str, needs: bool) -> None:
    if needs and negative == "none":
        raise ConfigError(
            f"loss.{kind}={objective} needs false captions and captions.{kind}_negative=none makes "
            f"none; choose a generator, or set loss.hard_negative_weight=0"
        )
    if not needs and negative != "none":
        raise _no_effect(
            f"captions.{kind}_negative",
            negative,
            f"loss.{kind}={objective} that uses no false captions",
            f"set captions.{kind}_negative=none",
        )


def _validate_mixture(captions: CaptionsConfig) -> None:
    weights = captions.mixture
    if captions.single_negative != "mixture":
        if weights:
            raise _no_effect(
                "captions.mixture",
                dict(weights),
                f"captions.single_negative={captions.single_negative}",
                "set captions.single_negative=mixture, or captions.mixture={}",
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


def _validate_clic(config: Config) -> None:
    loss, slots = config.loss, config.captions.composite_positives
    if loss.contrastive_weight == loss.hard_negative_weight == loss.unimodal_weight == 0:
        raise ConfigError("loss.*_weight are all 0: there is nothing to train on")
    if loss.unimodal_weight > 0 and slots < 2:
        raise ConfigError(
            f"loss.unimodal_weight={loss.unimodal_weight} compares p1 with p2, and "
            f"captions.composite_positives={slots}; use 2 or more, or weight 0"
        )
    if loss.hard_negative_positives is not None:
        if loss.hard_negative_positives > slots:
            raise ConfigError(
                f"loss.hard_negative_positives={loss.hard_negative_positives} is more than "
                f"captions.composite_positives={slots}"
            )
        if loss.hard_negative_weight == 0:
            raise _no_effect(
                "loss.hard_negative_positives",
                loss.hard_negative_positives,
                "loss.hard_negative_weight=0",
                "set it to null",
            )


def _validate_optim(optim: OptimConfig) -> None:
    if optim.warmup_steps is not None and optim.warmup_fraction is not None:
        raise ConfigError(
            f"optim.warmup_steps={optim.warmup_steps} and "
            f"optim.warmup_fraction={optim.warmup_fraction} exclude each other; set one to null"
        )
    if optim.warmup_fraction is not None and optim.warmup_fraction > 1:
        raise ConfigError(f"optim.warmup_fraction={optim.warmup_fraction} is a share from 0 to 1")
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        raise ConfigError(f"optim.betas={list(optim.betas)} must be two numbers from 0 to below 1")
    if not optim.eps > 0:
        raise ConfigError(f"optim.eps={optim.eps} must be above 0")


def _validate_train(train: TrainConfig) -> None:
    if bool(train.eval_every) != bool(train.eval_bench):
        raise ConfigError(
            f"train.eval_every={train.eval_every} and train.eval_bench={list(train.eval_bench)} go "
            "together: name benchmarks and a number of steps, or neither"
        )
    if train.run_name is not None and (
        not train.run_name
        or train.run_name != train.run_name.strip()
        or "/" in train.run_name
        or train.run_name in (".", "..")
    ):
        raise ConfigError(
            f"train.run_name={train.run_name!r} must be the plain name of a folder; "
            "where it lies is train.runs_dir"
        )
