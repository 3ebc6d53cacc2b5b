"""What a run says on stdout, to a reader who may leave before it ends."""

from __future__ import annotations

import os
import sys


def say(line: str) -> None:
    """Print a line; where stdout's reader (`| head`) has left, go on without one."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
