"""Check that `clic-data pack`, killed twice and resumed, writes the bytes of an unbroken run.

It makes synthetic JPEGs (some of them broken), packs them once without a break, then again with two
kill -9 on the way, and compares the sha256 of every file that the two runs left.

    python benchmarks/pack_resume.py --images 20000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [str(Path(sys.executable).with_name("clic-data")), "pack"]


def make_source(folder: Path, count: int) -> Path:
    """Write `count` images and their CSV; every 997th image is truncated, every 1499th missing."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        path = folder / "images" / f"{number:06d}.jpg"
        size = (400, 300) if number % 3 else (300, 400)
        grain = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        if number % 997 == 996:
            os.truncate(path, path.stat().st_size // 2)
        if number % 1499 == 1498:
            path.unlink()
        rows.append(f'images/{path.name},"Scene {number}, as drawn","A second line {number}"\n')
    source = folder / "captions.csv"
    source.write_text("".join(rows), encoding="utf-8")
    return source


def pack(source: Path, out: Path, workers: int, kill_at: int | None = None) -> tuple[float, str]:
    """Pack; with `kill_at`, kill -9 the process once that many tars exist."""
    started = time.perf_counter()
    words = [*COMMAND, str(source), str(out), "--workers", str(workers)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    while kill_at is not None and process.poll() is None:
        if len(list(out.glob("*.tar"))) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    printed = process.communicate()[0]
    if kill_at is None and process.returncode:
        raise SystemExit(f"clic-data pack ended with {process.returncode}")
    if kill_at is not None and process.returncode != -signal.SIGKILL:
        raise SystemExit("clic-data pack ended before it could be killed")
    return time.perf_counter() - started, printed


def digests(out: Path) -> dict[str, str]:
    """Return the sha256 of every file below `out`."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=2)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_source(folder / "source", flags.images)
        shards = -(-flags.images // 1000)
        unbroken, printed = pack(source, folder / "unbroken", flags.workers)
        print(printed.strip())
        broken = 0.0
        for kill_at in (max(1, shards // 3), max(2, 2 * shards // 3)):
            seconds, _ = pack(source, folder / "broken", flags.workers, kill_at)
            broken += seconds
            there = len(list((folder / "broken").glob("*.tar")))
            print(f"killed after {seconds:.0f} s, {there} of {shards} shards in place")
        seconds, _ = pack(source, folder / "broken", flags.workers)
        one, other = digests(folder / "unbroken"), digests(folder / "broken")
        rate = flags.images / unbroken
        print(f"unbroken: {unbroken:.1f} s, {rate:.0f} images/s with {flags.workers} workers")
        print(f"killed twice: {broken + seconds:.1f} s in all")
        differing = [path for path in one.keys() | other.keys() if one.get(path) != other.get(path)]
        total = hashlib.sha256("".join(f"{k}{v}" for k, v in one.items()).encode()).hexdigest()
        print(f"{len(one)} files, sha256 over all {total[:16]}; different: {differing or 'none'}")
        sys.exit(bool(differing))


if __name__ == "__main__":
    main()
