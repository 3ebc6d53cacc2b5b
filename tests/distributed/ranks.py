"""Run a script's `main(folder)` on W gloo ranks: python ranks.py SCRIPT W FOLDER.

A process of its own, so that the ranks can import what they run, whatever pytest has made of the
module names. A rank that fails ends the others and shows its traceback.
"""

from __future__ import annotations

import runpy
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_rank(rank: int, script: str, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous-{world}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),  # so that ranks that wait for each other fail soon
    )
    try:
        runpy.run_path(script)["main"](Path(folder))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    script, world, folder = sys.argv[1:]
    mp.spawn(on_rank, args=(script, int(world), folder), nprocs=int(world))
