"""Hydra's submitit launcher on this machine: logs, exit codes, preemption, seeds in a table."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clic import runs
from clic.training.metrics_log import read

pytest.importorskip("submitit")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
pytestmark = pytest.mark.slow

WATCHDOG = 540
"""Seconds after which a process counts as hanging; nothing else is measured by them."""
LAUNCHER = ["-m", "hydra/launcher=submitit_local", "hydra.sweep.dir=sweep"]


def start(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clic.cli.train", *LAUNCHER, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def small(tiny_words: list[str]) -> list[str]:
    return [*tiny_words, "train.max_steps=6", "train.save_every=2", "train.run_name=s-${seed}"]


def test_seeds_as_jobs_with_a_table_and_their_logs(tmp_path: Path, tiny_words: list[str]) -> None:
    process = start(tmp_path, [*small(tiny_words), "seed=0,1"])
    output = process.communicate(timeout=WATCHDOG)[0]
    assert process.returncode == 0, output
    assert re.search(r"number +mean +deviation +seeds\nloss +\d[\d.]* +\d[\d.e-]* +2\n", output)
    for seed in (0, 1):
        run = tmp_path / "runs" / f"s-{seed}"
        assert runs.is_finished(run)
        (log,) = (run / "logs").glob("*_log.out")
        assert "step 6/6  loss" in log.read_text()


def test_the_exit_code_of_a_job_is_the_commands(tmp_path: Path, tiny_words: list[str]) -> None:
    words = [*small(tiny_words), "seed=0,1", "train.precision=fp16"]  # which the CPU cannot
    process = start(tmp_path, words)
    output = process.communicate(timeout=WATCHDOG)[0]
    assert process.returncode == 2, output
    assert "2 of 2 runs failed: seed=0: train.precision=fp16 needs a GPU" in output


def test_a_preempted_job_is_put_back_and_goes_on(tmp_path: Path, tiny_words: list[str]) -> None:
    words = [
        *small(tiny_words),
        "seed=0",
        "train.max_steps=40",
        "train.epochs=4",
        "train.save_every=1000",
    ]
    given = {word.split("=", 1)[0]: word for word in words}
    process = start(tmp_path, list(given.values()))
    metrics = tmp_path / "runs" / "s-0" / runs.METRICS_FILE
    deadline = time.monotonic() + WATCHDOG
    while process.poll() is None and not (metrics.is_file() and len(read(metrics)) >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (job,) = job_processes(tmp_path)
    os.kill(job, signal.SIGUSR2)  # as submitit has the cluster do
    output = process.communicate(timeout=WATCHDOG)[0]
    assert process.returncode == 0, output
    run = tmp_path / "runs" / "s-0"
    assert runs.is_finished(run)
    assert [record["step"] for record in read(metrics)] == list(range(1, 41))
    log = "".join(path.read_text() for path in sorted((run / "logs").glob("*_log.out")))
    # It saved a checkpoint when it was told, although none was due.
    begun = re.search(r"resuming runs/s-0 from step (\d+)", log)
    assert begun is not None and 3 <= int(begun[1]) < 40


def job_processes(folder: Path) -> list[int]:
    """Return the processes of submitit's jobs that run in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                here = Path(os.readlink(entry / "cwd")) == folder
            except OSError:
                continue
            if here and b"submitit.core._submit" in words:
                found.append(int(entry.name))
    return found
