"""Settings of `clic-train`: one dataclass for each group of `configs/`, with the same names.

These are the schemas that Hydra checks types and names against. `clic.config.checks` covers what
types cannot express (ranges, choices, settings that would have no effect together).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModelConfig:
    """Which model is tuned, and which part of it.

    Attributes:
        name: open_clip architecture (`ViT-B-32`), `shapes-base` (ships with the package),
            `local-dir:PATH`, `hf-hub:ORG/NAME`, or the path of a run, checkpoint or folder.
        pretrained: open_clip tag or weights file; `included` for names that carry their weights;
            null starts from random weights.
        quick_gelu: Whether a weights file was trained with QuickGELU (OpenAI's and those fine-tuned
            from them) or with GELU; required if the architecture exists with both. Null takes
            what the source states.
        context_length: Tokens of a longer context, such as 248, made by Long-CLIP's stretching of
            the position embedding; null keeps the model's own.
        image_size: Side in pixels of images of another size than the model's own, a multiple of its
            patch size; the positions of a vision transformer of open_clip are interpolated as
            open_clip does. Null keeps the model's own.
        train: `text` (everything outside the vision tower), `vision` or `both`; `text.last:4` and
            `vision.last:4` train the last layers of a tower with the norm, pooling and projection
            after them; `lora:text`, `lora:vision` and `lora:both` train low-rank updates of its
            layers (extra `lora`), which are merged wherever the model is saved. Parts are joined by
            `+`, as in `text+vision.last:2`. `re:PATTERN` stands last and trains the parameters
            whose names, such as `text.transformer.resblocks.0.ln_1.weight`, hold the pattern.
        lora_rank: Rank of these updates.
        lora_alpha: Their scale, times the rank.
        train_logit_scale: Whether logit_scale (and logit_bias) are trained with the text.
        grad_checkpointing: Recompute activations in the backward pass to save memory.
    """

    name: str = "shapes-base"
    pretrained: str | None = "included"
    quick_gelu: bool | None = None
    context_length: int | None = None
    image_size: int | None = None
    train: str = "text"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    train_logit_scale: bool = True
    grad_checkpointing: bool = False

    def starts_from_its_own(self) -> bool:
        """Return whether a run starts from weights that exist only in the run itself."""
        changed = self.context_length is not None or self.image_size is not None
        return self.pretrained is None or changed


@dataclass
class DataConfig:
    """Where samples come from.

    Attributes:
        source: `shards` (WebDataset tars, indexed), `stream` (the same, read from beginning to end,
            for data too large or too far to index) or `shapes` (the embedded world, rendered on the
            fly).
        shards: A folder, a brace pattern (`/data/{00000..00099}.tar`) or a list of them.
        single_shards: Shards for the single-image steps, where they differ from the others.
        mix: Several sources in place of `shards`: a list of `{shards: ..., weight: ...}`, whose
            weights are their proportions of an epoch.
        samples: Samples of an epoch: the number of scenes of the world; with `mix` or
            `sampling.replacement` how many are drawn, null for as many as there are. Required for a
            stream, whose samples have not been counted.
        buffer: Samples of a stream's shuffle buffer, in each loader process.
        timeout: Seconds that the server of a stream's shard has to send the next 256 KiB; after
            that the shard is abandoned and counted.
        caption_key: Key of the samples' JSON that a stream takes captions from, such as
            `top_caption`, or a list of them; null takes those that indexed shards take.
        split: `train`, `validation` or `test` of the world; `shapes` only.
        cache_dir: Folder for remote shards and large indexes; null takes the environment's
            CLIC_CACHE, else ~/.cache/clic.
        cache_gb: GB of remote shards that are kept there.
        allow_reorder: Let a run be continued with another number of ranks or of samples, or
            another batch size, although every later batch differs from what it would have been.
        workers: Loader processes on each rank; 0 loads in the training process, null takes up
            to 4, as the cores allow.
        decode: `fast` (libjpeg-turbo and an integer resize, at most 1/255 off the exact pixels of
            a photograph), `exact` (PIL, bit for bit the published pixels) or `scaled` (JPEGs at
            reduced size where that is enough; visibly close, the fastest).
        max_broken: Fraction of samples, 0 to 1, that may be broken. Each is replaced by another;
            above this fraction, judged after the first 1,000 samples, the run stops.
    """

    source: str = "shapes"
    shards: Any = None
    single_shards: Any = None
    mix: Any = None
    samples: int | None = None
    buffer: int = 1000
    timeout: float = 60.0
    caption_key: Any = None
    split: str | None = None
    cache_dir: str | None = None
    cache_gb: float = 100.0
    allow_reorder: bool = False
    workers: int | None = 0
    decode: str = "fast"
    max_broken: float = 0.01


@dataclass
class SamplingConfig:
    """Which images make a batch.

    Attributes:
        kinds: `alternate` (composite, single, composite, ...), `composite` or `single`.
        square: Orientation of square images: `landscape` (the published rule) or `either`
            (a fair coin for each image, from its number).
        partner_self: Let an image be its own partner, as the published code does.
        replacement: Draw with replacement, so that an epoch misses some images and has others
            twice.
        hard_images: File that `clic-data neighbours` wrote; half of each batch are then images
            near to the other half (NegCLIP). Needs `kinds=single` and an even train.batch_size.
    """

    kinds: str = "alternate"
    square: str = "landscape"
    partner_self: bool = False
    replacement: bool = False
    hard_images: str | None = None


@dataclass
class ComposeConfig:
    """How images are put on one canvas.

    Attributes:
        layout: `pair`, two images side by side or stacked; `grid4`, four in two rows, whose
            captions leave out the longest sentences where the context has no room for all; or
            `alone`, one image in place of a composite: p1 and p2 are its first sentence, and each
            further positive is another of its sentences (CLIC's Single-Image Baseline).
        fit: `squash` (the published rule, aspect not kept) or `crop` (the middle half of each; of
            `grid4`, whose cells are square, the whole).
        statistics: Pixel statistics of composites: `model`, or `imagenet` as the published code.
    """

    layout: str = "pair"
    fit: str = "squash"
    statistics: str = "model"


OF_PARAPHRASE = "_of_paraphrase"
"""Suffix of the name of a false caption that is made from the paraphrase."""


@dataclass
class CaptionsConfig:
    """True and false captions of a batch.

    Attributes:
        lowercase: Lower-case every caption first.
        tagger: `hanta` or `spacy` tags inline; `stored` reads the tags stored with each sample.
        composite_positives: P of a composite: p1, p2 and further joined sentences.
        composite_negative: `cross_swap` (CLIC), `swap` (within the sentence of an image alone) or
            `none`.
        layout_share: Fraction of composites, 0 to 1, whose p1 and p2 state where the images lie,
            "t1 left of t2", instead of joining their sentences.
        layout_negative: Give those a false caption in which a relation is wrong, in addition to
            that of `composite_negative`.
        layout_period: Fraction of those, 0 to 1, whose captions end with a period. A model that
            only ever saw a period may not understand the same caption without it.
        layout_held_out: Phrases of relations that are never used, e.g. `[on the left of]`, to test
            with.
        repair_negatives: In a cross swap, let "a" and "an" follow the new words and draw anew where
            the result is true by any sentence of the images; the published code does neither
            (`false` reproduces that).
        single_negative: False caption of a single image: `swap`, `replace`, `mixture` (one of
            them, drawn for each image), `stored` (one of those stored with it) or `none`.
        single_caption: Which caption of a single image is trained on: its `first`, or a `random`
            one, drawn for each step.
        paraphrase: Give a single image's caption a paraphrase as a second true caption, and each of
            the two a false one of `single_negative`: `rules` rewords it; `captions` takes, for
            every second image that has one, its other caption nearest in words; `none`.
        mixture: The weight of each generator of `mixture`, e.g. `{swap: 1, replace: 3}`. If the
            one that is drawn yields nothing, another is drawn.
        fluency: File of counts that `clic-data count` wrote: of several swaps of a single image's
            caption, the one that reads best by these counts is used, and none that reads badly;
            `mixture` then draws another generator. Null uses the first swap.
        fluency_candidates: How many swaps are drawn to choose from.
        fluency_least: Least score of a swap, 0 or below (docs/negatives.md). Closer to 0, fewer
            swaps are odd, and fewer captions have one.
    """

    lowercase: bool = True
    tagger: str = "hanta"
    composite_positives: int = 4
    composite_negative: str = "cross_swap"
    layout_share: float = 0.0
    layout_negative: bool = True
    layout_period: float = 0.5
    layout_held_out: list[str] = field(default_factory=list)
    repair_negatives: bool = True
    single_negative: str = "none"
    single_caption: str = "first"
    paraphrase: str = "none"
    mixture: dict[str, float] = field(default_factory=dict)
    fluency: str | None = None
    fluency_candidates: int = 12
    fluency_least: float = -5.0

    def negative_kinds(self, kind: str) -> tuple[str, ...]:
        """Return the names of the K false captions of a row, composite or single."""
        if kind == "single":
            names = [self.single_negative]
            if self.paraphrase != "none" and self.single_negative != "none":
                names.append(self.single_negative + OF_PARAPHRASE)
        else:
            told = self.layout_share > 0 and self.layout_negative
            names = [self.composite_negative, "layout" if told else "none"]
        return tuple(name for name in names if name != "none")

    def positives(self, kind: str) -> int:
        """Return the number P of true captions of a row, composite or single."""
        if kind == "composite":
            return self.composite_positives
        return 1 if self.paraphrase == "none" else 2


@dataclass
class LossConfig:
    """Objectives of the two kinds of batch and CLIC's weights (Eq. 7).

    Attributes:
        composite: Objective of composites, one of `clic.losses.OBJECTIVES`.
        single: Objective of single images, another of them or the same.
        contrastive_weight: Weight of Eq. 4.
        hard_negative_weight: Weight of Eq. 5.
        unimodal_weight: Weight of Eq. 6.
        hard_negative_positives: Number of positive slots, from the first, that enter Eq. 5;
            null takes all of them, as the paper does.
        negative_weights: Relative weight in Eq. 5 of each kind of hard negatives, e.g.
            `{cross_swap: 1, layout: 2}`; 1 where not named, and equal weights are the paper's mean.
        paraphrase_weight: Weight of the term between a caption and its paraphrase.
        paraphrase_scale: Factor of the cosines in that term.
        logits_at_once: Most logits of a contrastive term in a rank's memory at once. A term with
            more, as in global batches of thousands, is computed in chunks of rows, and again in the
            backward pass; null never does that.
    """

    composite: str = "clic"
    single: str = "clip"
    contrastive_weight: float = 0.5
    hard_negative_weight: float = 0.5
    unimodal_weight: float = 1.0
    hard_negative_positives: int | None = None
    negative_weights: dict[str, float] = field(default_factory=dict)
    paraphrase_weight: float = 1.0
    paraphrase_scale: float = 20.0
    logits_at_once: int | None = 4194304


@dataclass
class OptimConfig:
    """AdamW and its learning rate.

    Attributes:
        lr: Peak learning rate.
        lr_vision: Peak learning rate of the vision tower, which then follows the same schedule at
            the ratio `lr_vision / lr`; null takes `lr`.
        layer_decay: Factor, above 0 to 1, by which each layer's rate is below that of the layer
            after it: in a tower of N layers, layer i has `layer_decay ** (N + 1 - i)` times the
            tower's rate, the parts after the layers have the full rate, and the embeddings, as
            layer 0, the lowest. 1 gives all layers the same rate.
        schedule: `clic`, `warmup_cosine` or `constant`.
        warmup_steps: Steps of warm-up; exclusive with `warmup_fraction`.
        warmup_fraction: Fraction of all steps that warm up, 0 to 1.
        lr_start: Rate of the first step (`clic` only).
        lr_end: Rate that the cosine tends to (`clic` only).
        betas: AdamW's betas.
        eps: AdamW's epsilon.
        weight_decay: On matrices only; none on biases, norms and scalars.
        grad_clip: Largest norm of the gradient; null does not clip.
    """

    lr: float = 1e-6
    lr_vision: float | None = None
    layer_decay: float = 1.0
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
        micro_batch: Images that are in memory at once; the step computes features twice and has
            the gradient of the whole batch (GradCache). Null takes the whole batch at once, which
            is faster; not with a BatchNorm that trains.
        pack_texts: Compute the common beginnings of captions once and leave out all padding, if the
            text tower allows it with no change beyond rounding; false only cuts the padding after a
            batch's longest caption.
        epochs: Passes over the data.
        max_steps: Shortens the run, and the schedule with it; null for all steps of `epochs`.
        save_every: Steps between checkpoints; 0 saves none but the final model.
        keep_checkpoints: Newest checkpoints to keep; 0 keeps all.
        log_every: Steps between lines of `metrics.jsonl` and the console.
        eval_every: Steps between evaluations of `eval_bench`; 0 evaluates none.
        eval_bench: Benchmarks for `eval_every`, each on its validation split (`NAME@val`), and your
            own files (`my.jsonl`).
        eval_on_test: Also score benchmarks without a validation split, on their test data. Anything
            chosen by those numbers is chosen on the test data.
        best_metric: Score of `eval_bench`, by its name in `metrics.jsonl`, by which the best model
            is kept in `RUN/best`; the larger the better. Null keeps none.
        patience: Evaluations in a row without a better `best_metric` after which the run ends;
            null does not end it.
        run_name: Folder under `runs_dir`; null makes `<experiment>-<time>`.
        runs_dir: Where runs are kept.
        resume: `auto`, `never`, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (on CUDA bf16, or fp16 where the GPU only emulates that; fp32 on the CPU),
            `fp32`, `bf16` or `fp16`.
        tf32: Let a GPU multiply with TF32 (10 bits of mantissa) where the towers run in fp32, as
            open_clip does; the values of losses and evaluation keep all bits. No effect on the CPU.
        compile: Compile the towers' layers with `torch.compile`, for the same numbers to rounding.
            The first step of each kind of batch then waits a minute or more for the compiler.
        clamp_logit_scale: Keep the exponentiated logit_scale in [1, 100] if it is trained (except
            in sigmoid models, whose scale is above 100); the published code clamps a copy, which
            has no effect (`false` reproduces that).
        distill_weight: Weight of keeping the features of the true captions (and of the images,
            where the vision tower trains) near those of the model that the run starts from: the
            mean of 1 - cosine is added to the loss. 0 turns it off.
        ema: Decay, from 0 to below 1, of a moving average of the weights, which is then evaluated
            and kept as the result; it remembers about 1 / (1 - ema) steps. 0 turns it off.
        examples_every: Steps between pictures of a batch's first rows with their captions, in
            `RUN/examples` and the trackers; 0 draws only the first batch of each kind.
        profile: Measure ten of the first steps, and print where their time went (also into
            `RUN/profile`, with a trace for chrome://tracing).
        report: Write `RUN/report.html` at the end: curves, examples, results and settings.
        max_skipped: Steps in a row that may be skipped because their loss or gradients are not
            finite; with more of them the run ends, and `RUN/skipped_step.json` has the last one's
            samples.
    """

    batch_size: int = 48
    micro_batch: int | None = None
    pack_texts: bool = True
    epochs: int = 1
    max_steps: int | None = None
    save_every: int = 100
    keep_checkpoints: int = 2
    log_every: int = 10
    eval_every: int = 0
    eval_bench: list[str] = field(default_factory=list)
    eval_on_test: bool = False
    best_metric: str | None = None
    patience: int | None = None
    run_name: str | None = None
    runs_dir: str = "runs"
    resume: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    tf32: bool = True
    compile: bool = False
    clamp_logit_scale: bool = True
    distill_weight: float = 0.0
    ema: float = 0.0
    examples_every: int = 0
    profile: bool = False
    report: bool = True
    max_skipped: int = 20


@dataclass
class TensorboardConfig:
    """Logging to TensorBoard's event files, off by default.

    Attributes:
        enabled: Write them to `RUN/tensorboard`; the package is imported only then.
    """

    enabled: bool = False


@dataclass
class TrackioConfig:
    """Logging to trackio, on this machine, off by default.

    Attributes:
        enabled: Log there too; the package is imported only then.
        project: Project's name.
    """

    enabled: bool = False
    project: str = "clic"


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
    tensorboard: TensorboardConfig = field(default_factory=TensorboardConfig)
    trackio: TrackioConfig = field(default_factory=TrackioConfig)
