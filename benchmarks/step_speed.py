"""CLIC's training step on ViT-B/32: the published way against ours, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/step_speed.py --batch-size 8 16 32 --memory --products

Both ways get the same pixels, captions and random weights, and must give the same loss. The
captions are those of CLIC's recipe, five joined ones per row, made of sentences with SugarCrepe's
lengths (11 tokens on average; 62 tokens in the longest caption). The published way encodes all of
them at 77 tokens, takes similarities as broadcast products, and steps AdamW parameter by parameter.
Ours packs the captions, computes the frozen vision tower's last block for its class token alone,
uses matrix products, and steps AdamW in one kernel. The result is the ratio of medians of CPU time,
and with `--memory` that of the peak anonymous memory above an interpreter with torch, each way in
its own process; `--products` counts the multiplications in matrix products and attention, which no
implementation of the same way can avoid.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from clic import models
from clic.losses import ClicObjective
from clic.models import ClipModel
from clic.training import optim
from clic.types import Batch, Features

VOCABULARY = """
    a the one two red blue old small large wooden green man woman child dog cat horse bicycle
    street table window garden bridge boat train tree wall chair plate ball stands sits runs
    holds watches near beside under behind above with on in of and next to front while people
    white black young yellow kitchen room field beach snow mountain city building sign light
"""
LENGTHS = (8, 9, 9, 9, 10, 10, 10, 11, 11, 11, 12, 12, 13, 14)
"""Words in a sentence; one in the batch is much longer."""
LONG = 43
MODEL = "ViT-B-32-quickgelu"
"""OpenAI's architecture, which the recipe fine-tunes."""
POSITIVES = 4
WEIGHTS = (0.5, 0.5, 1.0)
MB = 1e6
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda above, query, key, value, *_, **__: sdpa_backward_flop_count(
            above, query, key, value
        )
    ),
}
"""How its multiplications are counted, which torch does only for the GPU versions."""


def captions(batch_size: int) -> list[list[str]]:
    """Return four true and one false joined caption for each row, as CLIC's recipe joins them."""
    rng = np.random.default_rng(0)

    def sentence(words: int) -> str:
        return " ".join(rng.choice(VOCABULARY.split(), words))

    rows = []
    for row in range(batch_size):
        left, right = ([sentence(int(rng.choice(LENGTHS))) for _ in range(3)] for _ in range(2))
        if row == 0:
            left[1] = sentence(LONG)
            right[1] = sentence(15)
        true = [f"{left[0]}. {right[0]}.", f"{right[0]}. {left[0]}."]
        for number in (1, 2):
            pair = [left[number], right[number]]
            rng.shuffle(pair)
            true.append(f"{pair[0]}. {pair[1]}.")
        swapped = [left[0].split(), right[0].split()]
        one, other = (int(rng.integers(len(words))) for words in swapped)
        swapped[0][one], swapped[1][other] = swapped[1][other], swapped[0][one]
        rng.shuffle(swapped)
        rows.append([*true, f"{' '.join(swapped[0])}. {' '.join(swapped[1])}."])
    return rows


def published_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Return Eq. 7 using broadcast products and one column mask for each slot."""
    count = images.shape[0]
    slots = POSITIVES + 1
    to_text = scale * (images[:, None] * texts[None]).sum(-1)
    to_image = scale * (texts[:, None] * images[None]).sum(-1)
    slot = torch.arange(count * slots) % slots
    labels = torch.arange(count)
    contrastive, hard = torch.zeros(()), torch.zeros(())
    negative = to_text[:, slot == POSITIVES][labels, labels]
    for number in range(POSITIVES):
        mask = slot == number
        rows = to_text[:, mask]
        contrastive = contrastive + (
            F.cross_entropy(rows, labels) + F.cross_entropy(to_image[mask], labels)
        ) / (2 * POSITIVES)
        pair = torch.stack([rows[labels, labels], negative], dim=1)
        hard = hard + F.cross_entropy(pair, torch.zeros(count, dtype=torch.long)) / POSITIVES
    unimodal = (texts[slot == 0] - texts[slot == 1]).pow(2).sum(-1).mean()
    return WEIGHTS[0] * contrastive + WEIGHTS[1] * hard + WEIGHTS[2] * unimodal


def published_step(model: nn.Module, pixels: Tensor, tokens: Tensor) -> Callable[[], float]:
    """Return a step as the published code does it."""
    models.set_trainable(model, "text", True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    model.train()

    def step() -> float:
        optimizer.zero_grad()
        images = F.normalize(model.encode_image(pixels), dim=-1)
        texts = F.normalize(model.encode_text(tokens.flatten(0, 1)), dim=-1)
        loss = published_loss(images, texts, model.logit_scale.exp())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(model: nn.Module, pixels: Tensor, tokens: Tensor) -> Callable[[], float]:
    """Return a step as clic's trainer does it; its text plan comes from the loader's workers."""
    trained = models.set_trainable(model, "text", True)
    extract = models.FeatureExtractor(model, trained)
    objective = ClicObjective(*WEIGHTS)
    optimizer = optim.adamw(model, lr=1e-6, weight_decay=0.01, betas=(0.9, 0.999))
    models.set_mode(model, trained)
    batch = extract.planner()(batch_of(pixels, tokens))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        features = extract(
            pixels, batch.positives, batch.negatives, batch.negative_mask, (), batch.text_plan
        )
        loss = objective(features).total
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def batch_of(pixels: Tensor, tokens: Tensor) -> Batch:
    """Return a batch with captions as the loader builds them; the pixels are already normalised."""
    return Batch(
        images=pixels,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        positives=tokens[:, :POSITIVES],
        negatives=tokens[:, POSITIVES:],
        negative_mask=torch.ones(len(tokens), 1, dtype=torch.bool),
        kind="composite",
        step=0,
    )


WAYS = {"published": published_step, "ours": our_step}


def inputs(clip: ClipModel, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return pixels and token ids [B, 5, L]."""
    size, rows = clip.preprocess.size, captions(batch_size)
    pixels = torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = clip.tokenizer([c for row in rows for c in row])
    return pixels, tokens.view(batch_size, len(rows[0]), -1)


# --- what is measured ----------------------------------------------------------------------------


def time_steps(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of each way's step, all ways in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return {name: median(values) for name, values in seconds.items()}


def stages(clip: ClipModel, pixels: Tensor, tokens: Tensor, rounds: int) -> dict[str, float]:
    """Return the share of each part of our step, and the plan's time as a fraction of the step."""
    model = clip.model
    trained = models.set_trainable(model, "text", True)
    extract, objective = models.FeatureExtractor(model, trained), ClicObjective(*WEIGHTS)
    optimizer = optim.adamw(model, lr=1e-6, weight_decay=0.01)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

    for _ in range(rounds):
        with timed("plan, in the loader"):
            batch = extract.planner()(batch_of(pixels, tokens))
        with timed("vision forward"):
            images = extract.of_images(pixels)
        with timed("text forward"):
            texts = extract.of_texts(batch.texts, batch.text_plan)
        with timed("loss"):
            loss = objective(
                Features(
                    image_features=images,
                    positive_features=texts[:, :POSITIVES],
                    negative_features=texts[:, POSITIVES:],
                    logit_scale=model.logit_scale.exp(),
                )
            ).total
        with timed("backward"):
            loss.backward()
        with timed("AdamW"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    whole = sum(spent for name, spent in seconds.items() if not name.startswith("plan"))
    return {name: spent / whole for name, spent in seconds.items()}


def products(step: Callable[[], float]) -> float:
    """Count the multiplications in a step's matrix products, convolutions and attention."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        step()
    return counter.get_total_flops() / 2


def memory(way: str, batch_size: int) -> float:
    """Return the peak anonymous memory of a way's steps, above an interpreter with torch."""
    command = [sys.executable, __file__, "--alone", way, "--batch-size", str(batch_size)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    numbers: dict[str, float] = json.loads(found)
    return numbers["peak"] - numbers["before"]


def alone(way: str, batch_size: int) -> None:
    """Run two steps of one way and print the memory that they took."""
    import open_clip  # noqa: F401, to leave out what both need anyway

    before = anonymous()
    clip = models.create(MODEL, None)
    step = WAYS[way](clip.model, *inputs(clip, batch_size))
    with sampled() as peaks:
        step()
        step()
    print(json.dumps({"before": before, "peak": peaks[0]}))


@contextmanager
def sampled() -> Iterator[list[float]]:
    """Sample the anonymous memory every millisecond in a separate thread."""
    from threading import Event, Thread

    peaks, ended = [0.0], Event()

    def watch() -> None:
        while not ended.wait(0.001):
            peaks[0] = max(peaks[0], anonymous())

    thread = Thread(target=watch, daemon=True)
    thread.start()
    yield peaks
    ended.set()
    thread.join()


def anonymous() -> float:
    """Return this process's anonymous memory in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


# --- the run -------------------------------------------------------------------------------------


def measure(clip: ClipModel, batch_size: int, options: argparse.Namespace) -> None:
    """Measure one batch size and print the results."""
    pixels, tokens = inputs(clip, batch_size)
    steps = {name: way(copy.deepcopy(clip.model), pixels, tokens) for name, way in WAYS.items()}
    losses = {name: step() for name, step in steps.items()}  # also the warm-up
    assert abs(losses["published"] - losses["ours"]) < 1e-4, losses
    lengths = (tokens.argmax(-1) + 1).flatten().tolist()
    seconds = time_steps(steps, options.rounds)
    print(
        f"{batch_size} rows of 5 captions, {mean(lengths):.1f} tokens on average, the longest "
        f"{max(lengths)} of {tokens.shape[-1]}; equal loss {losses['ours']:.4f}"
    )
    ratio = seconds["published"] / seconds["ours"]
    print(
        f"  CPU time  {seconds['published']:6.2f} s published, {seconds['ours']:6.2f} s ours: "
        f"{ratio:.2f}x (medians of {options.rounds})"
    )
    if options.products:
        counts = {name: products(step) for name, step in steps.items()}
        print(
            f"  products  {counts['published'] / 1e9:6.0f} G published, "
            f"{counts['ours'] / 1e9:6.0f} G ours: {counts['published'] / counts['ours']:.2f}x"
        )
    if options.memory:
        steps.clear()  # free their memory
        peaks = {name: memory(name, batch_size) for name in WAYS}
        print(
            f"  memory    {peaks['published'] / MB:6.0f} MB published, {peaks['ours'] / MB:6.0f} "
            f"MB ours: {peaks['ours'] / peaks['published']:.2f} of it"
        )
    shares = stages(clip, pixels, tokens, max(1, options.rounds // 2))
    print("  of ours   " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def main() -> None:
    """Measure every requested batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="compare the memory, too")
    parser.add_argument("--products", action="store_true", help="count the multiplications, too")
    parser.add_argument("--alone", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.alone:
        alone(options.alone, options.batch_size[0])
        return
    clip = models.create(MODEL, None)
    print(f"{MODEL}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    for batch_size in options.batch_size:
        measure(clip, batch_size, options)


if __name__ == "__main__":
    main()
