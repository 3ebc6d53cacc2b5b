"""From images and captions to batches: the published way against ours, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/data_speed.py

Both ways get the same synthetic JPEGs of 640 x 480 (about 100 kB) with five sentences each, and the
same tagger. The published way opens each image with PIL as RGBA, looks for a partner of its
orientation among random files, builds a composite and a single image with all their captions for
every item, and keeps one of the two. Ours reads the same JPEGs from shards; in `exact` mode its
batches are asserted to equal the published ones, bit for bit. Two further rows read shards as
`clic-data pack` makes them, with a shorter side of 288 and 224 (as a model of 224 pixels needs),
quality 90 and stored tags, of which a run unpacks those of the first caption. The result is the
ratio of medians of CPU time for a step of each kind; all times include normalisation to float32.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from open_clip import get_tokenizer
from PIL import Image
from published_loader import OPENAI_MEAN, OPENAI_STD, SIZE, Published
from torch import Tensor

from clic import data, images
from clic.config.train_settings import CaptionsConfig, ComposeConfig
from clic.data import packing
from clic.data.batches.captioner import Captioner, CaptionTokenizer
from clic.data.batches.loader import BatchBuilder
from clic.models import Preprocess
from clic.seeding import generator
from clic.types import Batch, Sample

SEED = 0
WORDS = {
    kind: words.split()
    for kind, words in {
        "the": "a the one another this that some",
        "adjective": "red small wooden old bright striped tall quiet broken shiny rusty narrow "
        "round blue green dusty modern open empty crowded heavy thin colourful dark plain wet",
        "noun": "dog woman bicycle table street bridge child lamp window horse garden boat market "
        "guitar kitchen mountain train jacket basket mirror tower river chair bench cat",
        "verb": "holds watches carries crosses faces paints touches repairs follows covers lifts "
        "pushes admires opens photographs cleans",
        "preposition": "on under beside behind near above inside across past against with",
    }.items()
}
PATTERN = "the adjective noun verb the noun preposition the adjective noun"
FURTHER = "preposition the noun"


# --- data ----------------------------------------------------------------------------------------


def sentence(rng: np.random.Generator) -> str:
    """Return a sentence of 10 to 19 words."""
    kinds = (PATTERN + f" {FURTHER}" * int(rng.integers(0, 4))).split()
    return " ".join(str(rng.choice(WORDS[kind])) for kind in kinds).capitalize() + "."


def photograph(rng: np.random.Generator, portrait: bool) -> bytes:
    """Return a JPEG of 640 x 480 (480 x 640 if portrait): waves, edges and noise."""
    height, width = (640, 480) if portrait else (480, 640)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(30, 90)) + np.cos(y / rng.uniform(20, 80)) for _ in range(3)]
    blocks = rng.normal(size=(height // 8, width // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    pixels = 128 + 45 * np.stack(waves, axis=-1) + 25 * blocks + rng.normal(0, 6, blocks.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_samples(count: int) -> list[Sample]:
    """Return samples, every third of them portrait."""
    samples = []
    for i in range(count):
        rng = np.random.default_rng(i)
        captions = tuple(sentence(rng) for _ in range(5))
        samples.append(Sample(f"{i:06d}", photograph(rng, i % 3 == 0), captions))
    return samples


def pack(source: Path, out: Path, **options: Any) -> None:
    """Pack the published code's CSV."""
    reader = packing.open_source(str(source), packing.Request())
    packing.pack_source(reader, out, packing.Options(**options))


# --- the published way ---------------------------------------------------------------------------


def published_step(way: Published, builder: BatchBuilder, step: int) -> tuple[Tensor, Tensor]:
    """Return the batch of a step; its primary images are those of our plan."""
    plan, items = builder.sampler.plan(step), []
    for row in plan.rows:
        rng = np.random.default_rng([step, row.slot])
        drawn = iter(lambda rng=rng: int(rng.integers(len(way.files))), None)
        items.append(way.item(row.indices[0], drawn, rng.permutation(2).tolist(), rng))
    return way.batch(items, plan.kind)


def assert_equal(way: Published, builder: BatchBuilder, step: int) -> None:
    """Check our batch of a step against the published way with our random draws."""
    plan, items = builder.sampler.plan(step), []
    for row in plan.rows:
        partner = row.indices[-1]
        order = generator(SEED, "order", step, row.slot).permutation(2).tolist()
        rng = generator(SEED, "captions", step, row.slot)
        items.append(way.item(row.indices[0], iter([partner]), order, rng))
    pixels, tokens = way.batch(items, plan.kind)
    batch = builder.build(step)
    assert torch.equal(images.normalise(batch.images, batch.mean, batch.std), pixels), step
    ours = batch.positives
    if batch.negatives is not None:
        ours = torch.cat([ours, batch.negatives], dim=1)
    assert torch.equal(ours, tokens), step


# --- ours ----------------------------------------------------------------------------------------


def make_builder(folder: Path, batch_size: int, decode: str, tagger: str) -> BatchBuilder:
    """Return a builder of CLIC's batches from shards."""
    # As in CLIC's recipe, only the first caption's tags are used.
    source = data.ShardSource(str(folder), tags=1 if tagger == "stored" else 0)
    wide = source.landscape("landscape", SEED)
    return BatchBuilder(
        {"composite": source, "single": source},
        data.Sampler({"composite": wide, "single": wide}, "alternate", batch_size, SEED),
        Captioner(CaptionsConfig(tagger=tagger)),
        CaptionTokenizer(get_tokenizer("ViT-B-32")),
        Preprocess(SIZE, OPENAI_MEAN, OPENAI_STD),
        ComposeConfig(statistics="imagenet"),
        SEED,
        decode,
    )


def our_step(builder: BatchBuilder, step: int) -> Batch:
    """Return a batch; its pixels are normalised here, as on a CPU."""
    batch = builder.build(step)
    images.normalise(batch.images, batch.mean, batch.std)
    return batch


class Stages:
    """CPU seconds of the parts of our way, measured in a separate pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a clock around it."""

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0) + time.process_time() - start

        return call

    def measure(self, builder: BatchBuilder, steps: Sequence[int]) -> dict[str, float]:
        """Return the share of each part in the total time."""
        source = builder.sources["single"]
        parts = {
            "plan": (builder.sampler, "plan"),
            "read": (source, "read"),
            "decode": (images, "decode"),
            "resize single": (images, "single"),
            "resize and join": (images, "compose"),
            "captions": (builder.captioner, "make"),
            "tags": (builder.captioner, "_tokens"),
            "token ids": (builder, "tokens"),
            "normalise": (images, "normalise"),
        }
        with ExitStack() as stack:
            for stage, (owner, name) in parts.items():
                timed = self.timed(stage, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, timed))
            start = time.process_time()
            for step in steps:
                our_step(builder, step)
            whole = time.process_time() - start
        self.seconds["captions"] -= self.seconds.get("tags", 0)
        self.seconds["rest"] = whole - sum(self.seconds.values())
        return {stage: spent / whole for stage, spent in self.seconds.items()}


# --- the run -------------------------------------------------------------------------------------


def main() -> None:
    """Check that the outputs are equal, time all ways and print medians, ratios and shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), options)


def make_data(folder: Path, count: int) -> Published:
    """Write JPEGs, the published code's CSV, and both kinds of shards; return the published way."""
    samples, files = make_samples(count), []
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as table:
        for sample in samples:
            files.append(folder / f"{sample.key}.jpg")
            files[-1].write_bytes(bytes(sample.image))
            csv.writer(table).writerow([files[-1].name, *sample.captions])
    pack(folder / "captions.csv", folder / "full", resize_short=None, quality=None)
    for short in (288, 224):
        pack(folder / "captions.csv", folder / str(short), resize_short=short, tags="hanta")
    size = sum(file.stat().st_size for file in files) / count / 1000
    print(f"{count} JPEGs of 640 x 480, {size:.0f} kB on average")
    return Published(files, [sample.captions for sample in samples])


def time_steps(steps: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the median CPU seconds of a step of each kind, all ways in turn at each step."""
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in steps}
    for step in range(2 * (rounds + 1)):
        for name, build in steps.items():
            start = time.process_time()
            build(step)
            if step >= 2:  # the first of each kind warms up the caches
                seconds[name][step % 2].append(time.process_time() - start)
    return {name: [median(values) for values in kinds] for name, kinds in seconds.items()}


def run(folder: Path, options: argparse.Namespace) -> None:
    """Make the data in `folder`, measure and print."""
    way, size = make_data(folder, options.images), options.batch_size
    full = folder / "full"
    builders = {
        "exact, same JPEGs": make_builder(full, size, "exact", "hanta"),
        "fast, same JPEGs": make_builder(full, size, "fast", "hanta"),
        "scaled, same JPEGs": make_builder(full, size, "scaled", "hanta"),
        **{
            f"fast, packed at {short}": make_builder(folder / str(short), size, "fast", "stored")
            for short in (288, 224)
        },
    }
    exact = builders["exact, same JPEGs"]
    for step in (0, 1):
        assert_equal(way, exact, step)
    print("exact mode gives the published batches, bit for bit")
    gc.freeze()  # as a loader worker does; it helps all ways
    seconds = time_steps(
        {
            "published": lambda step: published_step(way, exact, step),
            **{name: lambda step, b=b: our_step(b, step) for name, b in builders.items()},
        },
        options.rounds,
    )
    print(
        f"ms of CPU a sample, medians of {options.rounds} batches of {size} of each kind; "
        f"torch {torch.__version__}, {torch.get_num_threads()} thread"
    )
    print(f"{'':<27}{'composite':>10}{'single':>8}{'mean':>7}{'samples/s':>11}{'ratio':>8}")
    base = sum(seconds["published"])
    for name, (composite, single) in seconds.items():
        ms = [1000 * value / size for value in (composite, single, (composite + single) / 2)]
        print(
            f"  {name:<25}{ms[0]:>10.2f}{ms[1]:>8.2f}{ms[2]:>7.2f}{1000 / ms[2]:>11.0f}"
            f"{base / (composite + single):>7.2f}x"
        )
    later = range(2 * options.rounds + 2, 4 * options.rounds + 2)
    for name in ("fast, same JPEGs", "fast, packed at 224"):
        shares = sorted(Stages().measure(builders[name], later).items(), key=lambda pair: -pair[1])
        print(f"  {name}: " + ", ".join(f"{stage} {share:.0%}" for stage, share in shares))


if __name__ == "__main__":
    main()
