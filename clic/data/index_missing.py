"""Shards without an index: indexed once, whichever processes start together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clic.data.index import write_index
from clic.errors import DataError
from clic.locks import Lock, take_lock


def index_missing(missing: Sequence[tuple[Path, Path]]) -> None:
    """Index shards, each a tar and its index to be; those that other processes are at come last."""
    if not missing:
        return
    # Ranks that start together begin at different shards.
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    turn = rank * len(missing) // ranks
    if rank == 0:
        print(
            f"shards without an index: {len(missing)}; they are indexed now (clic-data index does "
            "it with several processes)",
            file=sys.stderr,
        )
    busy = []

    def index(pair: tuple[Path, Path]) -> None:
        if not ensure_index(*pair, wait=False):
            busy.append(pair)

    with_progress("index", [*missing[turn:], *missing[:turn]], index)
    for pair in busy:
        ensure_index(*pair, wait=True)


def ensure_index(shard: Path, target: Path, wait: bool) -> bool:
    """Index a shard that has no index, unless another process is doing so.

    The kernel drops a process's claim with the process, so a killed one leaves none behind.

    Args:
        shard: The tar.
        target: Its index.
        wait: Whether to wait for the other process (and do its work, if it dies).

    Returns:
        Whether there is an index now.

    Raises:
        DataError: As `write_index`.
    """
    if target.exists():
        return True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _nowhere(shard, target, error) from error
    if not os.access(target.parent, os.W_OK):
        raise _nowhere(shard, target, PermissionError(None, "it may not be written"))
    try:
        with open(shard, "rb") as file:
            if take_lock(file, shard, shared=False, wait=wait) is Lock.HELD:
                return False
            if not target.exists():  # who had the claim may have written it
                write_index(shard, target)
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}); mend or remove it") from error
    return True


def _nowhere(shard: Path, target: Path, error: OSError) -> DataError:
    return DataError(
        f"there is no place for the index of {shard}: neither beside it nor in the cache, "
        f"{target.parent} ({error.strerror}); set data.cache_dir or CLIC_CACHE to a folder that "
        "can be written"
    )


def with_progress(
    title: str,
    items: Sequence[Any],
    work: Callable[[Any], object],
    threads: int = 1,
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Do some work for each item, with a bar on a terminal.

    Args:
        title: What is done.
        items: What it is done for.
        work: Does it.
        threads: How many at a time.
        stop: Called at Ctrl-C or a failure, to end what the other threads are at.
    """
    from rich.console import Console
    from rich.progress import track

    quiet = not sys.stderr.isatty()
    console = Console(stderr=True)
    pool = ThreadPoolExecutor(threads)
    try:
        results = pool.map(work, items) if threads > 1 else map(work, items)
        for _ in track(
            results, title, total=len(items), disable=quiet, console=console, transient=True
        ):
            pass
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
