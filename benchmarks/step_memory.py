"""The memory that a CLIC step takes, by model, batch and `train.micro_batch`, without running it.

    python benchmarks/step_memory.py

Tensors without values go through the forward pass, the backward pass and AdamW of the trainer's
own passes, text tower trained, and the storages that are alive are added up: weights, gradients,
AdamW's two moments, the batch and the activations. Captions are those of step_speed.py, packed;
`--padded` leaves them as the tokenizer makes them. Under bf16 autocast the weights stay in fp32, as
in training. A card needs about 1 GB more for CUDA itself, and some for what its allocator cannot
use.
"""

from __future__ import annotations

import argparse
import weakref
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from step_speed import POSITIVES, WEIGHTS, captions
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clic import models
from clic.images import canvas
from clic.losses import ClicObjective
from clic.models import FeatureExtractor, LossModule, TextPlanner
from clic.models.text_encoder import ReadingRule
from clic.training import optim
from clic.training.passes import CachedPass, Pass, WholePass
from clic.training.strategy import DataParallel
from clic.types import Batch

MODELS = ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-H-14")
BATCHES = (200, 800)
MICRO = (None, 100, 25)
CARDS = (12, 24, 40, 80)
CLIP = ReadingRule(pool="argmax", end=None, padding=None, can_trim=True)
"""How all of the models' text towers read."""
OWN = 1.0
"""GB that CUDA itself takes on a card."""
GB = 1e9


class Alive(TorchDispatchMode):
    """Adds up the bytes of all storages that are alive; `peak` is the most of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, value: Any) -> None:
        """Count a tensor's storage, if it is new."""
        if not isinstance(value, Tensor) or (storage := value.untyped_storage()) in self._known:
            return
        self._known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            self.add(value)
        return result


def make_batch(tokenizer: Any, size: int, rows: int) -> Batch:
    """Return a batch of composites as the loader makes it, not yet planned."""
    texts = [caption for row in captions(rows) for caption in row]
    tokens = torch.cat([tokenizer(texts[i : i + 1000]) for i in range(0, len(texts), 1000)])
    tokens = tokens.view(rows, POSITIVES + 1, -1)
    return Batch(
        images=torch.zeros(rows, size, size, 3, dtype=torch.uint8),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        positives=tokens[:, :POSITIVES],
        negatives=tokens[:, POSITIVES:],
        negative_mask=torch.ones(rows, 1, dtype=torch.bool),
        kind="composite",
        step=0,
    )


def faked(mode: FakeTensorMode, batch: Batch) -> Batch:
    """Return the batch without values."""

    def fakes(record: Any) -> dict[str, Any]:
        found = {n: v for n, v in vars(record).items() if isinstance(v, Tensor)}
        return {name: mode.from_tensor(value) for name, value in found.items()}

    plans = tuple(replace(plan, **fakes(plan)) for plan in batch.text_plans)
    return replace(batch, text_plans=plans, **fakes(batch))


def peak(name: str, rows: int, micro: int | None, precision: str, packed: bool) -> float:
    """Return the highest memory of two steps in bytes."""
    import open_clip

    size = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
    batch = make_batch(open_clip.get_tokenizer(name), size, rows)
    if packed:
        batch = TextPlanner(CLIP, packs=True, rows=micro)(batch)
    canvas._channels.cache_clear()  # of another mode
    with FakeTensorMode() as mode:
        with mock.patch.object(nn.Module, "to", lambda module, *_, **__: module):
            model = open_clip.create_model(name)  # which would move what has no values
        trained = models.set_trainable(model, "text", True)
        features = FeatureExtractor(model, trained)
        models.set_mode(model, trained)
        batch = faked(mode, batch)
        losses = LossModule(features, {"composite": ClicObjective(*WEIGHTS)})
        strategy = DataParallel(torch.device("cpu"), precision)
        take: Pass = WholePass(losses, strategy)
        if micro is not None:
            take = CachedPass(losses, strategy, micro)
        optimizer = optim.adamw(model, lr=1e-6, weight_decay=0.1)
        alive = Alive()
        for value in [*model.parameters(), *model.buffers(), *batch.tensors().values()]:
            alive.add(value)
        with alive:
            for _ in range(2):
                optimizer.zero_grad(set_to_none=True)
                take(batch, lambda loss: loss)
                optimizer.step()
    return alive.peak


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--micro", type=int, nargs="*", default=MICRO, help="0 is the whole batch")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--padded", action="store_true")
    options = parser.parse_args()
    for name in options.models:
        for rows in options.batches:
            for micro in options.micro:
                taken = peak(name, rows, micro or None, options.precision, not options.padded) / GB
                fits = [str(card) for card in CARDS if taken + OWN <= card]
                print(
                    f"{name:<20} {rows:>4} rows, micro_batch {micro or '-':>4}: {taken:7.2f} GB"
                    f"  fits {', '.join(fits) or 'none'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
