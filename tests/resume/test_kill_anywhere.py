"""kill -9 at ten random moments of a run: it ends as a run that nothing breaks, bit for bit.

With micro-batches, an average of the weights and self-distillation, each of which has something of
its own to continue. The processes are real, forked from a server that has imported torch once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from clic import runs
from clic.training.metrics_log import read

pytestmark = pytest.mark.slow

STEPS, KILLS = 40, 10
HANG = 1200
"""Seconds after which a process counts as hanging; nothing else is measured by them."""
PRELOAD = ["clic.cli.train", "clic.training", "hydra", "open_clip"]
FOLDER = str(Path(__file__).parent)
WEIGHTS = Path("runs", "mine", runs.MODEL, runs.OPEN_CLIP_WEIGHTS)
WORDS = (
    f"train.max_steps={STEPS}", "train.epochs=12", "train.save_every=2", "train.log_every=2",
    "train.micro_batch=3", "train.ema=0.9", "train.distill_weight=2.0", "optim.lr=0.01",
    "train.run_name=mine",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    sys.path.insert(0, FOLDER)
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    yield
    sys.path.remove(FOLDER)


class Run:
    """One run's folder, in which one or two ranks are started and killed."""

    def __init__(self, folder: Path, words: list[str], ranks: int) -> None:
        self.folder, self.words, self.ranks = folder, words, ranks

    def start(self) -> list[BaseProcess]:
        import logged_train

        port = 0
        if self.ranks > 1:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
        context = multiprocessing.get_context("forkserver")
        processes: list[BaseProcess] = []
        for rank in range(self.ranks):
            given = (self.folder, self.words, f"batches-{rank}", None, rank, port)
            processes.append(context.Process(target=logged_train.run, args=given))
            processes[-1].start()
        return processes

    @property
    def begun(self) -> list[int]:
        """The steps that rank 0 has begun, in all its processes."""
        log = self.folder / "batches-0"
        lines = log.read_text().splitlines() if log.is_file() else []
        return [int(line.split()[0]) for line in lines]

    @property
    def output(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.out")))

    def kill(self, step: int, delay: float) -> None:
        """Kill all processes some seconds after one of them has begun `step` or a later one."""
        earlier, deadline = len(self.begun), time.monotonic() + HANG
        processes = self.start()
        while not any(begun >= step for begun in self.begun[earlier:]):
            assert time.monotonic() < deadline and all(p.is_alive() for p in processes), self.output
            time.sleep(0.005)
        time.sleep(delay)
        for process in processes:
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            process.join(HANG)
            assert process.exitcode == -signal.SIGKILL, self.output
        assert not runs.is_finished(self.folder / "runs" / "mine")

    def finish(self) -> None:
        processes = self.start()
        for process in processes:
            process.join(HANG)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        assert codes == [0] * self.ranks, self.output


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_ten_random_moments(
    tmp_path_factory: pytest.TempPathFactory, tiny_words: list[str], ranks: int
) -> None:
    given = [word for word in tiny_words if not word.startswith("train.log_every")]
    words = [*given, *WORDS, "model.train=text.last:1"]
    whole, mine = (Run(tmp_path_factory.mktemp("run"), words, ranks) for _ in range(2))
    whole.finish()
    random = np.random.default_rng(ranks)
    for step in np.sort(random.choice(STEPS - 8, KILLS, replace=False)).tolist():
        mine.kill(step, float(random.uniform(0, 0.1)))
    mine.finish()
    assert (mine.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    first, second = (read(run.folder / "runs" / "mine" / "metrics.jsonl") for run in (whole, mine))
    kept = [
        [(r["step"], r["loss"], r.get("composite/distillation")) for r in records]
        for records in (first, second)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == STEPS // 2
    # A killed run had begun the steps since its last checkpoint, at most three, once more.
    assert len(mine.begun) > STEPS
