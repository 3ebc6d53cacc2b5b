"""scripts/slurm/train.sbatch with stand-ins for the cluster's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/slurm/train.sbatch"
SRUN = """#!/bin/bash
echo "srun $*" >> "$CALLS"
touch "$CALLS.started"
while [ -e "$CALLS.waits" ]; do sleep 0.05; done
exit "$(cat "$CALLS.code")"
"""
CALL = '#!/bin/bash\necho "$(basename "$0") $*" >> "$CALLS"\n'
PATIENCE = 60


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Return the file in which the stand-ins write how they are called."""
    (tmp_path / "bin").mkdir()
    hosts = '[ "$1" = show ] && echo first-host\n'
    for name, text in (
        ("srun", SRUN),
        ("scontrol", CALL + hosts),
        ("scancel", CALL + 'rm "$CALLS.waits"\n'),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    return tmp_path / "calls"


def start(calls: Path, code: int) -> subprocess.Popen[str]:
    Path(f"{calls}.code").write_text(str(code))
    folder = calls.parent
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls),
        "CLIC_VENV": str(folder / "venv"), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "first-host",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4",
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", str(SCRIPT), "+experiment=vitb32", "data.shards=/a b"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("code", [0, 2, 137])
def test_its_exit_code_is_that_of_the_training(calls: Path, code: int) -> None:
    process = start(calls, code)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    said = calls.read_text()
    assert "--nnodes=2 --nproc-per-node=4" in said and "--rdzv-endpoint=first-host:29500" in said
    assert said.rstrip().endswith("-m clic.cli.train +experiment=vitb32 data.shards=/a b")
    assert "requeue" not in said.replace("--requeue", "")


@pytest.mark.parametrize(("code", "requeued"), [(130, True), (0, False)])
def test_a_warning_of_the_cluster_stops_the_run_and_requeues_it(
    calls: Path, code: int, requeued: bool
) -> None:
    Path(f"{calls}.waits").touch()
    process = start(calls, code)
    deadline = time.monotonic() + PATIENCE
    while not Path(f"{calls}.started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGUSR1)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    said = calls.read_text()
    assert "scancel --signal=TERM 7.0" in said
    assert ("scontrol requeue 7" in said) == requeued == ("requeued" in output)
