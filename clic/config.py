"""Settings of `clic-train`: one dataclass for each group of `configs/`, with the same names.

These are the schemas that Hydra checks types and names against. What types cannot say (ranges,
choices, settings that would have no effect together) is checked by `validate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clic.errors import ConfigError, did_you_mean


@dataclass
class ModelConfig:
    """Which model is tuned, and which part of it.

    Attributes:
        name: open_clip architecture (`ViT-B-32`), `shapes-base` (ships with the package),
            `local-dir:PATH`, `hf-hub:ORG/NAME`, or the path of a run, checkpoint or folder.
        pretrained: open_clip tag or weights file; `included` for names that carry their weights;
            null starts from random weights.
        train: `text` (everything outside the vision tower), `vision` or `both`.
        train_logit_scale: Whether logit_scale (and logit_bias) are trained with the text.
        grad_checkpointing: Recompute activations in the backward pass to save memory.
    """

    name: str = "shapes-base"
    pretrained: str | None = "included"
    train: str = "text"
    train_logit_scale: bool = True
    grad_checkpointing: bool = False


@dataclass
class DataConfig:
    """Where samples come from.

    Attributes:
        source: `shards` (WebDataset tars) or `shapes` (the embedded world, rendered on the fly).
        shards: A folder, a brace pattern (`/data/{00000..00099}.tar`) or a list of them.
        single_shards: Shards for the single-image steps, where they differ from the others.
        samples: Number of scenes of the world that make an epoch; `shapes` only.
        split: `train`, `validation` or `test` of the world; `shapes` only.
        workers: Loader processes on each rank; 0 loads in the training process, null takes up
            to 4, as the cores allow.
    """

    source: str = "shapes"
    shards: Any = None
    single_shards: Any = None
    samples: int | None = None
    split: str | None = None
    workers: int | None = 0


@dataclass
class SamplingConfig:
    """Which images make a batch.

    Attributes:
        kinds: `alternate` (composite, single, composite, ...), `composite` or `single`.
        square: Orientation of square images: `landscape` (the published rule) or `either`
            (a fair coin for each image, from its number).
        partner_self: Let an image be its own partner, as the published code does.
    """

    kinds: str = "alternate"
    square: str = "landscape"
    partner_self: bool = False


@dataclass
class ComposeConfig:
    """How images are put on one canvas.

    Attributes:
        layout: `pair`, two images side by side or stacked.
        fit: `squash` (the published rule, aspect not kept) or `crop` (the middle half of each).
        statistics: Pixel statistics of composites: `model`, or `imagenet` as the published code.
    """

    layout: str = "pair"
    fit: str = "squash"
    statistics: str = "model"


@dataclass
class CaptionsConfig:
    """True and false captions of a batch.

    Attributes:
        lowercase: Lower-case every caption first.
        tagger: `hanta` tags inline; `stored` takes the tags kept with each sample.
        composite_positives: P of a composite: p1, p2 and further joined sentences.
        composite_negative: `cross_swap` (CLIC) or `none`.
        single_negative: False caption of a single image: `swap`, `replace` or `none`.
    """

    lowercase: bool = True
    tagger: str = "hanta"
    composite_positives: int = 4
    composite_negative: str = "cross_swap"
    single_negative: str = "none"


@dataclass
class LossConfig:
    """Objectives of the two kinds of batch and CLIC's weights (Eq. 7).

    Attributes:
        composite: Objective of composites: `clic`, `clip` or `softmax_negatives`.
        single: Objective of single images: `clip` or `softmax_negatives`.
        contrastive_weight: Weight of Eq. 4.
        hard_negative_weight: Weight of Eq. 5.
        unimodal_weight: Weight of Eq. 6.
        hard_negative_positives: Number of positive slots, from the first, that enter Eq. 5;
            null takes all of them, as the paper does.
    """

    composite: str = "clic"
    single: str = "clip"
    contrastive_weight: float = 0.5
    hard_negative_weight: float = 0.5
    unimodal_weight: float = 1.0
    hard_negative_positives: int | None = None


@dataclass
class OptimConfig:
    """AdamW and the learning rate's course.

    Attributes:
        lr: Peak learning rate.
        schedule: `clic`, `warmup_cosine` or `constant`.
        warmup_steps: Steps of warm-up; exclusive with `warmup_fraction`.
        warmup_fraction: Share of all steps that warm up, 0 to 1.
        lr_start: Rate of the first step (`clic` only).
        lr_end: Rate that the cosine tends to (`clic` only).
        betas: AdamW's betas.
        eps: AdamW's epsilon.
        weight_decay: On matrices only; none on biases, norms and scalars.
        grad_clip: Largest norm of the gradient; null does not clip.
    """

    lr: float = 1e-6
    schedule: str = "clic"
    warmup_steps: int | None = None
    warmup_fraction: float | None = None
    lr_start: float | None = None
    lr_end: float | None = None
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-8
    weight_decay: float = 0.1
    grad_clip: float | None = None


@dataclass
class TrainConfig:
    """Length, device, saving and resuming.

    Attributes:
        batch_size: Images on each rank.
        epochs: Passes over the data.
        max_steps: Shortens the run, and the schedule with it; null for all steps of `epochs`.
        save_every: Steps between checkpoints; 0 saves none but the final model.
        keep_checkpoints: Newest checkpoints to keep; 0 keeps all.
        log_every: Steps between lines of `metrics.jsonl` and the console.
        eval_every: Steps between evaluations of `eval_bench`; 0 evaluates none.
        eval_bench: Benchmarks for `eval_every`.
        run_name: Folder under `runs_dir`; null makes `<experiment>-<time>`.
        runs_dir: Where runs are kept.
        resume: `auto`, `never`, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (bf16 on CUDA, fp32 on the CPU), `fp32`, `bf16` or `fp16`.
        clamp_logit_scale: Keep the exponentiated logit_scale in [1, 100] where it is trained (but
            in sigmoid models, whose own is above 100); the published code clamps a copy, which
            has no effect (`false` reproduces that).
    """

    batch_size: int = 48
    epochs: int = 1
    max_steps: int | None = None
    save_every: int = 100
    keep_checkpoints: int = 2
    log_every: int = 10
    eval_every: int = 0
    eval_bench: list[str] = field(default_factory=list)
    run_name: str | None = None
    runs_dir: str = "runs"
    resume: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    clamp_logit_scale: bool = True


@dataclass
class WandbConfig:
    """Logging to Weights & Biases, off by default.

    Attributes:
        enabled: Log there too; the package is imported only then.
        project: Project's name.
        entity: User or team.
        mode: `online` or `offline`.
    """

    enabled: bool = False
    project: str = "clic"
    entity: str | None = None
    mode: str = "online"


@dataclass
class Config:
    """Everything that decides what `clic-train` does.

    Attributes:
        name: Name of the experiment, the first part of the run's name.
        seed: Seed of every random choice.
    """

    name: str = "shapes"
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)


CHOICES: dict[str, tuple[str, ...]] = {
    "model.train": ("text", "vision", "both"),
    "data.source": ("shards", "shapes"),
    "data.split": ("train", "validation", "test"),
    "sampling.kinds": ("alternate", "composite", "single"),
    "sampling.square": ("landscape", "either"),
    "compose.layout": ("pair",),
    "compose.fit": ("squash", "crop"),
    "compose.statistics": ("model", "imagenet"),
    "captions.tagger": ("hanta", "stored"),
    "captions.composite_negative": ("cross_swap", "none"),
    "captions.single_negative": ("swap", "replace", "none"),
    "loss.composite": ("clic", "clip", "softmax_negatives"),
    "loss.single": ("clip", "softmax_negatives"),
    "optim.schedule": ("clic", "warmup_cosine", "constant"),
    "train.precision": ("auto", "fp32", "bf16", "fp16"),
    "wandb.mode": ("online", "offline"),
}

MINIMUM: dict[str, float] = {
    "seed": 0,
    "data.workers": 0,
    "data.samples": 1,
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
    _validate_method(config)
    _validate_optim(config.optim)
    _validate_train(config.train)


def _no_effect(setting: str, value: object, because: str, remedy: str) -> ConfigError:
    return ConfigError(f"{setting}={value} has no effect with {because}; {remedy}")


def _validate_data(config: Config) -> None:
    data = config.data
    if data.source == "shards":
        if not data.shards:
            raise ConfigError(
                "data.shards is not set; give the folder or pattern of your WebDataset shards, "
                "e.g. data.shards=/data/laion, or use data=shapes"
            )
        for setting in ("samples", "split"):
            if getattr(data, setting) is not None:
                raise _no_effect(
                    f"data.{setting}", getattr(data, setting), "data=shards", "leave it out"
                )
    else:
        if data.shards or data.single_shards:
            raise _no_effect("data.shards", data.shards, "data=shapes", "add data=shards")
        if data.samples is None or data.split is None:
            raise ConfigError("data=shapes needs data.samples and data.split")
    if data.single_shards and config.sampling.kinds != "alternate":
        raise _no_effect(
            "data.single_shards",
            data.single_shards,
            f"sampling.kinds={config.sampling.kinds}",
            "use data.shards alone",
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
