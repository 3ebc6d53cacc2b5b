"""The memory and multiplications that a CLIC step needs, by model, batch and `train.micro_batch`.

    python benchmarks/step_memory.py                       # the tables of docs/performance.md
    OMP_NUM_THREADS=1 python benchmarks/step_memory.py --measure --models ViT-B-32-quickgelu \
        --batches 8 16 64 --micro 0 8 --precision fp32     # estimates against real steps

A step is the trainer's own: its forward and backward passes and its AdamW, over tensors without
values. The count is the most bytes that tensors occupy at once: weights, gradients, AdamW's two
moments, the batch, and what the forward pass keeps for the backward pass. Captions are those of
step_speed.py, packed; `--padded` leaves them as the tokenizer makes them. Autocast is that of a
GPU, where layer norms compute in fp32, and attention is fused, as on a GPU. The rest of a card's
memory is for CUDA and for what its allocator cannot use.

`--measure` also runs each step on the CPU, in its own process, and prints the peak of torch's
allocator and the peak anonymous memory above that of an interpreter with torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from step_speed import POSITIVES, WEIGHTS, anonymous, captions, products, sampled
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
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
PARTS = ("text", "both")
BATCHES = (200, 800)
MICRO = (0, 400, 200, 100, 50, 25, 10, 5, 1)
SHOWN = (0, 100, 25)
CARDS = (12, 24, 40, 80)
CLIP = ReadingRule(pool="argmax", end=None, padding=None, can_trim=True)
"""How all of the models' text towers read."""
OWN = 1.0
"""GB that CUDA itself uses on a card."""
GB = 1e9


@dataclass(frozen=True)
class Case:
    """A step: which part of which model trains on how many rows, `micro` at once (0: all)."""

    model: str
    train: str
    rows: int
    micro: int
    precision: str
    padded: bool


class Alive(TorchDispatchMode):
    """Adds up the bytes of all live storages; `peak` is the maximum."""

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


# --- a step --------------------------------------------------------------------------------------


@cache
def tokenized(model: str, rows: int) -> Tensor:
    """Return token ids [rows, P + 1, L]."""
    import open_clip

    tokens = open_clip.get_tokenizer(model)([text for row in captions(rows) for text in row])
    return tokens.view(rows, POSITIVES + 1, -1)


def make_batch(case: Case) -> Batch:
    """Return a batch of composites as the loader makes it, with its text plan."""
    import open_clip

    size = open_clip.get_model_config(case.model)["vision_cfg"].get("image_size", 224)
    tokens = tokenized(case.model, case.rows)
    batch = Batch(
        images=torch.zeros(case.rows, size, size, 3, dtype=torch.uint8),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        positives=tokens[:, :POSITIVES],
        negatives=tokens[:, POSITIVES:],
        negative_mask=torch.ones(case.rows, 1, dtype=torch.bool),
        kind="composite",
        step=0,
    )
    return batch if case.padded else TextPlanner(CLIP, packs=True, rows=case.micro or None)(batch)


def faked(mode: FakeTensorMode, batch: Batch) -> Batch:
    """Return the batch without values."""

    def fakes(record: Any) -> dict[str, Any]:
        found = {n: v for n, v in vars(record).items() if isinstance(v, Tensor)}
        return {name: mode.from_tensor(value) for name, value in found.items()}

    plans = tuple(replace(plan, **fakes(plan)) for plan in batch.text_plans)
    return replace(batch, text_plans=plans, **fakes(batch))


def make_step(case: Case, batch: Batch) -> tuple[Callable[[], None], list[Tensor]]:
    """Return a step of a model that has already trained, and the tensors that outlive steps."""
    import open_clip

    with mock.patch.object(nn.Module, "to", lambda module, *_, **__: module):
        model = open_clip.create_model(case.model)  # would move tensors without values
    trained = models.set_trainable(model, case.train, True)
    features = FeatureExtractor(model, trained)
    models.set_mode(model, trained)
    losses = LossModule(features, {"composite": ClicObjective(*WEIGHTS)})
    strategy = DataParallel(torch.device("cpu"), case.precision)
    take: Pass = WholePass(losses, strategy)
    if case.micro:
        take = CachedPass(losses, strategy, case.micro)
    optimizer = optim.adamw(model, lr=1e-6, weight_decay=0.1)

    def update() -> None:
        optim.step_if_finite(optimizer, model.parameters())
        optimizer.zero_grad(set_to_none=True)

    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    update()

    def step() -> None:
        take(batch, lambda loss: loss)
        update()

    moments = [value for state in optimizer.state.values() for value in state.values()]
    plans = [value for plan in batch.text_plans for value in vars(plan).values()]
    kept = [*model.parameters(), *model.buffers(), *moments, *plans, *batch.tensors().values()]
    return step, kept


@contextmanager
def gpu_norms(case: Case) -> Iterator[None]:
    """Run layer norms in fp32, as a GPU's autocast does and a CPU's does not."""
    norm = F.layer_norm

    def cast(inputs: Tensor, *words: Any, **named: Any) -> Tensor:
        return norm(inputs.float(), *words, **named)

    with mock.patch.object(F, "layer_norm", norm if case.precision == "fp32" else cast):
        yield


# --- what is counted and measured ----------------------------------------------------------------


@contextmanager
def imagined(case: Case) -> Iterator[tuple[Callable[[], None], list[Tensor]]]:
    """Make a step of tensors without values, and the tensors that outlive it."""
    batch = make_batch(case)
    canvas._channels.cache_clear()  # cached under another mode
    with FakeTensorMode() as mode, gpu_norms(case):
        yield make_step(case, faked(mode, batch))
    canvas._channels.cache_clear()


def counted(case: Case) -> int:
    """Return the most bytes that a step occupies at once.

    From the third chunk on, each is like the one before except for its captions' lengths, so only
    the images of further chunks are counted. Counting all eight chunks of ViT-B/32's 200 rows gives
    1 % more.
    """
    rows = min(case.rows, 3 * case.micro or case.rows)
    with imagined(replace(case, rows=rows)) as (step, kept):
        alive = Alive()
        images = next(value for value in kept if value.dtype == torch.uint8)
        alive.now = (case.rows - rows) * images[0].nbytes
        for value in kept:
            alive.add(value)
        with alive:
            step()
    return alive.peak


def ratio(case: Case) -> float:
    """Return the ratio of multiplications of a step in chunks to those of the same step at once."""
    found = []
    for micro in (case.micro, 0):
        with imagined(replace(case, micro=micro)) as (step, _):
            found.append(products(step))
    return found[0] / found[1]


def measured(case: Case) -> tuple[float, float]:
    """Return the peak bytes of torch's allocator, and of a process, in a real step."""
    found = []
    for way in ("allocator", "process"):
        command = [sys.executable, __file__, "--alone", way, json.dumps(asdict(case))]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(float(output.split()[-1]))
    return found[0], found[1]


def alone(way: str, case: Case) -> float:
    """Return the peak bytes in a step that is run here."""
    import open_clip  # noqa: F401, to leave out what importing it takes

    if way == "process":
        before = anonymous()
        with gpu_norms(case):
            step, _ = make_step(case, make_batch(case))
            with sampled() as peaks:
                step()
        return peaks[0] - before
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
        gpu_norms(case),
    ):
        step, _ = make_step(case, make_batch(case))
        start = time.time_ns()
        step()
    results = profiler.profiler
    assert results is not None and results.kineto_results is not None
    most, events = 0, list(results.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation and event.start_time_ns >= start:
            most = max(most, event.extra_fields.total_allocated)
    return most


# --- the run -------------------------------------------------------------------------------------


def chosen(taken: dict[int, float], card: int) -> str:
    """Return the largest `train.micro_batch` that fits a card; 0 stands for the whole batch."""
    fits = [micro for micro, gb in taken.items() if gb + OWN <= card]
    return "none" if not fits else "whole" if 0 in fits else str(max(fits))


def tabulate(options: argparse.Namespace) -> None:
    """Print a row of the table for each model, trained part and batch."""
    head = [f"{micro or 'whole'}, GB" for micro in SHOWN] + [f"{card} GB card" for card in CARDS]
    print("|", " | ".join(["model", "trains", "batch", "products", *head]), "|", flush=True)
    for name, train in product(options.models, options.train):
        given = (options.precision, options.padded)
        more = ratio(Case(name, train, 100, 25, *given))
        for rows in options.batches:
            taken: dict[int, float] = {}
            for micro in (m for m in options.micro if m < rows):
                # Once the smallest card is enough, smaller chunks are of no use.
                if micro in SHOWN or not taken or min(taken.values()) + OWN > min(CARDS):
                    taken[micro] = counted(Case(name, train, rows, micro, *given)) / GB
            shown = (f"{taken[m]:.1f}" if m in taken else "-" for m in SHOWN)
            cells = [name, train, str(rows), f"{more:.2f}", *shown]
            print("|", " | ".join(cells + [chosen(taken, c) for c in CARDS]), "|", flush=True)


def compare(case: Case) -> None:
    """Print a step's estimate beside its measurement."""
    own, (allocator, process) = counted(case) / GB, (value / GB for value in measured(case))
    print(
        f"{case.model} {case.train} {case.precision}, {case.rows} rows, micro_batch "
        f"{case.micro or '-'}: counted {own:.3f} GB, allocator {allocator:.3f} GB "
        f"({allocator / own - 1:+.1%}), process {process:.3f} GB ({process / own - 1:+.1%})",
        flush=True,
    )


def main() -> None:
    """Print the table, or compare estimates with measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--train", nargs="+", default=PARTS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--micro", type=int, nargs="+", default=MICRO, help="0 is the whole batch")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--padded", action="store_true")
    parser.add_argument("--measure", action="store_true", help="run the steps, too")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(alone(options.alone[0], Case(**json.loads(options.alone[1]))))
    elif options.measure:
        every = product(options.models, options.train, options.batches, options.micro)
        for name, train, rows, micro in every:
            if micro < rows:
                compare(Case(name, train, rows, micro, options.precision, options.padded))
    else:
        tabulate(options)


if __name__ == "__main__":
    main()
