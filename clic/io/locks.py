"""Locks between processes; the kernel releases them when a process ends, even if it is killed.

`filelock` does not fit: it locks separate files, whereas here readers lock the shard itself, which
shows whether it is in use. It falls back only for ENOSYS, and to a file that survives a kill and
would keep a preempted run from being continued.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from enum import Enum
from pathlib import Path
from typing import IO


class Lock(Enum):
    """The outcome of trying to take a lock."""

    TAKEN = "this process holds it until it closes the file"
    HELD = "another process holds it"
    UNSUPPORTED = "the disk has no locks, so this is unknown; a warning was given"


_said: set[int] = set()
"""Devices without locks, for which a warning was given."""


def take_lock(file: IO[bytes] | IO[str] | int, path: Path, *, shared: bool, wait: bool) -> Lock:
    """Lock an open file; closing the file releases the lock.

    Many network disks have no locks (ENOSYS, EOPNOTSUPP, ENOLCK), or none for a file that is open
    for reading (EBADF). The work continues there, and a warning names the folder.

    Args:
        file: The file, or its descriptor.
        path: Its name, for the warning.
        shared: Whether others may hold a shared lock at the same time.
        wait: Whether to wait while another process holds it; otherwise the result is `Lock.HELD`.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, mode if wait else mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.HELD
    except OSError as error:
        _warn(file if isinstance(file, int) else file.fileno(), path, error)
        return Lock.UNSUPPORTED
    return Lock.TAKEN


def _warn(descriptor: int, path: Path, error: OSError) -> None:
    device = os.fstat(descriptor).st_dev
    if device not in _said:
        _said.add(device)
        warnings.warn(
            f"the disk of {path} cannot lock files ({error.strerror}), so processes that use "
            f"{path.parent} at the same time are not kept apart; let only one write there",
            stacklevel=3,
        )


def open_lock(path: Path) -> IO[bytes]:
    """Open a file that serves as a lock, and create it if it does not exist."""
    try:
        return open(path, "ab")
    except PermissionError:
        return open(path, "rb")  # another user's file can be locked, too
