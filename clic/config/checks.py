"""Checks that types cannot express: ranges, choices, and settings that would have no effect.

Nothing here imports torch, so that a mistake is reported at once. Where a registry imports torch,
its names are repeated in `CHOICES`, and tests/configs/test_settings_page.py holds them equal.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from clic.config.group_checks import no_effect, validate_data, validate_method
from clic.config.train_settings import Config, OptimConfig, TrainConfig
from clic.errors import ConfigError, did_you_mean
from clic.losses.registry import choices as objectives

CHOICES: dict[str, tuple[str, ...]] = {
    "model.train": ("text", "vision", "both"),
    "data.source": ("shards", "shapes"),
    "data.decode": ("fast", "exact", "scaled"),
    "data.split": ("train", "validation", "test"),
    "sampling.kinds": ("alternate", "composite", "single"),
    "sampling.square": ("landscape", "either"),
    "compose.layout": ("pair", "grid4"),
    "compose.fit": ("squash", "crop"),
    "compose.statistics": ("model", "imagenet"),
    "captions.tagger": ("hanta", "spacy", "stored"),
    "captions.composite_negative": ("cross_swap", "none"),
    "captions.single_negative": ("swap", "replace", "mixture", "stored", "none"),
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
    "data.cache_gb": (0, None),
    "data.max_broken": (0, 1),
    "captions.composite_positives": (1, None),
    "captions.layout_share": (0, 1),
    "captions.layout_period": (0, 1),
    "loss.contrastive_weight": (0, None),
    "loss.hard_negative_weight": (0, None),
    "loss.unimodal_weight": (0, None),
    "loss.hard_negative_positives": (1, None),
    "optim.lr": (0, None),
    "optim.warmup_steps": (0, None),
    "optim.warmup_fraction": (0, 1),
    "optim.lr_start": (0, None),
    "optim.lr_end": (0, None),
    "optim.weight_decay": (0, None),
    "optim.grad_clip": (0, None),
    "train.batch_size": (1, None),
    "train.epochs": (1, None),
    "train.max_steps": (1, None),
    "train.save_every": (0, None),
    "train.keep_checkpoints": (0, None),
    "train.log_every": (1, None),
    "train.eval_every": (0, None),
    "train.max_skipped": (0, None),
}
"""Least and greatest value of each number; None where there is no greatest."""


def lookup(config: Config, setting: str) -> Any:
    """Return the value of a dotted setting such as ``"optim.lr"``."""
    value: Any = config
    for part in setting.split("."):
        value = getattr(value, part)
    return value


def validate(config: Config) -> None:
    """Check the settings before anything is read or written.

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
    for setting, (least, most) in RANGES.items():
        value = lookup(config, setting)
        if value is not None and not value >= least:  # also true of NaN
            raise ConfigError(f"{setting}={value} is too small; it must be {least} or more")
        if value is not None and most is not None and value > most:
            raise ConfigError(f"{setting}={value} is too large; it must be from {least} to {most}")
    validate_data(config)
    validate_method(config)
    _validate_optim(config.optim)
    _validate_train(config.train)
    if config.wandb.enabled and find_spec("wandb") is None:
        raise ConfigError(
            "wandb.enabled=true needs the package wandb; pip install wandb, or leave it out"
        )


def _validate_optim(optim: OptimConfig) -> None:
    if optim.warmup_steps is not None and optim.warmup_fraction is not None:
        raise ConfigError(
            f"optim.warmup_steps={optim.warmup_steps} and "
            f"optim.warmup_fraction={optim.warmup_fraction} exclude each other; set one to null"
        )
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
    if train.eval_on_test and not train.eval_bench:
        raise no_effect("train.eval_on_test", "true", "train.eval_bench=[]", "leave it out")
    if train.run_name is not None and (
        not train.run_name
        or train.run_name != train.run_name.strip()
        or "/" in train.run_name
        or train.run_name in (".", "..")
    ):
        raise ConfigError(
            f"train.run_name={train.run_name!r} must be the plain name of a folder; "
            "its parent folder is train.runs_dir"
        )
