"""The scripts answer a mistake with one line, and the table adds up."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash") or "bash"


def run(script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout with some variables changed."""
    return subprocess.run(
        [BASH, str(ROOT / "scripts" / script), *words],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    """scripts/shapes_table.py as a module."""
    path = ROOT / "scripts" / "shapes_table.py"
    spec = importlib.util.spec_from_file_location("shapes_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as when the script itself is run
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda p: p.name)
def test_bash_can_read_it(path: Path) -> None:
    subprocess.run([BASH, "-n", str(path)], check=True, timeout=60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_check_without_a_gpu() -> None:
    done = run("gpu_check.sh", CLIC_PYTHON=sys.executable)
    assert done.returncode == 2
    assert "no GPU" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_gpu_check_refuses_what_it_does_not_know() -> None:
    done = run("gpu_check.sh", "--fast")
    assert done.returncode == 2
    assert "--fast" in done.stderr


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.10"\nexit 1\n', "utf-8")
    old.chmod(0o755)
    done = run("demo.sh", CLIC_PYTHON=str(old))
    assert done.returncode == 2
    assert "Python 3.8.10" in done.stderr and ">= 3.10" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_environment_of_somebody_else_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    theirs = tmp_path / ".venv" / "pyvenv.cfg"
    theirs.parent.mkdir()
    theirs.write_text("uv = 0.9", "utf-8")
    command = 'set -euo pipefail; source "$0/scripts/environment.sh"; use_environment'
    done = subprocess.run(
        [BASH, "-c", command, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "was not made by this script" in done.stderr
    assert theirs.read_text("utf-8") == "uv = 0.9"


def test_table_finds_every_number(table: ModuleType) -> None:
    benchmarks = {"a": {"x": {"itt": 1, "n": 5}, "y": 2.5, "n_images": 7}, "b": {"name@1": 3}}
    assert dict(table.numbers(benchmarks)) == {"a/x/itt": 1.0, "a/y": 2.5, "b/name@1": 3.0}


def test_table_gives_mean_and_sample_deviation(table: ModuleType) -> None:
    job = table.Job("shapes", 0)
    three = [table.Result(job, {"m": value}, {}) for value in (1.0, 2.0, 6.0)]
    summary = table.summarise(three)
    assert summary["n"] == 3
    assert summary["measures"]["m"]["mean"] == 3.0
    assert summary["measures"]["m"]["std"] == pytest.approx(7**0.5)
    assert table.shapes_report.cell(summary["measures"]["m"]) == "3.0 ± 2.6"
    assert table.shapes_report.cell(table.summarise(three[:1])["measures"]["m"]) == "1.0"


def test_table_in_short_gives_the_largest_deviation(table: ModuleType) -> None:
    values = {"itt": (90.0, 1.0), "tot": (80.0, 3.0), "p1": (95.0, 2.0)}
    measures = {f"shapes++/c/{k}": {"mean": m, "std": s} for k, (m, s) in values.items()}
    assert table.shapes_report.triplet(measures, "c") == "90.0 / 80.0 / 95.0 (≤ ±3.0)"
    single = {path: {**measure, "std": None} for path, measure in measures.items()}
    assert table.shapes_report.triplet(single, "c") == "90.0 / 80.0 / 95.0"


def test_table_knows_what_decides_a_result(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "CHECKOUT", tmp_path)
    (tmp_path / "clic" / "cli").mkdir(parents=True)
    loop, command = tmp_path / "clic" / "training.py", tmp_path / "clic" / "cli" / "eval.py"

    def hashes(loop_text: str, command_text: str) -> tuple[str, str]:
        loop.write_text(loop_text, "utf-8")
        command.write_text(command_text, "utf-8")
        return table.hash_source(table.EVALUATION_ONLY), table.hash_source()

    first = hashes("x = 1", "y = 1")
    assert hashes("x  =  1  # a comment", "y = 1") == first
    assert hashes("x = 1", "y = 2")[0] == first[0], "training does not depend on the commands"
    assert hashes("x = 1", "y = 2")[1] != first[1]
    assert hashes("x = 2", "y = 1")[0] != first[0]


def test_an_interrupted_table_starts_no_further_job(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def interrupted(job: object, options: object, sources: object) -> None:
        started.append(job)
        time.sleep(0.2)

    def wait(futures: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "run_job", interrupted)
    monkeypatch.setattr(table, "wait", wait)
    monkeypatch.setattr(sys, "argv", ["shapes_table", "--runs", str(tmp_path)])
    assert table.main() == 130
    assert len(started) <= 1


def test_what_training_ignores_exists(table: ModuleType) -> None:
    for name in table.EVALUATION_ONLY:
        assert (ROOT / name).exists(), name
