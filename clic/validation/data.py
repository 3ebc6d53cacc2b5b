"""Checks of the groups `data` and `sampling`."""

from __future__ import annotations

import math

from clic.config import Config, DataConfig
from clic.errors import ConfigError, did_you_mean
from clic.validation.effect import no_effect


def validate_data(config: Config) -> None:
    """Check where samples come from, and which of them make a batch; raises `ConfigError`."""
    data = config.data
    if data.max_broken > 1:
        raise ConfigError(f"data.max_broken={data.max_broken} is a share from 0 to 1")
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
