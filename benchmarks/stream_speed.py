"""Batches from indexed shards and from a stream of the same shards, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/stream_speed.py

The shards contain the JPEGs of `data_speed.py` at a shorter side of 288, with stored tags. They are
read by position (`data=shards`), from beginning to end (`data=stream`) on disk, and likewise over
http from a server on this machine. The result is the ratio of medians of CPU time for a composite
and a single step, including the fetching thread; the server is another process.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from data_speed import SEED, make_data, pack
from open_clip import get_tokenizer
from published_loader import OPENAI_MEAN, OPENAI_STD, SIZE

from clic import data
from clic.cli.train import compose
from clic.data.batches.loader import BatchBuilder
from clic.models import Preprocess


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine while the block runs; yield its address."""
    port = 8000 + int(time.time()) % 20_000
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urlopen(url, timeout=1).close()
                break
            except URLError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


def make_builder(batch_size: int, *words: str) -> BatchBuilder:
    """Return a builder of CLIC's batches for ViT-B/32 from shards."""
    config = compose(
        ["+experiment=vitb32", f"train.batch_size={batch_size}", f"seed={SEED}",
         "captions.tagger=stored", *words]
    )  # fmt: skip
    preprocess = Preprocess(SIZE, OPENAI_MEAN, OPENAI_STD)
    clip: Any = SimpleNamespace(tokenizer=get_tokenizer("ViT-B-32"), preprocess=preprocess)
    return data.make_builder(config, data.make_sources(config), clip)


def seconds(builder: BatchBuilder, step: int) -> float:
    """Return the CPU time of a step, on all threads."""
    begun = time.process_time()
    builder.build(step)
    return time.process_time() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        make_data(Path(scratch), flags.samples)
        folder = Path(scratch) / "shards"
        pack(Path(scratch) / "captions.csv", folder, tags="hanta", shard_size=100)
        names = sorted(path.name for path in folder.glob("*.tar"))
        with served(folder) as url:
            stream = ["data=stream", "data.samples=100000", "data.buffer=200"]
            far = f"data.shards=[{','.join(f'{url}/{name}' for name in names)}]"
            ways = {
                "indexed shards": make_builder(flags.batch_size, f"data.shards={folder}"),
                "stream, on disk": make_builder(flags.batch_size, f"data.shards={folder}", *stream),
                "stream, over http": make_builder(flags.batch_size, far, *stream),
            }
            report(ways, flags.rounds, flags.batch_size)


def report(ways: dict[str, BatchBuilder], rounds: int, rows: int) -> None:
    """Time the ways in turn and print images per second of each, and the ratio to the first."""
    times: dict[str, list[list[float]]] = {name: [[], []] for name in ways}
    for step in range(2):  # opens the streams and fills their buffers
        for builder in ways.values():
            builder.build(step)
    for number in range(1, rounds + 1):
        for kind in (0, 1):
            for name, builder in ways.items():
                gc.collect()
                times[name][kind].append(seconds(builder, 2 * number + kind))
    first = None
    print(f"{'way':<20} composite  single  mean, ms a row  images/s a core  ratio")
    for name, (composite, single) in times.items():
        own = [1000 * median(kind) / rows for kind in (composite, single)]
        mean = sum(own) / 2
        first = first or mean
        print(
            f"{name:<20} {own[0]:9.2f} {own[1]:7.2f} {mean:15.2f} {1000 / mean:16.0f} "
            f"{first / mean:6.2f}"
        )


if __name__ == "__main__":
    main()
