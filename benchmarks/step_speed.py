"""CLIC's training step on ViT-B/32: the published way against ours, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/step_speed.py

Both ways get the same pixels and captions (SugarCrepe-length sentences joined in pairs), the same
random weights, and must give the same loss. The published way encodes all captions at 77 tokens,
takes similarities as broadcast products, and steps AdamW parameter by parameter; ours leaves out
the padding behind the longest caption, uses matrix products, and steps AdamW in one kernel. What is
quoted is the ratio of medians of CPU time.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clic import models
from clic.losses import ClicObjective
from clic.training import optim

CAPTIONS = (
    "a man in a red jacket is standing next to a brown dog on a snowy street",
    "two children play with a yellow ball under a large tree in the park",
    "a white cat sleeps on a wooden chair beside an open window",
    "a woman rides a blue bicycle past a row of parked cars",
    "a plate of pasta with tomatoes and basil stands on a dark table",
)
POSITIVES = 4
WEIGHTS = (0.5, 0.5, 1.0)


def captions(batch_size: int) -> list[list[str]]:
    """Return four true and one false joined caption for each row."""
    rows = []
    for i in range(batch_size):
        first, second = CAPTIONS[i % 5], CAPTIONS[(i + 1) % 5]
        rows.append([f"{first}. {second}.", f"{second}. {first}."] * 2 + [f"{second}. {second}."])
    return rows


def published_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Return Eq. 7 by broadcast products and one column mask for each slot."""
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
    """Return a step as clic's trainer does it."""
    trained = models.set_trainable(model, "text", True)
    extract = models.FeatureExtractor(model, trained)
    objective = ClicObjective(*WEIGHTS)
    optimizer = optim.adamw(model, lr=1e-6, weight_decay=0.01, betas=(0.9, 0.999))
    models.set_mode(model, trained)

    def step() -> float:
        features = extract(pixels, tokens[:, :POSITIVES], tokens[:, POSITIVES:])
        loss = objective(features).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    """Time both and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    clip = models.create("ViT-B-32", None)
    size = clip.preprocess.size
    pixels = torch.randn(options.batch_size, 3, size, size)
    rows = captions(options.batch_size)
    tokens = clip.tokenizer([c for row in rows for c in row]).view(options.batch_size, 5, -1)
    steps = {
        "published": published_step(copy.deepcopy(clip.model), pixels, tokens),
        "ours": our_step(clip.model, pixels, tokens),
    }
    losses = {name: step() for name, step in steps.items()}  # also the warm-up
    assert abs(losses["published"] - losses["ours"]) < 1e-4, losses
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    ends = tokens.argmax(-1) + 1
    print(
        f"ViT-B/32, {options.batch_size} rows of 5 captions, longest {int(ends.max())} of "
        f"{tokens.shape[-1]} tokens, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    )
    for name, values in seconds.items():
        print(f"  {name:<10} {median(values):6.2f} s of CPU a step (median of {len(values)})")
    ratio = median(seconds["published"]) / median(seconds["ours"])
    print(f"  ratio {ratio:.2f}x, equal loss {losses['ours']:.4f}")


if __name__ == "__main__":
    main()
