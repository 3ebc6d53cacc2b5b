"""Settings that another one leaves without effect: the run would not be what the user thinks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from operator import attrgetter
from typing import NamedTuple

from clic.config.method_checks import swaps_within_captions
from clic.config.train_settings import Config
from clic.errors import no_effect
from clic.parts import parse

WRITTEN = ("compose.fit", "sampling.square")
"""Settings that configs/train.yaml always sets, so their value does not show who set them."""
LEAVE_OUT = "leave it out"


class Needless(NamedTuple):
    """A setting, whether it has no effect in this run, the reason, and the remedy."""

    setting: str
    needless: bool
    because: str
    remedy: str = LEAVE_OUT


def check_needless(config: Config, given: Collection[str]) -> None:
    """Refuse settings that were changed from their default although another removes their effect.

    Settings in `WRITTEN` are refused if they are in `given`.

    Raises:
        ConfigError: There is one.
    """
    usual = Config()
    for rule in (*_of_data(config), *_of_batches(config), *_of_captions(config), *_other(config)):
        read = attrgetter(rule.setting)
        is_written = rule.setting in WRITTEN
        changed = rule.setting in given if is_written else read(config) != read(usual)
        if rule.needless and changed:
            raise no_effect(rule.setting, read(config), rule.because, rule.remedy)


def _of_data(config: Config) -> Iterator[Needless]:
    """Yield the rules on where samples come from."""
    data, kinds = config.data, config.sampling.kinds
    shapes, stream = data.source == "shapes", data.source == "stream"
    for name in ("data.shards", "data.single_shards", "data.mix", "data.cache_dir"):
        yield Needless(name, shapes, "data=shapes", "add data=shards")
    scaled = shapes and data.decode == "scaled"
    yield Needless("data.decode", scaled, "data=shapes", "use fast or exact")
    yield Needless("data.max_broken", shapes, "data=shapes")
    yield Needless("data.split", not shapes, f"data={data.source}")
    for name in ("data.single_shards", "data.mix", "data.cache_dir", "data.cache_gb",
                 "sampling.partner_self"):  # fmt: skip
        yield Needless(name, stream, "data=stream", "leave it out, or use data=shards")
    for name in ("data.buffer", "data.timeout", "data.caption_key"):
        remedy = "leave it out, or use data=stream"
        yield Needless(name, not stream, f"data={data.source}", remedy)
    whole = data.source == "shards" and data.mix is None and not config.sampling.replacement
    because = "data.shards alone, of which an epoch has all"
    remedy = "leave it out, or add sampling.replacement=true"
    yield Needless("data.samples", whole, because, remedy)
    because = f"sampling.kinds={kinds}"
    yield Needless("data.single_shards", kinds != "alternate", because, "use data.shards alone")


def _of_batches(config: Config) -> Iterator[Needless]:
    """Yield the rules on which images share a canvas."""
    kinds, alone = config.sampling.kinds, config.compose.layout == "alone"
    single = kinds == "single"
    remedy = "use sampling.kinds=single"
    yield Needless("sampling.hard_images", not single, f"sampling.kinds={kinds}", remedy)
    yield Needless("compose.layout", single, "sampling.kinds=single")
    # The orientation of an image decides which others it is joined with, and nothing else.
    because = "sampling.kinds=single" if single else "compose.layout=alone, which joins no images"
    for name in ("compose.fit", "compose.statistics", "sampling.square", "sampling.partner_self"):
        yield Needless(name, single or alone, because)
    because = "compose.layout=alone, which joins no images"
    yield Needless("captions.layout_share", alone, because)


def _of_captions(config: Config) -> Iterator[Needless]:
    """Yield the rules on true and false captions.

    The files of configs/captions set the captions of both kinds of batch, so only a value that none
    of them sets is certain to be a mistake.
    """
    captions, kinds = config.captions, config.sampling.kinds
    single, composite = kinds == "single", kinds == "composite"
    swapped = single and captions.composite_negative == "swap"
    remedy = "leave it out, or set captions.single_negative=swap"
    yield Needless("captions.composite_negative", swapped, "sampling.kinds=single", remedy)
    yield Needless("captions.repair_negatives", single, "sampling.kinds=single")
    yield Needless("captions.layout_share", single, f"sampling.kinds={kinds}", "set it to 0")
    no_layout, because = captions.layout_share == 0, "captions.layout_share=0"
    yield Needless("captions.layout_period", no_layout, because)
    yield Needless("captions.layout_negative", no_layout, because)
    yield Needless("captions.layout_held_out", no_layout, because, "set it to []")
    without = captions.composite_negative == "none"
    yield Needless("captions.repair_negatives", without, "captions.composite_negative=none")
    yield Needless("captions.single_caption", composite, "sampling.kinds=composite")
    yield Needless("captions.paraphrase", composite, "sampling.kinds=composite")
    other = captions.single_negative != "mixture"
    because = f"captions.single_negative={captions.single_negative}"
    remedy = "set captions.single_negative=mixture, or take another group than captions=mixed"
    yield Needless("captions.mixture", other, because, remedy)
    unswapped = captions.fluency is not None and not swaps_within_captions(config)
    because = "settings that swap no parts of a single image's caption"
    yield Needless("captions.fluency", unswapped, because)
    for name in ("captions.fluency_candidates", "captions.fluency_least"):
        remedy = "name a file of counts, or leave it out"
        yield Needless(name, captions.fluency is None, "captions.fluency=null", remedy)


def _other(config: Config) -> Iterator[Needless]:
    """Yield the rules on the model, the losses and the evaluation during training."""
    loss, train = config.loss, config.train
    without = not parse(config.model.train).lora
    remedy = "leave it out, or train lora:text"
    for name in ("model.lora_rank", "model.lora_alpha"):
        yield Needless(name, without, f"model.train={config.model.train}", remedy)
    clic = loss.composite == "clic" and config.sampling.kinds != "single"
    unweighted = clic and loss.hard_negative_weight == 0
    because = "loss.hard_negative_weight=0"
    yield Needless("loss.hard_negative_positives", unweighted, because, "set it to null")
    because, remedy = "train.eval_bench=[]", "name benchmarks, or leave it out"
    yield Needless("train.best_metric", not train.eval_bench, because, remedy)
    yield Needless("train.eval_on_test", not train.eval_bench, because)
    because, remedy = "train.best_metric=null", "name the score to wait for, or leave it out"
    yield Needless("train.patience", train.best_metric is None, because, remedy)
    half = train.precision in ("bf16", "fp16")
    because = f"train.precision={train.precision}, in which the towers multiply"
    yield Needless("train.tf32", half, because)
