"""The cost of captions that state a layout: CLIC's recipes without and with them, in one run.

    OMP_NUM_THREADS=1 python benchmarks/layout_cost.py

Three pairs of recipes, each interleaved batch by batch: `vitb32` and `vitb32_layout` on the short
captions of the world, the same on captions as long as those of photographs, and `shapes` and
`shapes_layout` as they are. ViT-B/32 has random weights and batches of 8. All times are CPU time on
one thread, of composite steps alone: a batch from the rendered scenes to token ids, and a step from
there to the new weights. The results are medians and their ratios. Texts, tokens and places are
means per row: tokens are those of the captions, places are those that the text tower computes,
including padding up to the longest caption of the batch. Saved is what the forward pass of the
first step keeps for the backward pass, per row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean, median
from typing import NamedTuple

import torch
from step_speed import CAPTIONS
from torch import Tensor

from clic import data, models, runs
from clic.cli.train import compose
from clic.data import ShapesSource
from clic.training import Trainer
from clic.types import Batch, Sample

BATCHES = 30
REAL = ("data=shapes", "model.pretrained=null", "train.device=cpu")


class Photographs(ShapesSource):
    """The world's scenes with captions as long as those of photographs, without stored tags."""

    def read(self, index: int) -> Sample:
        texts = (CAPTIONS[index % len(CAPTIONS)], CAPTIONS[(index + 1) % len(CAPTIONS)])
        return replace(super().read(index), captions=texts, tags=None)


class Recipe:
    """A recipe with its model, which is trained on composites, and the cost of doing so.

    Args:
        experiment: Its name.
        words: Further settings.
        photographs: Whether captions are as long as those of photographs.
    """

    def __init__(self, experiment: str, words: tuple[str, ...], photographs: bool) -> None:
        config = compose([f"+experiment={experiment}", *words])
        source = Photographs if photographs else ShapesSource
        sources = {
            kind: source(world.split, world.objects, len(world), config.seed)
            for kind, world in data.make_sources(config).items()
            if isinstance(world, ShapesSource)
        }
        torch.manual_seed(0)
        clip = models.create(runs.source_of(config.model.name), config.model.pretrained)
        self.name = experiment
        self.builder = data.make_builder(config, sources, clip)
        self.trainer = Trainer(config, clip, steps=self.builder.sampler.steps_per_epoch())
        models.set_mode(clip.model, self.trainer.trained)
        self.batch_times: list[float] = []
        self.step_times: list[float] = []
        self.texts: list[float] = []
        self.tokens: list[float] = []
        self.places: list[float] = []
        self.saved = 0.0

    def warm_up(self, steps: Sequence[int]) -> None:
        """Build some batches, train on the last, and record the bytes its backward pass needs."""
        batch = [self.builder.build(step) for step in steps][-1]
        weights = {p.untyped_storage().data_ptr() for p in self.trainer.clip.model.parameters()}
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.trainer.step(batch)
        self.saved = sum(sizes.values()) / len(batch.images)

    def take(self, step: int, train: bool) -> None:
        """Build a batch, train on it if asked to, and record the times."""
        start = time.process_time()
        batch = self.builder.build(step)
        built = time.process_time()
        self.batch_times.append(built - start)
        self._count(batch)
        if train:
            start = time.process_time()
            self.trainer.step(batch)
            self.step_times.append(time.process_time() - start)

    def _count(self, batch: Batch) -> None:
        rows = len(batch.images)
        texts = [t for t in (batch.positives, batch.negatives) if t is not None]
        tokens = torch.cat(texts, dim=1)
        lengths = self.trainer.features.encode_text.rule.ends(tokens) + 1  # type: ignore[operator,union-attr]
        self.texts.append(tokens.shape[1])
        self.tokens.append(lengths.sum().item() / rows)
        self.places.append(tokens.shape[1] * lengths.max().item())


class Row(NamedTuple):
    """A line of the table: medians in ms, means over the batches, MB."""

    batch: float
    step: float
    texts: float
    tokens: float
    places: float
    saved: float


def measure(recipe: Recipe) -> Row:
    """Return the cost of a recipe."""
    return Row(
        1000 * median(recipe.batch_times),
        1000 * median(recipe.step_times),
        fmean(recipe.texts),
        fmean(recipe.tokens),
        fmean(recipe.places),
        recipe.saved / 1e6,
    )


def compare(
    title: str, names: tuple[str, str], words: tuple[str, ...], photographs: bool, rounds: int
) -> None:
    """Run two recipes in turn on the same scenes, and print their lines and the ratios."""
    pair = [Recipe(name, words, photographs) for name in names]
    sampler = pair[0].builder.sampler
    steps = (s for s in range(sampler.steps_per_epoch()) if sampler.kind(s) == "composite")
    warm, timed = list(islice(steps, BATCHES)), list(islice(steps, BATCHES))
    for recipe in pair:
        recipe.warm_up(warm)
    for number, step in enumerate(timed):
        # They take turns at going first, since they share some caches of words.
        for recipe in pair[:: (-1) ** number]:
            recipe.take(step, train=number < rounds)
    plain, told = map(measure, pair)
    for recipe, row in zip(pair, (plain, told), strict=True):
        print(
            f"| {title}, `{recipe.name}` | {row.batch:.1f} | {row.step:,.0f} | {row.texts:.0f} | "
            f"{row.tokens:.0f} | {row.places:.0f} | {row.saved:.1f} |"
        )
    ratios = [f"{b / a:.2f}x" for a, b in zip(plain, told, strict=True)]
    print(f"| ratio | {' | '.join(ratios)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8, help="of ViT-B/32 (default 8)")
    parser.add_argument("--rounds", type=int, default=6, help="of ViT-B/32 (default 6)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = (*REAL, f"train.batch_size={options.batch_size}")
    print(
        f"one thread, torch {torch.__version__}, medians of {BATCHES} batches and "
        f"{options.rounds} steps ({BATCHES} of the small model)\n"
    )
    print("| captions, recipe | batch, ms | step, ms | texts | tokens | places | saved, MB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    vitb32 = ("vitb32", "vitb32_layout")
    compare("short", vitb32, real, False, options.rounds)
    compare("photographs'", vitb32, real, True, options.rounds)
    compare("small model", ("shapes", "shapes_layout"), REAL[2:], False, BATCHES)


if __name__ == "__main__":
    main()
