"""Checks that types cannot express: ranges, choices, and settings that do not fit together.

A setting that another one leaves without effect is an error (`needless`), as is a missing one.
Nothing here imports torch, so mistakes are reported at once; the exception is `method_checks`,
which imports the generators if `captions.fluency` is set. `CHOICES` repeats the names of registries
that import torch or belong to a higher layer; tests/configs/test_settings_page.py compares them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

from clic.config.method_checks import MIXABLE, check_method
from clic.config.needless import check_needless
from clic.config.train_settings import Config, DataConfig, OptimConfig, TrainConfig
from clic.errors import ConfigError, no_effect, unknown_choice
from clic.losses.registry import KINDS
from clic.losses.registry import choices as objectives
from clic.parts import Trained, parse

TRACKERS = ("tensorboard", "wandb", "trackio")
"""Groups of settings, named after the packages that they need."""

CHOICES: dict[str, tuple[str, ...]] = {
    "data.source": ("shards", "stream", "shapes"),
    "data.decode": ("fast", "exact", "scaled"),
    "data.split": ("train", "validation", "test"),
    "sampling.kinds": ("alternate", *KINDS),
    "sampling.square": ("landscape", "either"),
    "compose.layout": ("pair", "grid4", "alone"),
    "compose.fit": ("squash", "crop"),
    "compose.statistics": ("model", "imagenet"),
    "captions.tagger": ("hanta", "spacy", "stored"),
    "captions.composite_negative": ("cross_swap", "swap", "none"),
    "captions.single_caption": ("first", "random"),
    "captions.paraphrase": ("none", "rules", "captions"),
    "captions.single_negative": (*MIXABLE, "mixture", "stored", "none"),
    "loss.composite": objectives("composite"),
    "loss.single": objectives("single"),
    "optim.schedule": ("clic", "warmup_cosine", "constant"),
    "train.precision": ("auto", "fp32", "bf16", "fp16"),
    "wandb.mode": ("online", "offline"),
}

RANGES: dict[str, tuple[float, float | None]] = {
    "seed": (0, None),
    "data.workers": (0, None),
    "data.samples": (1, None),
    "data.buffer": (1, None),
    "data.timeout": (0, None),
    "data.cache_gb": (0, None),
    "data.max_broken": (0, 1),
    "captions.composite_positives": (1, None),
    "captions.layout_share": (0, 1),
    "captions.layout_period": (0, 1),
    "captions.fluency_candidates": (1, None),
    "loss.contrastive_weight": (0, None),
    "loss.hard_negative_weight": (0, None),
    "loss.unimodal_weight": (0, None),
    "loss.hard_negative_positives": (1, None),
    "loss.paraphrase_weight": (0, None),
    "loss.paraphrase_scale": (0, None),
    "loss.logits_at_once": (1, None),
    "model.context_length": (22, None),
    "model.image_size": (1, None),
    "model.lora_rank": (1, None),
    "model.lora_alpha": (0, None),
    "optim.lr": (0, None),
    "optim.lr_vision": (0, None),
    "optim.layer_decay": (0, 1),
    "optim.warmup_steps": (0, None),
    "optim.warmup_fraction": (0, 1),
    "optim.lr_start": (0, None),
    "optim.lr_end": (0, None),
    "optim.weight_decay": (0, None),
    "optim.grad_clip": (0, None),
    "train.batch_size": (1, None),
    "train.micro_batch": (1, None),
    "train.epochs": (1, None),
    "train.max_steps": (1, None),
    "train.save_every": (0, None),
    "train.keep_checkpoints": (0, None),
    "train.log_every": (1, None),
    "train.eval_every": (0, None),
    "train.examples_every": (0, None),
    "train.patience": (1, None),
    "train.distill_weight": (0, None),
    "train.ema": (0, 1),
    "train.max_skipped": (0, None),
}
"""Smallest and largest value of each number; None if there is no largest."""


def lookup(config: Config, setting: str) -> Any:
    """Return the value of a dotted setting such as ``"optim.lr"``."""
    return attrgetter(setting)(config)


def validate(config: Config, given: Collection[str] = ()) -> None:
    """Check the settings before reading or writing anything.

    Args:
        config: The settings.
        given: Names of those that the user wrote.

    Raises:
        ConfigError: A value is out of its range or choices, a setting would have no effect, or a
            setting lacks another one that it needs.
    """
    for setting, choices in CHOICES.items():
        value = lookup(config, setting)
        if value is not None and value not in choices:
            raise unknown_choice(f"{setting}={value!r}", str(value), choices)
    for setting, (least, most) in RANGES.items():
        value = lookup(config, setting)
        if value is not None and not value >= least:  # also true of NaN
            raise ConfigError(f"{setting}={value} is too small; it must be {least} or more")
        if value is not None and most is not None and value > most:
            raise ConfigError(f"{setting}={value} is too large; it must be from {least} to {most}")
    trained = parse(config.model.train)
    check_needless(config, given)
    _check_sources(config)
    check_method(config)
    _check_optim(config.optim, trained)
    _check_train(config.train)
    if trained.lora and config.model.lora_alpha == 0:
        raise ConfigError(
            f"model.lora_alpha={config.model.lora_alpha} would train nothing; use one above 0"
        )
    if trained.lora and find_spec("peft") is None:
        raise ConfigError(
            f"model.train={config.model.train} needs the package peft; pip install peft (the extra "
            "lora), or train without lora:"
        )
    for name in TRACKERS:
        if getattr(config, name).enabled and find_spec(name) is None:
            raise ConfigError(
                f"{name}.enabled=true needs the package {name}; pip install {name}, or leave it out"
            )


def _check_sources(config: Config) -> None:
    """Check where samples come from, and which of them make a batch."""
    data, hard_images = config.data, config.sampling.hard_images
    if data.source == "shapes" and (data.samples is None or data.split is None):
        raise ConfigError("data=shapes needs data.samples and data.split")
    if data.mix is not None:
        _check_mix(data)
    elif data.source != "shapes" and not data.shards:
        raise ConfigError(
            "data.shards is not set; give the folder or pattern of your WebDataset shards, "
            "e.g. data.shards=/data/laion, or use data=shapes"
        )
    if data.source == "stream":
        _check_stream(data)
    if hard_images is not None and (data.source != "shards" or data.mix is not None):
        raise ConfigError(
            f"sampling.hard_images={hard_images} belongs to the shards that data.shards names; set "
            "that, and neither data=shapes nor data.mix"
        )
    if hard_images is not None and config.train.batch_size % 2:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} counts the images and their hard images, "
            "one each with sampling.hard_images; make it even"
        )


def _check_stream(data: DataConfig) -> None:
    if data.samples is None:
        raise ConfigError(
            "data.source=stream needs data.samples, the samples of an epoch: nobody has counted "
            "those of the shards, and every rank must make the same steps"
        )
    if not 0 < data.timeout < math.inf:
        raise ConfigError(f"data.timeout={data.timeout} must be a number above 0, of seconds")
    keys = data.caption_key
    named = [keys] if isinstance(keys, str) else keys
    texts = isinstance(named, list) and all(isinstance(key, str) and key for key in named)
    if keys is not None and not (texts and named):
        raise ConfigError(
            f"data.caption_key={keys} must be a key of the samples' JSON, or a list of keys, as in "
            "data.caption_key='[top_caption,all_captions]'"
        )


def _check_mix(data: DataConfig) -> None:
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
                raise unknown_choice(f"{name}.{key}", str(key), ("shards", "weight"))
        weight = entry.get("weight", 1)
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            raise ConfigError(f"{name}.weight={weight} must be a number above 0")


def _check_optim(optim: OptimConfig, trained: Trained) -> None:
    if optim.lr_vision is not None and not (trained.vision and trained.text):
        part = "vision" if trained.vision else "text"
        raise no_effect("optim.lr_vision", optim.lr_vision, f"model.train={part}", "set optim.lr")
    if optim.lr_vision is not None and not optim.lr:
        raise ConfigError(
            f"optim.lr_vision={optim.lr_vision} is a ratio of optim.lr=0, which gives nothing a "
            "rate; set optim.lr above 0, or train model.train=vision alone"
        )
    if not optim.layer_decay:
        raise ConfigError("optim.layer_decay=0 must be above 0; 1 gives every layer the same rate")
    if optim.warmup_steps is not None and optim.warmup_fraction is not None:
        raise ConfigError(
            f"optim.warmup_steps={optim.warmup_steps} and "
            f"optim.warmup_fraction={optim.warmup_fraction} exclude each other; set one to null"
        )
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        raise ConfigError(f"optim.betas={list(optim.betas)} must be two numbers from 0 to below 1")
    if not optim.eps > 0:
        raise ConfigError(f"optim.eps={optim.eps} must be above 0")


def _check_train(train: TrainConfig) -> None:
    if bool(train.eval_every) != bool(train.eval_bench):
        raise ConfigError(
            f"train.eval_every={train.eval_every} and train.eval_bench={list(train.eval_bench)} go "
            "together: name benchmarks and a number of steps, or neither"
        )
    if train.ema == 1:
        raise ConfigError(
            "train.ema=1.0 keeps the base model's weights for ever; it must be below 1"
        )
    if train.micro_batch is not None and train.micro_batch >= train.batch_size:
        because = f"train.batch_size={train.batch_size}, which is no larger"
        raise no_effect("train.micro_batch", train.micro_batch, because, "set it to null")
    name = train.run_name
    plain = name is None or (name and name == name.strip() and "/" not in name)
    if not plain or name in (".", ".."):
        raise ConfigError(
            f"train.run_name={name!r} must be the plain name of a folder; "
            "its parent folder is train.runs_dir"
        )
