"""kill -9 at ten random moments of a run: it ends as a run that nothing breaks, bit for bit.

With micro-batches, an average of the weights and self-distillation, each of which has something of
its own to continue. The processes are real, forked from a server that has imported torch once.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clic import runs
from clic.training.metrics_log import read

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import forked
import logged_train

pytestmark = pytest.mark.slow

STEPS, KILLS = 40, 10
WEIGHTS = Path("runs", "mine", runs.MODEL, runs.OPEN_CLIP_WEIGHTS)
WORDS = (
    f"train.max_steps={STEPS}", "train.epochs=12", "train.save_every=2", "train.log_every=2",
    "train.micro_batch=3", "train.ema=0.9", "train.distill_weight=2.0", "optim.lr=0.01",
    "train.run_name=mine",
)  # fmt: skip


class Run:
    """One run's folder, in which one or two ranks are started and killed."""

    def __init__(self, folder: Path, words: list[str], ranks: int) -> None:
        self.folder, self.words, self.ranks = folder, words, ranks

    def start(self) -> list[forked.Forked]:
        envs = forked.torchrun(self.ranks) if self.ranks > 1 else [{}]
        return [
            forked.Forked(
                logged_train.run,
                (self.words, self.folder / f"batches-{rank}", None),
                self.folder,
                env,
                self.folder / f"{rank}.out",
            )
            for rank, env in enumerate(envs)
        ]

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
        earlier, deadline = len(self.begun), time.monotonic() + forked.HANG
        processes = self.start()
        while not any(begun >= step for begun in self.begun[earlier:]):
            assert time.monotonic() < deadline, self.output
            assert all(p.returncode is None for p in processes), self.output
            time.sleep(0.005)
        time.sleep(delay)
        for process in processes:
            process.signal_all(signal.SIGKILL)
        assert forked.finish(processes)[0] == [-signal.SIGKILL] * self.ranks, self.output
        assert not runs.is_finished(self.folder / "runs" / "mine")

    def finish(self) -> None:
        assert forked.finish(self.start())[0] == [0] * self.ranks, self.output


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
