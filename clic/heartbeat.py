"""Signs of life between the ranks of a run, so that a rank that is lost ends all of them soon.

A collective waits for a rank that hangs until its timeout, which must be long because a rank may
have to evaluate or write for minutes. But a process that works still has threads: each rank's
writes a number into the store that the ranks share, and looks at the others'.
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
"""Looks in a row without a new sign after which a rank counts as lost: 40 s."""
BEATS_AFTER_ERROR = 4
"""The same once a collective has failed, when a dead rank is the likely reason."""
STORE = "rank 0, at whose store all ranks meet,"
LEFT = "left"
"""Sign of a rank that ended in an orderly way, or reported an error of its own."""


class Silence:
    """Counts for each of several ranks how often its sign of life was found unchanged.

    Looks are counted, not seconds: in a process that was stopped and goes on, time has passed for
    the others as well.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        self._seen: dict[int, bytes | None] = dict.fromkeys(ranks)
        self.looks = dict.fromkeys(ranks, 0)

    def look(self, signs: dict[int, bytes]) -> None:
        """Take in the current sign of each rank."""
        for rank, sign in signs.items():
            changed = sign != self._seen[rank] or sign == LEFT.encode()
            self.looks[rank] = 0 if changed else self.looks[rank] + 1
            self._seen[rank] = sign

    def lost(self, looks: int) -> list[int]:
        """Return the ranks whose sign has not changed in so many looks."""
        return [rank for rank, count in self.looks.items() if count >= looks]


class Heartbeat:
    """Threads that show that this rank lives, and end the process when another one does not.

    Rank 0 watches all ranks, and the others watch rank 0, which tells them what it finds.

    Args:
        store: The ranks' shared store.
        group: Number of the process group, as ranks may form several, one after the other.
        rank: This process's rank.
        world: Number of ranks.
    """

    def __init__(self, store: Any, group: int, rank: int, world: int) -> None:
        # A connection of its own, because a waiting main thread occupies the other one.
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
        """Begin; every rank must have been made before, so that its first sign is there."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, and let the others know that this rank has not been lost."""
        self._ended.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(PERIOD * 2)
        if self._threads[0].is_alive():  # the store does not answer, and would not now
            return
        try:
            self._store.set(f"{self._prefix}/{self.rank}", LEFT)
        except RuntimeError:  # the store has gone, with rank 0
            return

    def wait_for_others(self) -> None:
        """On rank 0, wait until every other rank has left, or shows no sign of life any more.

        The store ends with rank 0, which would then look lost to a rank that is still at work.
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
        """Return the ranks of those that this one watches that show no sign of life."""
        return self._silence.lost(self._limit)

    def reason(self) -> str | None:
        """Return which rank is lost after a collective has failed, or None if none is.

        A dead rank is mostly found within a few looks. On a busy machine rank 0 may take longer to
        find it and tell the others, so None is only returned once a rank has reported an error of
        its own, or after as long as a rank may be silent.
        """
        self.failing = True
        self._told.wait(PERIOD * (BEATS + 3))
        return self._found

    def _ask(self) -> None:
        """Look at the others through the store, until one of them is lost."""
        while self._found is None and not self._ended.wait(PERIOD):
            try:
                found = self._look(self._looks)
            except RuntimeError:  # the store has gone
                found = STORE
            if found is not None and not self._ended.is_set():
                self._found = f"{found} is lost"
            self._looks += 1

    def _judge(self) -> None:
        """End the process, or tell the main thread, once a rank is lost.

        Where rank 0 is frozen, the store that it serves does not answer at all.
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
        """Show a sign and look at the others'; return words for a rank that is lost."""
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
        """End this process, whose main thread waits for the lost rank where nothing can reach it.

        Rank 0 speaks, or where it is lost rank 1, and stays until the others have heard it.
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
