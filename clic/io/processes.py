"""Independent tasks on several processes, with a count of what is done and a way to stop."""

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
from typing import Any, Protocol, TypeVar

from clic.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")
POLL = 0.2  # seconds between two looks at the count


class StoppedError(Exception):
    """The task is asked to stop before it is done."""


class _Flag(Protocol):
    def is_set(self) -> bool: ...


class Ticker:
    """Counts the samples that a task has processed.

    Args:
        count: Called with how many.
        stop: Set when the work is to end.
    """

    def __init__(self, count: Callable[[int], None], stop: _Flag | None = None) -> None:
        self._count, self._stop = count, stop

    def __call__(self, samples: int = 1) -> None:
        """Count samples; raises `StoppedError` where the work is to end."""
        self._count(samples)
        if self._stop is not None and self._stop.is_set():
            raise StoppedError


def usable_cores() -> int:
    """Return how many CPU cores this process may use: on Linux, those a scheduler gave it."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def run_tasks(
    work: Callable[[Task, Ticker], Result],
    tasks: Sequence[Task],
    workers: int,
    progress: Callable[[int], None],
    module: str,
) -> Iterator[Result]:
    """Yield the result of every task, in the order in which they end.

    Args:
        work: Does one task; a function of a module, whose result can be pickled.
        tasks: What there is to do.
        workers: Processes; with 1 the work is done in this one.
        progress: Called with the number of samples since the last call.
        module: The module of `work`, imported once for all workers.

    Raises:
        DataError: A worker was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield work(task, Ticker(progress))
        return
    # Forked from a server that has no threads, after one import of what the tasks need.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    with _ignored_interrupts():
        ensure_running()
    # Workers asked for before the server has imported would start behind a Ctrl-C, to find nothing.
    ready = context.Process(target=_nothing)
    ready.start()
    ready.join()
    count, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _start, (count, stop))
    try:
        yield from _collect([pool.submit(_run, work, task) for task in tasks], count, progress)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, maybe for want of memory; the same command goes on from "
            "here, with fewer --workers it needs less"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _nothing() -> None:
    """Do nothing: the end of this process shows that the server is ready."""


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Let a process started here ignore Ctrl-C, which would find it amid its imports."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
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
    """End this process once its parent has ended, in whatever way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _run(work: Callable[[Task, Ticker], Result], task: Task) -> Result:
    assert _ticker is not None  # `_start` has made it
    return work(task, _ticker)
