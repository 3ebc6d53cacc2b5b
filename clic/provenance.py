"""Where a result comes from: code, versions, machine and time."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from clic.errors import redact

PACKAGE = Path(__file__).resolve().parent
PACKAGES = ("clic", "torch", "open_clip_torch", "numpy", "pillow")


def _git(*words: str) -> str | None:
    call = ["git", "-C", str(PACKAGE), *words]
    try:
        result = subprocess.run(call, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def commit() -> str | None:
    """Return the commit of the running code, with `+changes` appended if files differ from it.

    It is None if the package is not in its own git checkout: an environment may be inside another
    project's checkout, whose commit says nothing about clic.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() / "clic" != PACKAGE:
        return None
    head = _git("rev-parse", "--verify", "HEAD")
    changed = head is not None and _git("status", "--porcelain", "--", "clic", "configs")
    return f"{head}+changes" if changed else head


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def code() -> dict[str, Any]:
    """Return commit, versions and platform."""
    return {"commit": commit(), "versions": versions(), "platform": platform.platform()}


def command() -> list[str]:
    """Return the command line without possible secrets."""
    return [str(redact(word)) for word in sys.argv]
