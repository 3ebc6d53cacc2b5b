"""Signs of life between the ranks of a run, so that losing one soon ends all of them.

A collective waits for a hanging rank until its timeout, which must be long because a rank may
evaluate or write for minutes. But even a busy process can run a thread: each rank has one that
writes a number into the ranks' shared store and checks the others' numbers.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

PERIOD = 2.0
"""Seconds between two signs of life."""
BEATS = 20
"""Checks in a row without a new sign after which a rank counts as lost: 40 s."""
BEATS_AFTER_ERROR = 4
"""The same after a collective has failed, when a dead rank is the likely reason."""
STORE = "rank 0, at whose store all ranks meet,"
LEFT = "left"
"""Sign of a rank that ended normally or reported its own error."""


class Silence:
    """Counts, for each of several ranks, the checks in a row that found its sign of life unchanged.

    Checks are counted, not seconds: if this process was suspended, a clock would count the pause
    against the other ranks.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        self._seen: dict[int, bytes | None] = dict.fromkeys(ranks)
        self.looks = dict.fromkeys(ranks, 0)

    def look(self, signs: dict[int, bytes]) -> None:
        """Record the current sign of each rank."""
        for rank, sign in signs.items():
            changed = sign != self._seen[rank] or sign == LEFT.encode()
            self.looks[rank] = 0 if changed else self.looks[rank] + 1
            self._seen[rank] = sign

    def lost(self, looks: int) -> list[int]:
        """Return the ranks whose sign has not changed in this many checks."""
        return [rank for rank, count in self.looks.items() if count >= looks]


class Heartbeat:
    """Threads that show that this rank is alive, and end the process when another one is lost.

    Rank 0 watches all ranks; the others watch rank 0, which tells them what it finds.

    Args:
        store: The ranks' shared store.
        group: Number of the process group, as ranks may form several, one after the other.
        rank: This process's rank.
        world: Number of ranks.
    """

    def __init__(self, store: Any, group: int, rank: int, world: int) -> None:
        # A separate connection, because a waiting main thread occupies the other one.
        self._store = store.clone() if hasattr(store, "clone") else store
        self._prefix, self.rank, self.world = f"clic/alive/{group}", rank, world
        self._failed = failed_key(group)
        self._watched = range(1, world) if rank == 0 else range(1)
        self._silence, self._ended = Silence(self._watched), threading.Event()
        self._place = f"rank {rank} ({socket.gethostname()}, process {os.getpid()})"
        self.failing = False
        self._found: str | None = None
        self._told = threading.Event()
        for name, value in ((str(rank), "0"), (f"{rank}/place", self._place)):
            self._store.set(f"{self._prefix}/{name}", value)
        self._looks = 0
        self._threads = [
            threading.Thread(target=target, name="heartbeat", daemon=True)
            for target in (self._ask, self._judge)
        ]

    def start(self) -> None:
        """Start the threads, once every rank has made its `Heartbeat` and so its first sign."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads, and tell the others that this rank is not lost."""
        self._ended.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(PERIOD * 2)
        if self._threads[0].is_alive():  # the store does not answer, so do not write to it
            return
        try:
            self._store.set(f"{self._prefix}/{self.rank}", LEFT)
        except RuntimeError:  # the store is gone, with rank 0
            return

    def wait_for_others(self) -> None:
        """On rank 0, wait until every other rank has left or shows no more signs of life.

        The store ends with rank 0, which would then look lost to a rank that is still working.
        """
        if self.rank:
            return
        silence = Silence(self._watched)
        keys = [f"{self._prefix}/{rank}" for rank in self._watched]
        while not self._ended.is_set():
            signs = dict(zip(self._watched, self._store.multi_get(keys), strict=True))
            silence.look(signs)
            here = {rank for rank, sign in signs.items() if sign != LEFT.encode()}
            if not here - set(silence.lost(BEATS)):
                return
            self._ended.wait(PERIOD / 10 if not any(silence.looks.values()) else PERIOD)

    def silent(self) -> list[int]:
        """Return the watched ranks that show no sign of life."""
        return self._silence.lost(self._limit)

    def reason(self) -> str | None:
        """Return which rank is lost after a collective has failed, or None if none is.

        A dead rank is usually found within a few checks. On a busy machine rank 0 may take longer
        to find it and tell the others, so None is returned only once a rank has reported its own
        error, or after the time for which a rank may be silent.
        """
        self.failing = True
        self._told.wait(PERIOD * (BEATS + 3))
        return self._found

    def _ask(self) -> None:
        """Check the others through the store until one of them is lost."""
        while self._found is None and not self._ended.wait(PERIOD):
            try:
                found = self._look(self._looks)
            except RuntimeError:  # the store is gone
                found = STORE
            if found is not None and not self._ended.is_set():
                self._found = f"{found} is lost"
            self._looks += 1

    def _judge(self) -> None:
        """End the process, or tell the main thread, once a rank is lost.

        If rank 0 is frozen, the store that it serves does not answer at all.
        """
        seen, unanswered = -1, 0
        while not self._ended.wait(PERIOD):
            unanswered = unanswered + 1 if seen == self._looks else 0
            seen = self._looks
            if self._found is None and unanswered >= self._limit:
                self._found = f"{STORE} is lost"
            if self._found is None:
                continue
            self._told.set()
            if not self.failing:
                self._end()
            return

    @property
    def _limit(self) -> int:
        return BEATS_AFTER_ERROR if self.failing else BEATS

    def _look(self, count: int) -> str | None:
        """Write this rank's sign and check the others'; return the description of a lost rank."""
        self._store.set(f"{self._prefix}/{self.rank}", str(count))
        told = f"{self._prefix}/lost"
        if self.rank and self._store.check([told]):
            return str(self._store.get(told).decode())
        if self.failing and self._store.check([self._failed]):
            self._told.set()
        keys = [f"{self._prefix}/{rank}" for rank in self._watched]
        self._silence.look(dict(zip(self._watched, self._store.multi_get(keys), strict=True)))
        lost = self._silence.lost(self._limit)
        if not lost:
            return None
        place = self._store.get(f"{self._prefix}/{lost[0]}/place").decode()
        self._store.set(told, place)
        return str(place)

    def _end(self) -> None:
        """End this process, whose main thread waits for the lost rank and cannot be interrupted.

        Rank 0, or rank 1 if it is lost, prints the error; rank 0 stays until the others know.
        """
        if self.rank == 0 or (self.rank == 1 and "rank 0" in str(self._found)):
            print(f"\nerror: {describe(str(self._found))}", file=sys.stderr, flush=True)
        if self.rank == 0:
            threading.Event().wait(PERIOD * 2)
        os._exit(1)


def failed_key(group: int) -> str:
    """Return the store's key under which the first rank of a group to fail puts its exit code."""
    return f"clic/failed/{group}"


def describe(found: str) -> str:
    """Return the message about a lost rank, from the result of `Heartbeat.reason`."""
    return (
        f"{found}: no sign of life from it; look at that process's own output and machine (it may "
        "have been killed for memory). The run has ended, and the same command continues it from "
        "the last checkpoint"
    )
