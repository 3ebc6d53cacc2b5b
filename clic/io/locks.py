"""Locks between processes, which the kernel drops with the process: a killed one leaves none.

`filelock` does not serve here: it locks files of its own (a shard is locked itself, shared by its
readers, so that it can be told from one that nobody reads), falls back for ENOSYS alone, and its
fallback is a file that outlives a kill, which would keep a preempted run from being continued.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from enum import Enum
from pathlib import Path
from typing import IO


class Lock(Enum):
    """What came of asking for a lock."""

    TAKEN = "this process has it until it closes the file"
    HELD = "another process has it"
    UNSUPPORTED = "the disk has no locks, so nobody knows; a warning has said so"


_said: set[int] = set()
"""Devices without locks that a warning has named."""


def take_lock(file: IO[bytes] | IO[str] | int, path: Path, *, shared: bool, wait: bool) -> Lock:
    """Ask for the lock of an open file, which closing the file gives back.

    Many network disks have no locks (ENOSYS, EOPNOTSUPP, ENOLCK), or none for a file that is open
    for reading (EBADF). The work goes on there, and a warning says what is not kept apart.

    Args:
        file: The file, or its descriptor.
        path: Its name, for the warning.
        shared: Whether others may have it at the same time, as shared too.
        wait: Whether to wait while another process has it; without, that is `Lock.HELD`.
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
    """Open a file that is there to be locked, and make it where it is not there."""
    try:
        return open(path, "ab")
    except PermissionError:
        return open(path, "rb")  # another user's, which can be locked all the same
