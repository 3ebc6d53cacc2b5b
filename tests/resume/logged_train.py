"""`clic-train` in a process of its own that writes the hash of every batch it trains on."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
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


def run(folder: Path, words: list[str], log: str, hold: int | None, rank: int, port: int) -> None:
    """Train in `folder`, the batches' hashes in the file `log`.

    Args:
        folder: Where the run is started.
        words: Of `clic-train`.
        log: A line "step hash" for each batch is added to it.
        hold: Step at which this process waits for its end, once its hash was written.
        rank: Of two, where there is a port.
        port: Where the ranks meet; 0 for one process alone.
    """
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # the server's is what it gives on
    os.chdir(folder)
    output = os.open(f"{log}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if port:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    step = Trainer.step

    def logged(self: Trainer, batch: Batch) -> object:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{batch.step} {digest(batch)}\n")
        while batch.step == hold:
            time.sleep(1)
        return step(self, batch)

    Trainer.step = logged  # type: ignore[method-assign, assignment]
    sys.argv = ["clic-train", *words]
    train.main()
