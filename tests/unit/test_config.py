"""Settings: every mistake that `validate` knows is told with its setting, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from clic import models
from clic.config.checks import CHOICES, RANGES, lookup, validate
from clic.config.overrides import given
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.errors import ConfigError
from clic.types import Batch


def put(config: Config, setting: str, value: Any) -> None:
    """Set a dotted setting."""
    *groups, last = setting.split(".")
    target: Any = config
    for group in groups:
        target = getattr(target, group)
    setattr(target, last, value)


def valid() -> Config:
    """Return settings that validate."""
    config = Config()
    config.data.samples, config.data.split = 64, "train"
    return config


def message_of(**settings: Any) -> str:
    """Return the error's text for the valid settings with changes (`__` stands for the dot)."""
    config = valid()
    for setting, value in settings.items():
        put(config, setting.replace("__", "."), value)
    with pytest.raises(ConfigError) as error:
        validate(config)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_valid_settings_pass() -> None:
    validate(valid())


@pytest.mark.parametrize("setting", sorted(CHOICES))
def test_unknown_choice_names_setting_value_and_choices(setting: str) -> None:
    right = CHOICES[setting][-1]
    text = message_of(**{setting.replace(".", "__"): right + "x"})
    assert f"{setting}='{right}x'" in text
    assert f"did you mean '{right}'" in text
    assert all(choice in text for choice in CHOICES[setting])


@pytest.mark.parametrize("setting", sorted(RANGES))
def test_too_small_names_setting_value_and_least(setting: str) -> None:
    least, most = RANGES[setting]
    text = message_of(**{setting.replace(".", "__"): least - 1})
    assert f"{setting}={least - 1}" in text
    assert f"{least} or more" in text
    if most is not None:
        text = message_of(**{setting.replace(".", "__"): most + 1})
        assert f"{setting}={most + 1}" in text and f"from {least} to {most}" in text


def test_nan_is_out_of_range() -> None:
    assert "optim.lr=nan" in message_of(optim__lr=float("nan"))


def test_every_checked_setting_exists() -> None:
    for setting in (*CHOICES, *RANGES):
        lookup(Config(), setting)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        # data
        (
            {"data__source": "shards", "data__samples": None, "data__split": None},
            ["data.shards", "data.shards=/data", "data=shapes"],
        ),
        (
            {"data__source": "shards", "data__shards": "x", "data__split": None},
            ["data.samples=64", "no effect", "leave it out"],
        ),
        (
            {"data__source": "shards", "data__shards": "x", "data__samples": None},
            ["data.split=train", "no effect", "leave it out"],
        ),
        ({"data__shards": "x"}, ["data.shards=x", "no effect", "data=shards"]),
        ({"data__samples": None}, ["data.samples", "data.split"]),
        ({"data__split": None}, ["data.samples", "data.split"]),
        (
            {
                "data__source": "shards",
                "data__shards": "x",
                "data__single_shards": "y",
                "data__samples": None,
                "data__split": None,
                "sampling__kinds": "composite",
            },
            ["data.single_shards=y", "sampling.kinds=composite", "data.shards alone"],
        ),
        # captions and losses
        (
            {"captions__composite_negative": "none"},
            ["loss.composite=clic", "captions.composite_negative=none", "hard_negative_weight=0"],
        ),
        (
            {"loss__hard_negative_weight": 0.0},
            ["captions.composite_negative=cross_swap", "no effect", "composite_negative=none"],
        ),
        (
            {
                "captions__repair_negatives": False,
                "captions__composite_negative": "none",
                "loss__hard_negative_weight": 0.0,
            },
            ["captions.repair_negatives=false", "no effect", "captions.composite_negative=none"],
        ),
        (
            {"loss__composite": "clip"},
            ["captions.composite_negative=cross_swap", "loss.composite=clip"],
        ),
        (
            {"captions__single_negative": "swap"},
            ["captions.single_negative=swap", "loss.single=clip", "single_negative=none"],
        ),
        (
            {"loss__single": "softmax_negatives"},
            ["loss.single=softmax_negatives", "captions.single_negative=none"],
        ),
        (
            {
                "loss__contrastive_weight": 0.0,
                "loss__hard_negative_weight": 0.0,
                "loss__unimodal_weight": 0.0,
                "captions__composite_negative": "none",
            },
            ["loss.*_weight", "nothing to train on"],
        ),
        (
            {"captions__composite_positives": 1},
            ["loss.unimodal_weight=1.0", "captions.composite_positives=1", "2 or more"],
        ),
        (
            {"loss__hard_negative_positives": 5},
            ["loss.hard_negative_positives=5", "captions.composite_positives=4"],
        ),
        (
            {
                "loss__hard_negative_positives": 2,
                "loss__hard_negative_weight": 0.0,
                "captions__composite_negative": "none",
            },
            ["loss.hard_negative_positives=2", "no effect", "null"],
        ),
        (
            {
                "loss__hard_negative_positives": 2,
                "loss__composite": "clip",
                "captions__composite_negative": "none",
            },
            ["loss.hard_negative_positives=2", "no effect", "loss.composite=clip", "null"],
        ),
        # optimiser
        (
            {"optim__warmup_steps": 3, "optim__warmup_fraction": 0.1},
            ["optim.warmup_steps=3", "optim.warmup_fraction=0.1", "null"],
        ),
        ({"optim__warmup_fraction": 1.5}, ["optim.warmup_fraction=1.5", "0 to 1"]),
        ({"optim__betas": [0.9]}, ["optim.betas=[0.9]", "two numbers"]),
        ({"optim__betas": [0.9, 1.0]}, ["optim.betas=[0.9, 1.0]", "below 1"]),
        ({"optim__eps": 0.0}, ["optim.eps=0.0", "above 0"]),
        ({"optim__lr_vision": 1e-5}, ["optim.lr_vision=1e-05", "no effect", "model.train=text"]),
        (
            {"optim__lr_vision": 1e-5, "optim__lr": 0.0, "model__train": "both"},
            ["optim.lr_vision=1e-05", "optim.lr=0"],
        ),
        ({"optim__layer_decay": 0.0}, ["optim.layer_decay=0", "above 0"]),
        ({"optim__layer_decay": 1.1}, ["optim.layer_decay=1.1", "from 0 to 1"]),
        ({"model__train": "text.last:0"}, ["text.last:0 trains no layer"]),
        # run
        ({"train__ema": 1.0}, ["train.ema=1.0", "below 1"]),
        ({"train__best_metric": "a/b"}, ["train.best_metric=a/b", "train.eval_bench=[]"]),
        ({"train__patience": 3}, ["train.patience=3", "train.best_metric=null"]),
        ({"train__micro_batch": 48}, ["train.micro_batch=48", "no effect", "batch_size=48"]),
        ({"train__micro_batch": 0}, ["train.micro_batch=0", "1 or more"]),
        ({"train__eval_every": 5}, ["train.eval_every=5", "train.eval_bench=[]", "or neither"]),
        ({"train__eval_bench": ["shapes++"]}, ["train.eval_every=0", "shapes++"]),
        ({"train__run_name": "a/b"}, ["train.run_name='a/b'", "train.runs_dir"]),
        ({"train__run_name": ".."}, ["train.run_name='..'", "train.runs_dir"]),
        ({"train__run_name": " x"}, ["train.run_name=' x'", "plain name"]),
        ({"train__run_name": ""}, ["train.run_name=''", "plain name"]),
    ],
)
def test_settings_that_cannot_go_together(changes: dict[str, Any], parts: list[str]) -> None:
    text = message_of(**changes)
    for part in parts:
        assert part in text


def test_negatives_are_not_asked_of_kinds_that_do_not_occur() -> None:
    config = valid()
    config.sampling.kinds = "single"
    config.captions.composite_negative = "none"
    validate(config)


ALONE = [
    "compose.layout=alone", "captions.composite_negative=swap", "loss.unimodal_weight=0",
]  # fmt: skip
SINGLE = ["sampling.kinds=single"]


@pytest.mark.parametrize(
    ("words", "because"),
    [(SINGLE, "sampling.kinds=single"), (ALONE, "compose.layout=alone, which joins no images")],
    ids=["single images", "images alone"],
)
@pytest.mark.parametrize(
    "word",
    ["compose.fit=crop", "compose.fit=squash", "sampling.square=either",
     "sampling.square=landscape", "compose.statistics=imagenet", "sampling.partner_self=true"],
)  # fmt: skip
def test_what_joins_images_is_refused_where_none_are_joined(
    settings: Callable[..., Config], words: list[str], because: str, word: str
) -> None:
    """The batches are those without it, bit for bit."""
    written = [*words, word]
    with pytest.raises(ConfigError, match=f"{word} has no effect with {because}; leave it out"):
        validate(settings(*written), given(written))
    validate(settings(*words), given(words))  # what the files of settings say is no mistake
    assert _same(batch_of(settings, words), batch_of(settings, written))
    validate(settings(word), given([word]))  # of pairs it is the rule


def batch_of(settings: Callable[..., Config], words: list[str]) -> list[Batch]:
    """Return the batches of two steps."""
    config = settings(*words)
    clip = models.create(config.model.name)
    builder = make_builder(config, make_sources(config), clip)
    return [builder.build(step) for step in range(2)]


def _same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(value, right.tensors()[name])
        and (left.mean, left.std) == (right.mean, right.std)
        for left, right in zip(one, other, strict=True)
        for name, value in left.tensors().items()
    )


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("captions.repair_negatives=false", "leave it out"),
        ("captions.composite_negative=swap", "captions.single_negative=swap"),
        ("compose.layout=grid4", "leave it out"),
    ],
)
def test_captions_of_composites_are_refused_for_single_images(
    settings: Callable[..., Config], word: str, remedy: str
) -> None:
    written = [*SINGLE, word]
    with pytest.raises(ConfigError, match=f"{word} has no effect with {SINGLE[0]}; .*{remedy}"):
        validate(settings(*written), given(written))


def documented(schema: type) -> set[str]:
    """Return the settings that a schema's docstring describes."""
    lines = (schema.__doc__ or "").splitlines()
    return {line.split(":")[0].strip() for line in lines if line.startswith(" " * 8)}


@pytest.mark.parametrize(
    "schema",
    [Config, *(f.default_factory for f in fields(Config) if is_dataclass(f.default_factory))],
)
def test_every_setting_is_documented(schema: type) -> None:
    groups = {f.name for f in fields(schema) if is_dataclass(f.default_factory)}
    assert {f.name for f in fields(schema)} - groups <= documented(schema)


def test_shipped_default_run_validates(settings: Callable[..., Config]) -> None:
    validate(settings())


@pytest.mark.parametrize(
    "word", ["weights={layout:2}", "weights={layout: 2.0}", "weights.layout=2"]
)
def test_weights_by_kind_are_given_as_a_mapping_or_one_by_one(
    settings: Callable[..., Config], word: str
) -> None:
    assert settings(f"loss.negative_{word}").loss.negative_weights == {"layout": 2.0}


def test_adapters_that_would_train_nothing() -> None:
    config = Config()
    config.data.source, config.data.samples, config.data.split = "shapes", 64, "train"
    config.model.train, config.model.lora_alpha = "lora:text", 0.0
    with pytest.raises(ConfigError, match=r"model\.lora_alpha=0\.0 would train nothing"):
        validate(config)
