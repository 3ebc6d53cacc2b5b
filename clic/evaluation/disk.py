"""A data root on disk: room for what is to come, and one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clic.errors import DataError
from clic.locks import Lock, take_lock

SPARE = 1 << 28
"""Bytes of the disk that stay free."""


def check_room(needed: int, place: Path) -> None:
    """Raise `DataError` where a disk is too small for `needed` bytes more."""
    folder = place
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE > free:
        raise DataError(
            f"{place} needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left; "
            "make room, or name another folder with --data"
        )


@contextmanager
def no_empty_folders(places: Iterable[Path]) -> Iterator[None]:
    """Remove the folders of these places that the block makes and puts nothing into."""
    above = {folder for place in places for folder in (place, *place.parents)}
    new = [folder for folder in above if not folder.exists()]
    try:
        yield
    finally:
        for folder in sorted(new, key=lambda f: len(f.parts), reverse=True):
            with suppress(OSError):  # it is not there, holds something, or is a file
                folder.rmdir()


@contextmanager
def alone(data_root: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time put files below a data root; the others wait.

    Raises:
        DataError: It is no folder and cannot be made one.
    """
    try:
        data_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"no folder can be made at {data_root} ({error.strerror}); name another with --data"
        ) from error
    handle = os.open(data_root, os.O_RDONLY)
    try:
        if take_lock(handle, data_root, shared=False, wait=False) is Lock.HELD:
            say(f"{data_root}: waiting for another clic-data fetch")
            take_lock(handle, data_root, shared=False, wait=True)
        yield
    finally:
        os.close(handle)  # which gives the lock back
