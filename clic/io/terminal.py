"""Shows what a command is doing: progress bars on stderr, lines on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


@contextmanager
def progress_bars(show: bool = True, in_bytes: bool = False) -> Iterator[Progress]:
    """Draw rich's progress bars on stderr while the block runs, if stderr is a terminal.

    Args:
        show: Whether to draw them.
        in_bytes: Show sizes and a transfer speed instead of counts.
    """
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [progress.MofNCompleteColumn()]
    if in_bytes:
        columns = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    columns[:0] = [progress.TextColumn("{task.description}"), progress.BarColumn()]
    columns.append(progress.TimeRemainingColumn())
    hidden = not (show and console.is_terminal)
    with progress.Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        yield bars


@contextmanager
def progress_bar(
    title: str, total: int | None, *, done: int = 0, show: bool = True, in_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """Draw one bar as `progress_bars` does, and yield a function that advances it.

    Args:
        title: What is being done.
        total: Number of items, or bytes, None if unknown.
        done: Number of those that are already done.
        show: Whether to draw the bar.
        in_bytes: Count bytes.
    """
    with progress_bars(show, in_bytes) as bars:
        task = bars.add_task(title, total=total, completed=done)
        yield lambda count: bars.advance(task, count)


def say(line: str) -> None:
    """Print a line; if the reader of stdout (`| head`) has exited, continue without printing."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
