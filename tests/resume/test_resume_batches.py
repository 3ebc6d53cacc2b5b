"""kill -9 and the same command again: every batch is that of the run nothing has broken.

The processes are real; they are forked from a server that has imported torch once. Some samples
are broken, so substitutes and their count go through the kill as well.
"""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clic import models, runs, shapes
from clic.config.train_settings import Config
from clic.data import make_builder, make_loader, make_sources, pack
from clic.training.metrics_log import read
from clic.types import Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import forked
import logged_train

STEPS, HOLD, SAMPLES = 14, 8, 60
BROKEN = (2, 19, 41)


@contextmanager
def watchdog(seconds: int) -> Iterator[None]:
    """Fail instead of hanging."""

    def bark(number: int, frame: object) -> None:
        pytest.fail(f"nothing came of it in {seconds} s")  # no OSError, which is a broken sample

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sample(index: int) -> Sample:
    scene = shapes.sample("train", index, 1)
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "PNG")
    data = buffer.getvalue()
    image = data[: len(data) // 2] if index in BROKEN else data
    return Sample(scene.key, image, scene.captions, scene.tags)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    pack(map(sample, range(SAMPLES)), folder / "world", shard_size=25)
    return folder / "world"


@pytest.fixture(scope="module")
def words(shards: Path, tiny_words: list[str]) -> list[str]:
    kept = [word for word in tiny_words if not word.startswith(("data", "train.log_every"))]
    return [
        *kept,
        *("data=shards", f"data.shards={shards}", "train.epochs=2", f"train.max_steps={STEPS}"),
        *("train.save_every=3", "train.log_every=2", "train.run_name=mine"),
    ]


class Run:
    """One run's folder, in which processes are started and killed."""

    def __init__(self, folder: Path, words: list[str], workers: int, ranks: int) -> None:
        self.folder, self.ranks = folder, ranks
        self.words = [*words, f"data.workers={workers}"]

    def start(self, hold: int | None) -> list[forked.Forked]:
        envs = forked.torchrun(self.ranks) if self.ranks > 1 else [{}]
        return [
            forked.Forked(
                logged_train.run,
                (self.words, self.folder / f"batches-{rank}", hold),
                self.folder,
                env,
                self.folder / f"{rank}.out",
            )
            for rank, env in enumerate(envs)
        ]

    def hashes(self, rank: int) -> list[tuple[int, str]]:
        log = self.folder / f"batches-{rank}"
        lines = log.read_text().splitlines() if log.is_file() else []
        return [(int(step), value) for step, value in (line.split() for line in lines)]

    def kill(self) -> None:
        """Kill the processes, and their workers, in the middle of a step."""
        processes, deadline = self.start(HOLD), time.monotonic() + forked.HANG
        while any((HOLD not in dict(self.hashes(rank))) for rank in range(self.ranks)):
            assert time.monotonic() < deadline, self.output
            assert all(p.returncode is None for p in processes), self.output
            time.sleep(0.01)
        for process in processes:
            process.signal_all(signal.SIGKILL)
        assert forked.finish(processes)[0] == [-signal.SIGKILL] * self.ranks
        assert not runs.is_finished(self.folder / "runs" / "mine")

    def finish(self) -> None:
        assert forked.finish(self.start(None))[0] == [0] * self.ranks, self.output

    @property
    def output(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.out")))

    @property
    def last_record(self) -> dict[str, Any]:
        record = read(self.folder / "runs" / "mine" / runs.METRICS_FILE)[-1]
        return {key: value for key, value in record.items() if key.startswith(("data/", "loss"))}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Callable[[int, int], Run]:
    """Return a function that makes a run of some workers and ranks."""
    return lambda workers, ranks: Run(tmp_path_factory.mktemp("run"), words, workers, ranks)


@pytest.fixture(scope="module")
def unbroken(start: Callable[[int, int], Run]) -> Run:
    run = start(0, 1)
    run.finish()
    return run


def assert_continues(run: Run, whole: Run) -> None:
    """Kill a run, start it again, and compare every batch it has seen with the whole run's."""
    run.kill()
    run.finish()
    assert "resuming runs/mine from step 6" in run.output
    for rank in range(run.ranks):
        expected, found = dict(whole.hashes(rank)), run.hashes(rank)
        assert sorted(expected) == list(range(STEPS))
        assert [step for step, _ in found] == [*range(HOLD + 1), *range(6, STEPS)]
        assert all(expected[step] == value for step, value in found)
    record = run.last_record
    assert record == whole.last_record
    # Composites and single images in turn, four rows on each rank, and what was read in vain.
    assert record["data/samples"] == run.ranks * STEPS // 2 * (4 * 2 + 4) + record["data/broken"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_killed_and_resumed(start: Callable[[int, int], Run], unbroken: Run, workers: int) -> None:
    assert unbroken.last_record["data/broken"] >= 3  # counted through the kill as well
    assert_continues(start(workers, 1), unbroken)


def test_two_ranks_killed_and_resumed(start: Callable[[int, int], Run], unbroken: Run) -> None:
    whole = start(0, 2)
    # Two ranks have half the steps an epoch, so the same number of steps takes more epochs.
    whole.words.append("train.epochs=4")
    whole.words.remove("train.epochs=2")
    whole.finish()
    first, second = (dict(whole.hashes(rank)) for rank in (0, 1))
    assert not set(first.values()) & set(second.values())
    run = start(1, 2)
    run.words = [*whole.words[:-2], "data.workers=1", "train.epochs=4"]
    assert_continues(run, whole)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of few cores
def test_a_hundred_random_steps(
    settings: Callable[..., Config], words: list[str], tiny: Path
) -> None:
    clip = models.create(str(tiny))
    config = settings(*(w for w in words if not w.startswith(("model", "train.run_name"))))

    def builder() -> Any:
        return make_builder(config, make_sources(config), clip)

    with watchdog(forked.HANG):
        unbroken = builder()
        whole = [logged_train.digest(unbroken.build(step)) for step in range(150)]
        assert len(set(whole)) == 150
        used = builder()
        for step in np.random.default_rng(0).integers(0, 150, size=100).tolist():
            assert logged_train.digest(used.build(step)) == whole[step]
        for workers, first in ((0, 139), (2, 57), (3, 101)):
            batches = make_loader(builder(), first, first + 7, workers, pin_memory=False)
            assert [logged_train.digest(batch) for batch in batches] == whole[first : first + 7]
