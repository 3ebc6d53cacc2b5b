"""Signs of life: what counts as lost, and what each rank hears, with a store in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from clic import heartbeat
from clic.heartbeat import LEFT, Heartbeat, Silence, describe

WAIT = 60
"""Seconds after which a thread counts as hanging; nothing else is measured by them."""


class Store:
    """What the ranks share; `answers` is cleared where its server is frozen."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.answers, self.gone = threading.Event(), False
        self.answers.set()

    def set(self, key: str, value: str) -> None:
        if self.gone:
            raise RuntimeError("Connection reset by peer")
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        self.answers.wait(WAIT)
        return self.values[key]

    def check(self, keys: Sequence[str]) -> bool:
        self.answers.wait(WAIT)
        return all(key in self.values for key in keys)

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        return [self.get(key) for key in keys]


class Watched(Heartbeat):
    """A rank that says that it would end instead of doing it."""

    def __init__(self, store: Store, rank: int, world: int = 3) -> None:
        super().__init__(store, 1, rank, world)
        self.ended = threading.Event()

    def _end(self) -> None:
        self.ended.set()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(heartbeat, "PERIOD", 0.005)
    yield


def test_silence_is_counted_in_looks() -> None:
    silence = Silence([1, 2, 3])
    for sign in (b"0", b"1", b"2", b"3"):
        silence.look({1: sign, 2: b"0", 3: LEFT.encode()})
    assert silence.looks == {1: 0, 2: 3, 3: 0}
    assert silence.lost(3) == [2] and silence.lost(4) == []


def test_a_silent_rank_is_named_to_all() -> None:
    store = Store()
    ranks = [Watched(store, rank) for rank in range(3)]
    ranks[0].start()  # rank 2 has shown its first sign, and never shows another
    ranks[1].start()
    assert all(rank.ended.wait(WAIT) for rank in ranks[:2])
    assert ranks[0]._found == ranks[1]._found
    assert str(ranks[0]._found).startswith("rank 2 (") and "process" in str(ranks[0]._found)


def test_ranks_that_leave_are_not_lost() -> None:
    store = Store()
    ranks = [Watched(store, rank) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks[1:]:
        rank.stop()
    seen = ranks[0]._looks
    while ranks[0]._looks < seen + 3 * heartbeat.BEATS:
        assert not ranks[0].ended.wait(0.001)
    ranks[0].stop()
    assert [rank._found for rank in ranks] == [None] * 3


def test_rank_0_stays_until_the_others_have_left() -> None:
    """The store would go with it, and a rank at work would take it for lost."""
    store = Store()
    ranks = [Watched(store, rank) for rank in range(3)]
    for rank in ranks:
        rank.start()
    leaving = threading.Thread(target=ranks[0].wait_for_others)
    leaving.start()
    ranks[1].stop()
    seen = ranks[2]._looks
    while ranks[2]._looks < seen + 10:
        assert leaving.is_alive()
    ranks[2].stop()
    leaving.join(WAIT)
    assert not leaving.is_alive()
    ranks[0].stop()


def test_rank_0_does_not_wait_for_a_silent_rank() -> None:
    store = Store()
    Watched(store, 1, 2)  # shows its first sign only
    Watched(store, 0, 2).wait_for_others()


@pytest.mark.parametrize("state", ["frozen", "gone"])
def test_a_store_that_does_not_answer_is_rank_0(state: str) -> None:
    store = Store()
    Watched(store, 0)
    rank = Watched(store, 1)
    if state == "frozen":
        store.answers.clear()
    else:
        store.gone = True
    rank.start()
    assert rank.ended.wait(WAIT)
    assert str(rank._found).startswith("rank 0, at whose store all ranks meet,")
    rank.stop()
    store.answers.set()


def test_after_an_error_the_main_thread_hears_it() -> None:
    store = Store()
    ranks = [Watched(store, rank, 2) for rank in range(2)]
    ranks[0].start()
    reason = None
    for _ in range(200):  # each waits for the little that a failed collective allows
        reason = reason or ranks[0].reason()
    assert str(reason).startswith("rank 1 (")
    assert not ranks[0].ended.is_set()  # it raises, and the process ends with a line


def test_the_message_says_what_to_do() -> None:
    text = describe("rank 3 (node7, process 12) is lost")
    assert text.startswith("rank 3 (node7, process 12) is lost: no sign of life")
    assert "the same command continues it" in text


def test_rank_0_does_not_wait_for_a_silent_rank_to_read_its_store() -> None:
    """Ranks that show signs or have left are waited for, after a collective has failed."""
    store = Store()
    watch, _, _, other = (Watched(store, rank, 4) for rank in range(4))
    watch.failing = True
    store.set("clic/alive/1/2", LEFT)
    for look in range(heartbeat.BEATS_AFTER_ERROR + 1):
        assert watch.silent() == []
        store.set("clic/alive/1/3", str(look))
        watch._look(look)
    assert watch.silent() == [1]
    assert other.silent() == []
