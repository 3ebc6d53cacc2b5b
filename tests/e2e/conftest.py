"""The commands as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def command() -> Callable[..., str]:
    """Return what runs a command in a folder and gives what it printed."""

    def run(name: str, *words: str, cwd: Path) -> str:
        module = name.removeprefix("clic-")
        done = subprocess.run(
            [sys.executable, "-m", f"clic.cli.{module}", *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{name} {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
