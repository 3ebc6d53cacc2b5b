"""The memory that an objective needs on one of many ranks, without other ranks or any computation.

    python benchmarks/loss_memory.py

One process acts as the first of 64 ranks, or of 8 (torch's fake process group), and tensors without
values go through an objective and its backward pass. The bytes of all live storages are added up,
including the rank's own features and their gradients, with `loss.logits_at_once` at its default and
without it.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from step_memory import Alive
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from clic.losses import OBJECTIVES, Objective
from clic.losses.objectives import LOGITS
from clic.types import Features

MB = 1e6
CASES = (
    ("clip", 1, 0, False),
    ("clip", 1, 0, True),
    ("softmax_negatives", 1, 1, False),
    ("clic", 4, 1, False),
)
"""Objective, true captions, false captions, and whether the model has a bias (SigLIP)."""


def peak(objective: Objective, rows: int, slots: int, false: int, bias: bool, width: int) -> float:
    """Return the peak of live bytes."""
    with FakeTensorMode():
        images = torch.empty(rows, width, requires_grad=True)
        captions = torch.empty(rows, slots + false, width, requires_grad=True)
        scale = torch.empty((), requires_grad=True)
        alive = Alive()
        for value in (images, captions, scale):
            alive.add(value)
        with alive:
            features = Features(
                images,
                captions[:, :slots],
                scale,
                captions[:, slots:] if false else None,
                logit_bias=scale if bias else None,
            )
            objective(features).total.backward()
    return alive.peak


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 8])
    parser.add_argument("--batch", type=int, default=32768, help="rows of all ranks")
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    for ranks in options.ranks:
        rows = options.batch // ranks
        dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
        print(f"{ranks} ranks of {rows:,} rows")
        for name, slots, false, bias in CASES:
            whole, chunks = (
                peak(OBJECTIVES[name](logits_at_once=most), rows, slots, false, bias, options.width)
                for most in (None, LOGITS)
            )
            what = f"{name}{' (sigmoid)' if bias else ''}, {slots} true, {false} false"
            print(
                f"{what:<36} whole {whole / MB:7,.0f} MB, in chunks {chunks / MB:7,.0f} MB"
                f" ({chunks / whole:.2f})",
                flush=True,
            )
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
