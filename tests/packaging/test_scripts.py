"""The scripts answer a mistake with one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("code", [0, 3])
def test_a_long_installation_says_that_it_works(tmp_path: Path, code: int) -> None:
    """The stand-in for pip ends when its heartbeat has been heard."""
    stub = tmp_path / "python"
    stub.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '  *"pip install"*)\n'
        f'    until grep -q "still installing" "{tmp_path}/out"; do sleep 0.02; done\n'
        f"    exit {code};;\n"
        f"  *prefix*) echo {tmp_path};;\n"
        "esac\n",
        "utf-8",
    )
    stub.chmod(0o755)
    command = f'set -euo pipefail; source "{ROOT}/scripts/environment.sh"; use_environment'
    with open(tmp_path / "out", "wb") as out:
        environment = {**os.environ, "CLIC_PYTHON": str(stub), "HEARTBEAT": "0.05"}
        done = subprocess.run([BASH, "-c", command], stdout=out, env=environment, timeout=600)
    assert done.returncode == code
    assert "still installing (" in (tmp_path / "out").read_text("utf-8")
