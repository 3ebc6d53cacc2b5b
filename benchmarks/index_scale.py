"""Time and memory for opening a large synthetic source: 10,000 shards of 1,000 samples.

    OMP_NUM_THREADS=1 python benchmarks/index_scale.py            # 10 million samples, 1.2 GB disk
    OMP_NUM_THREADS=1 python benchmarks/index_scale.py --shards 500

The indexes are real files; the tars are sparse files of the size that the indexes state. It
measures the first opening (which writes the merged index), later ones, and the memory of the
loader's processes, forked and spawned, after each has planned batches and looked up all of their
samples. PSS divides shared pages among the processes that share them, so its sum is their total
memory; beside it is the sum for the same processes without any index.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np

from clic.data.sampling.sampler import Sampler
from clic.data.shards.index import ShardIndex, index_path, save_index
from clic.data.shards.shard_source import ShardSource

BATCH, STEPS = 200, 100


def make(folder: Path, shards: int, samples: int) -> None:
    """Write the indexes and sparse tars of `shards` x `samples` samples of about 30 kB."""
    rng = np.random.default_rng(0)
    blocks = np.arange(samples * 3, dtype=np.uint32).reshape(samples, 3) * 24 + 1
    shard_bytes = int(blocks[-1, -1] + 100) * 512
    for number in range(shards):
        keys = "".join(f"{number:05d}{row:04d}" for row in range(samples)).encode()
        columns = {
            "blocks": blocks,
            "lengths": rng.integers(100, 12_000, (samples, 3), dtype=np.uint32),
            "crcs": rng.integers(2**32, size=samples, dtype=np.uint32),
            "sizes": rng.integers(200, 640, (samples, 2), dtype=np.int32),
            "sentences": np.full(samples, 5, dtype=np.uint16),
            "key_ends": np.arange(1, samples + 1, dtype=np.uint32) * 9,
            "keys": np.frombuffer(keys, np.uint8),
        }
        shard = folder / f"{number:05d}.tar"
        shard.touch()
        os.truncate(shard, shard_bytes)
        save_index(index_path(shard), ShardIndex(samples, shard_bytes, 0, {}, columns))


def memory(pid: int) -> tuple[float, float]:
    """Return RSS and PSS of a process in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE))
    return int(found["Rss"]) / 1e3, int(found["Pss"]) / 1e3


def work(source: ShardSource | None, sampler: Sampler | None, ready, leave) -> None:  # type: ignore[no-untyped-def]
    """Use the index as a loader worker does, then wait to be measured."""
    if source is not None and sampler is not None:
        for step in range(os.getpid() % 1000, os.getpid() % 1000 + STEPS):
            for row in sampler.plan(step).rows:
                for index in row.indices:
                    source.index.locate(index)
    ready.release()
    leave.wait()


def measure(
    method: str, workers: int, source: ShardSource | None, sampler: Sampler | None
) -> tuple[float, float]:
    """Return RSS and PSS in MB, summed over this process and its workers."""
    context = multiprocessing.get_context(method)
    ready, leave = context.Semaphore(0), context.Event()
    processes = [
        context.Process(target=work, args=(source, sampler, ready, leave)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    pairs = [memory(pid) for pid in (os.getpid(), *(p.pid or 0 for p in processes))]
    leave.set()
    for process in processes:
        process.join()
    return sum(rss for rss, _ in pairs), sum(pss for _, pss in pairs)


def opened(folder: Path, cache: Path) -> tuple[ShardSource, Sampler, float, float]:
    """Open the source and make the sampler; return both, with wall-clock and CPU seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    source = ShardSource(str(folder), cache_dir=str(cache))
    landscape = source.landscape("landscape", 0)
    sampler = Sampler({"composite": landscape, "single": landscape}, "alternate", BATCH, seed=0)
    return source, sampler, time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    """Make the source, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=1000, help="in a shard")
    parser.add_argument("--workers", type=int, default=4)
    flags = parser.parse_args()
    without = {method: measure(method, flags.workers, None, None) for method in ("fork", "spawn")}
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "shards", Path(scratch) / "cache"
        folder.mkdir()
        make(folder, flags.shards, flags.samples)
        os.sync()  # so that the disk is not still writing while the opening is timed
        print(f"{flags.shards} shards of {flags.samples} samples, {flags.workers} workers")
        for name in ("first opening", "opening again"):
            source, sampler, wall, cpu = opened(folder, cache)
            print(f"{name}, sampler included: {wall:.2f} s ({cpu:.2f} s of CPU)")
        merged = sum(path.stat().st_size for path in (cache / "indexes").glob("*.merged"))
        print(f"merged index: {merged / 1e6:.0f} MB on disk")
        start = time.process_time()
        for step in range(STEPS):
            sampler.plan(step)
        milliseconds = (time.process_time() - start) / STEPS * 1e3
        print(f"a plan of {BATCH} rows: {milliseconds:.1f} ms of CPU")
        for method in ("fork", "spawn"):
            rss, pss = measure(method, flags.workers, source, sampler)
            print(
                f"{method}: RSS {rss:.0f} MB, PSS {pss:.0f} MB over {flags.workers + 1} processes; "
                f"without any index {without[method][0]:.0f} and {without[method][1]:.0f} MB"
            )


if __name__ == "__main__":
    main()
