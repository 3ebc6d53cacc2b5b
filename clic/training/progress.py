"""One line on a terminal that shows a run's progress and speed."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDTH = 80
"""Maximum width in columns."""
PERIOD = 0.25
"""Seconds between two redraws of the line."""
BAR = 10
GAP = "  "


class ProgressLine:
    """Draws the line below what the run prints.

    It draws only when a step is reported: without its own thread, no loader process can be forked
    while it holds a lock.

    Args:
        start: The step from which the run continues.
        stop: The last step.
        epoch: Steps of an epoch, 0 if that is unknown.
        console: Where to draw.
    """

    def __init__(self, start: int, stop: int, epoch: int, console: Console) -> None:
        from rich.live import Live

        self.start, self.stop, self.epoch = start, stop, epoch
        self._done, self._begun, self._drawn = start, time.monotonic(), 0.0
        self._record: dict[str, Any] = {}
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=True)
        self._live.start()

    def step(self, done: int) -> None:
        """Report how many steps are done."""
        self._done = done
        now = time.monotonic()
        if now - self._drawn >= PERIOD or done == self.stop:
            self._draw(now)

    def record(self, record: Mapping[str, Any]) -> None:
        """Add the losses, the speed and the rest of a record."""
        self._record.update(record)
        self._draw(time.monotonic())

    def close(self) -> None:
        """Stop, and leave the last line where it is."""
        self._draw(time.monotonic())
        self._live.stop()

    def _draw(self, now: float) -> None:
        self._drawn = now
        seconds = now - self._begun
        width = min(self._console.width, WIDTH)
        self._live.update(self.line(seconds, width), refresh=True)

    def line(self, seconds: float, width: int = WIDTH) -> Text:
        """Return the line after some seconds; if it is too long, its least important parts go."""
        from rich.text import Text

        done, record = self._done, self._record
        digits = len(str(self.stop))
        parts: list[tuple[int, str, str]] = [  # drop order, highest first; style; text
            (0, "bold", f"{done:>{digits}}/{self.stop}"),
            (7, "cyan", _bar(done / max(self.stop, 1))),
        ]
        if self.epoch and self.stop > self.epoch:
            epochs = -(-self.stop // self.epoch)
            parts.append((4, "", f"epoch {min(done // self.epoch + 1, epochs)}/{epochs}"))
        for order, key, label in ((1, "loss", "loss"), (6, "composite/hard_negative", "hard")):
            if key in record:
                parts.append((order, "", f"{label} {record[key]:.4g}"))
        if "images_per_second" in record:
            parts.append((2, "green", f"{record['images_per_second']:,.0f} images/s"))
        if "data_wait" in record:
            style = "yellow" if record["data_wait"] > 0.1 else ""
            parts.append((3, style, f"data {record['data_wait']:.0%}"))
        parts.append((5, "", f"{record.get('peak_memory_gb') or resident_gb():.1f} GB"))
        if done > self.start:
            left = seconds / (done - self.start) * (self.stop - done)
            parts.append((1, "bold", f"{clock(left)} left"))
        while sum(len(text) + len(GAP) for _, _, text in parts) - len(GAP) > width:
            parts.remove(max(parts, key=lambda part: part[0]))
            if len(parts) == 1:
                break
        pieces: list[Any] = []
        for _, style, text in parts:
            pieces += [(text, style), GAP]
        return Text.assemble(*pieces[:-1], no_wrap=True, overflow="crop")


def make_line(start: int, stop: int, epoch: int) -> ProgressLine | None:
    """Return a line on stdout, or None if that is not a terminal."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console()
    draws = console.is_terminal and not console.is_dumb_terminal
    return ProgressLine(start, stop, epoch, console) if draws else None


def clock(seconds: float) -> str:
    """Return a time such as 0:42, 3:05:10 or 2d 3h."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def resident_gb() -> float:
    """Return this process's peak resident memory in GB."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held * (1 if sys.platform == "darwin" else 1024) / 1e9


def _bar(fraction: float) -> str:
    full = round(min(fraction, 1.0) * BAR)
    return "━" * full + "─" * (BAR - full)
