"""Where the time of a run goes: the stages of a step, and the operators that take the longest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from clic.io.files import write_whole

T = TypeVar("T")

SKIPPED, MEASURED = 3, 10
"""Steps before the measurement, while caches fill up, and measured steps."""
OPERATORS = 12
WAITING, TO_DEVICE, FORWARD = "waiting for data", "batch to the device", "forward and loss"
BACKWARD, UPDATE, OTHER = "backward", "update", "log, save and the rest"
STAGES = (WAITING, TO_DEVICE, FORWARD, BACKWARD, UPDATE, OTHER)


class StepProfiler:
    """Measures some steps of a run, once the first ones are done.

    On a GPU it waits at the end of each stage until the GPU is done, so that the stage's time is
    its own; without profiling, stages overlap and a step is shorter than their sum.

    Args:
        device: The device that trains.
        folder: Where the table and the trace are written.
        tell: Called with the table.
    """

    def __init__(self, device: torch.device, folder: Path, tell: Callable[[str], None]) -> None:
        self.device, self.folder, self.tell = device, folder, tell
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._steps, self._begun = 0, 0.0
        self._turns: list[float] = []
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its own lines on stderr are noise
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile: Any = profile(
            activities=activities,
            schedule=schedule(wait=SKIPPED - 1, warmup=1, active=MEASURED, repeat=1),
        )
        self._profile.__enter__()
        self._open = True

    @property
    def measuring(self) -> bool:
        """Whether the current step is measured."""
        return self._open and SKIPPED <= self._steps < SKIPPED + MEASURED

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a block's time for a stage; after `turning`, for the backward pass."""
        if not self.measuring:
            yield
            return
        begun = self._now()
        self._turns.clear()
        with record_function(f"clic: {name}"):
            yield
        end = self._now()
        turn = self._turns[0] if self._turns else end
        self.seconds[name] += turn - begun
        self.seconds[BACKWARD] += end - turn

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; the time until each arrives counts for a stage."""
        source, nothing = iter(items), object()
        while True:
            with self.stage(WAITING):
                item: Any = next(source, nothing)
            if item is nothing:
                return
            yield item

    def turning(self, scale: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Wrap the function that scales a loss; calling it ends the forward pass."""

        def turned(loss: Tensor) -> Tensor:
            if self.measuring:
                self._turns.append(self._now())
            return scale(loss)

        return turned

    def end_step(self) -> None:
        """Count a step; after the last measured one, write and report the table."""
        if not self._open:
            return
        self._profile.step()
        self._steps += 1
        if self._steps == SKIPPED:
            self._begun = self._now()
        elif self._steps == SKIPPED + MEASURED:
            whole = self._now() - self._begun
            self.seconds[OTHER] = max(0.0, whole - sum(self.seconds.values()))
            self.close()
            self._write(whole)

    def close(self) -> None:
        """End the measurement, even if it is incomplete."""
        if self._open:
            self._open = False
            self._profile.__exit__(None, None, None)
            needed = SKIPPED + MEASURED
            if self._steps < needed:
                self.tell(
                    f"train.profile=true: no table, as {self._steps} of {needed} steps were made"
                )

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _write(self, whole: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self.folder / "trace.json.gz"))
        text = "\n".join([*self._stage_lines(whole), "", *self._operator_lines()])
        write_whole(self.folder / "profile.txt", text + "\n")
        self.tell(f"{text}\n{self.folder} has this table and a trace for chrome://tracing")

    def _stage_lines(self, whole: float) -> list[str]:
        first = SKIPPED + 1
        lines = [f"steps {first} to {SKIPPED + MEASURED} of this process, {MEASURED} steps"]
        lines.append(f"{'stage':<26}{'ms a step':>11}{'share':>8}")
        for name, seconds in self.seconds.items():
            share = seconds / whole if whole else 0.0
            lines.append(f"{name:<26}{1000 * seconds / MEASURED:>11.2f}{share:>8.1%}")
        lines.append(f"{'all':<26}{1000 * whole / MEASURED:>11.2f}{1:>8.1%}")
        return lines

    def _operator_lines(self) -> list[str]:
        """Return the operators with the most self time on the device that trains."""
        on_gpu = self.device.type == "cuda"
        kind = "device" if on_gpu else "cpu"
        events = [
            (getattr(event, f"self_{kind}_time_total") / 1000, event.count, event.key)
            for event in self._profile.key_averages()
            if not event.key.startswith(("clic: ", "ProfilerStep"))
        ]
        whole = sum(ms for ms, _, _ in events) or 1.0
        where = "GPU" if on_gpu else "CPU"
        lines = [f"{'operator, time of its own on the ' + where:<48}{'ms a step':>11}{'share':>8}"]
        for ms, _count, name in sorted(events, reverse=True)[:OPERATORS]:
            lines.append(f"{name[:47]:<48}{ms / MEASURED:>11.2f}{ms / whole:>8.1%}")
        return lines
