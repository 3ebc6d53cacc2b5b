"""Two ranks with three workers each on shards from a server that drops, stalls and lies."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import runs
from clic.training.metrics_log import read

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

WATCHDOG = 240
"""Seconds after which a process counts as hanging; nothing else is measured by them."""
WIDE, HIGH = (40, 30), (30, 40)
STEPS = 24


def start(folder: Path, words: list[str]) -> list[forked.Forked]:
    return forked.start_ranks(forked.command, ("clic.cli.train", words), folder, ranks=2)


@pytest.fixture
def far(site: Any, tar_of: Callable[..., bytes], tiny_words: list[str]) -> list[str]:
    """Return the words of a run on shards of unequal length, some of them broken."""
    number = 0
    for shard in range(8):
        samples: list[Any] = []
        for _ in range(3 + 4 * shard):
            size = HIGH if number % 3 == 0 else WIDE
            record = {"top_caption": f"a red dog near {number} cats"}
            samples.append((f"{number:03d}", record, None if number % 20 == 19 else size))
            number += 1
        site.files[f"/{shard}.tar"] = tar_of(samples)
    site.files["/2.tar"] = site.files["/2.tar"][:12_000]  # what a server took for the whole
    site.drops = [3000, 700, 9000, 0, 5000, 12_000]
    site.stalls = [0.5, 0.5]
    site.silent = {"/5.tar"}
    return [
        *(word for word in tiny_words if not word.startswith(("data", "train.log_every"))),
        "data=stream", f"data.shards={site.url}/{{0..7}}.tar", "data.samples=192",
        "data.buffer=16", "data.caption_key=top_caption", "data.workers=3", "data.timeout=2",
        "data.max_broken=0.5", "captions.tagger=hanta", "train.log_every=1",
        "train.save_every=6", "train.run_name=far", "train.resume=auto",
    ]  # fmt: skip


@pytest.mark.slow
def test_equal_steps_whatever_the_server_does(tmp_path: Path, far: list[str], site: Any) -> None:
    codes, output = forked.finish(start(tmp_path, far))
    assert codes == [0, 0], output
    assert "data: a stream of 8 shards, epochs of 192 samples" in output
    records = read(tmp_path / "runs" / "far" / runs.METRICS_FILE)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    last = records[-1]
    # The composites' partners are extra: 12 of 24 steps of 8 rows have two images a row.
    used = 12 * 8 * 2 + 12 * 8
    assert last["data/samples"] - last["data/broken"] == used
    assert 0 < last["data/broken"] < 60
    assert last["data/shards"] >= 8 and 1 <= last["data/broken_shards"] < last["data/shards"]
    given_up = re.findall(r"shard given up: \S+/(\d)\.tar", output)
    assert set(given_up) <= {"2", "5"}, output
    assert not site.drops  # each of them was met, and mended


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path, far: list[str]) -> None:
    processes = start(tmp_path, far)
    run, deadline = tmp_path / "runs" / "far", time.monotonic() + WATCHDOG
    while not runs.complete_checkpoints(run) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        process.kill()
    forked.finish(processes)
    assert not runs.is_finished(run)
    codes, output = forked.finish(start(tmp_path, far))
    assert codes == [0, 0], output
    assert re.search(r"the stream goes on at shard \d+ of its pass \d+, which is not exact", output)
    records = read(run / runs.METRICS_FILE)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    shards = [record["data/shards"] for record in records if "data/shards" in record]
    assert shards == sorted(shards)


@pytest.mark.slow
def test_a_dead_server_ends_in_a_message(tmp_path: Path, far: list[str], site: Any) -> None:
    site.silent = {f"/{shard}.tar" for shard in range(8)}
    site.drops = []
    codes, output = forked.finish(
        start(tmp_path, [*(w for w in far if "buffer" not in w), "data.buffer=400"])
    )
    assert codes == [2, 2], output
    assert "3 shards in a row gave no sample" in output
    assert "KiB arrived in 2 seconds" in output and "data.timeout" in output
    assert "Traceback" not in output
