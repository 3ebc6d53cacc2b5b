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
    try:
        result = subprocess.run(
            ["git", "-C", str(PACKAGE), *words],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def commit() -> str | None:
    """Return the commit of the code that runs, `+changes` added where files differ from it.

    None where the package does not lie in a git checkout of its own.
    """
    top = _git("rev-parse", "--show-toplevel")
    # An environment may lie inside somebody else's checkout, whose commit says nothing of ours.
    if top is None or Path(top).resolve() / "clic" != PACKAGE:
        return None
    head = _git("rev-parse", "--verify", "HEAD")
    if head is None:
        return None
    return f"{head}+changes" if _git("status", "--porcelain", "--", "clic", "configs") else head


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that numbers depend on."""
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
    """Return the command line, without what may be secret in it."""
    return [str(redact(word)) for word in sys.argv]
