"""What the CPU supports, and tasks that run on its cores, report progress and can be stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from multiprocessing.forkserver import ensure_running
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

from clic.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")
EMULATED = "this CPU only emulates bf16 (no AVX-512 BF16, no AMX), several times slower than fp32"
POLL = 0.2  # seconds between two readings of the count


class StoppedError(Exception):
    """The task must stop before it is done."""


class Ticker:
    """Counts the samples that a task has processed.

    Args:
        count: Called with a number of samples.
        stop: An event that is set when the work must end.
    """

    def __init__(self, count: Callable[[int], None], stop: Event | None = None) -> None:
        self._count, self._stop = count, stop

    def __call__(self, samples: int = 1) -> None:
        """Count samples; raises `StoppedError` if the work must end."""
        self._count(samples)
        if self._stop is not None and self._stop.is_set():
            raise StoppedError


def usable_cores() -> int:
    """Return how many CPU cores this process may use: on Linux, those assigned by a scheduler."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def cpu_has_bf16(flags: str | None = None) -> bool | None:
    """Return whether the CPU supports bf16 natively, or None if that is unknown.

    If it does not, torch emulates bf16, several times slower than fp32.

    Args:
        flags: Flags of an x86 CPU, as Linux lists them; by default those of this machine.
    """
    if flags is None:
        try:
            flags = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        except OSError:
            return None
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return True
    return False if "avx2" in flags else None


def run_tasks(
    work: Callable[[Task, Ticker], Result],
    tasks: Sequence[Task],
    workers: int,
    progress: Callable[[int], None],
) -> Iterator[Result]:
    """Yield the result of every task, in the order in which they finish.

    Args:
        work: Does one task; a module-level function, or a `partial` of one, with a picklable
            result.
        tasks: The tasks.
        workers: Number of processes; with 1 the work is done in this one.
        progress: Called with the number of samples since the last call.

    Raises:
        DataError: A worker was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield work(task, Ticker(progress))
        return
    # Forked from a server that has no threads and has imported what the tasks need.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    with _ignored_interrupts():
        ensure_running()
    # Once a process has ended, the server has imported everything. Workers requested before that
    # would start even after a Ctrl-C, with nothing left to do.
    ready = context.Process(target=os.getpid)
    ready.start()
    ready.join()
    count, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _start, (count, stop))
    try:
        yield from _collect([pool.submit(_run, work, task) for task in tasks], count, progress)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, perhaps for lack of memory; the same command continues "
            "from here, and needs less with fewer --workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Make a process started in the block ignore Ctrl-C, which would interrupt its imports."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change signal handlers
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _collect(
    futures: list[Future[Result]], count: Any, progress: Callable[[int], None]
) -> Iterator[Result]:
    pending, seen = set(futures), 0
    while pending:
        done, pending = wait(pending, POLL, FIRST_COMPLETED)
        now = count.value
        progress(now - seen)
        seen = now
        for future in done:
            yield future.result()
    progress(count.value - seen)


_ticker: Ticker | None = None


def _start(count: Any, stop: Any) -> None:
    """Prepare a worker: it ignores Ctrl-C, which the main process handles, and ends with it."""
    global _ticker
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def add(samples: int) -> None:
        with count.get_lock():
            count.value += samples

    _ticker = Ticker(add, stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process once its parent has ended for any reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _run(work: Callable[[Task, Ticker], Result], task: Task) -> Result:
    assert _ticker is not None  # `_start` has made it
    return work(task, _ticker)
