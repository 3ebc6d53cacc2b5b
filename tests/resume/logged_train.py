"""`clic-train` in a process of its own that writes the hash of every batch it trains on."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from clic.cli import train
from clic.training.trainer import Trainer
from clic.types import Batch


def digest(batch: Batch) -> str:
    """Return what stands for everything in a batch."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(batch.tensors().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.contiguous().numpy().tobytes())
    rest = (batch.kind, batch.step, batch.mean, batch.std, batch.keys, batch.tally, batch.faults)
    hashed.update(repr(rest).encode())
    return hashed.hexdigest()


def run(words: list[str], log: Path, hold: int | None) -> None:
    """Train, with the batches' hashes in the file `log`.

    Args:
        words: Of `clic-train`.
        log: A line "step hash" for each batch is added to it.
        hold: Step at which this process waits for its end, once its hash was written.
    """
    step = Trainer.step

    def logged(self: Trainer, batch: Batch) -> object:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{batch.step} {digest(batch)}\n")
        while batch.step == hold:
            time.sleep(1)
        return step(self, batch)

    Trainer.step = logged  # type: ignore[method-assign, assignment]
    sys.argv = ["clic-train", *words]
    train.main()
