"""The order of shards, and the samples of a stream with all that can be wrong with them."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clic.data.streaming.sample_stream import (
    OrientationPool,
    SampleStream,
    ShardOrder,
    StreamSample,
    StreamSettings,
    captions_by_key,
)
from clic.errors import DataError, UnavailableError
from clic.types import Sample, Tally

WIDE, HIGH = (40, 30), (30, 40)
ALONE = (0, 1, 0, 1)


def stream(shards: list[Any], lane: tuple[int, int, int, int] = ALONE, **more: Any) -> SampleStream:
    order = ShardOrder(tuple(map(str, shards)), seed=3)
    settings = StreamSettings(order, more.pop("buffer", 4), more.pop("timeout", 20.0), **more)
    return SampleStream(settings, 0, lane)


# --- the order of shards ---


def test_every_pass_has_every_shard_once_and_its_own_order() -> None:
    order = ShardOrder(tuple("abcdefgh"), seed=0)
    first, second = list(islice(order.at(0), 8)), list(islice(order.at(8), 8))
    assert sorted(first) == sorted(second) == list("abcdefgh") and first != second
    assert list(islice(order.at(3), 13)) == [*first[3:], *second]
    assert list(islice(ShardOrder(order.shards, seed=1).at(0), 8)) != first


@pytest.mark.parametrize("count", [1, 3, 7])
def test_lanes_share_the_order_whatever_the_number_of_shards(count: int) -> None:
    order = ShardOrder(tuple(f"{n}" for n in range(count)), seed=0)
    lanes = [
        list(islice(order.lane(5, rank, 2, worker, 3), 4)) for worker in range(3) for rank in (0, 1)
    ]
    dealt = [lane[turn] for turn in range(4) for lane in lanes]
    assert dealt == list(islice(order.at(5), 24))


def test_with_replacement_some_come_twice() -> None:
    order = ShardOrder(tuple(f"{n}" for n in range(50)), seed=0, replacement=True)
    assert len(set(islice(order.at(0), 50))) < 45
    assert list(islice(order.at(60), 10)) == list(islice(order.at(0), 70))[60:]


# --- what is in them ---


def test_a_stream_gives_every_sample_once_a_pass(
    tmp_path: Path, tar_of: Callable[..., bytes]
) -> None:
    shards = []
    for n in range(3):
        samples = [(f"{n}-{k}", {"caption": f"a cat {k}"}, WIDE) for k in range(5)]
        shards.append(tmp_path / f"{n}.tar")
        shards[-1].write_bytes(tar_of(samples))
    found = stream(shards, buffer=1)
    keys = [next(found).sample.key for _ in range(30)]
    assert Counter(keys) == {f"{n}-{k}": 2 for n in range(3) for k in range(5)}
    mixed = [next(one).sample.key for one in [stream(shards, buffer=15)] for _ in range(15)]
    assert mixed != keys[:15]
    again = stream(shards, buffer=15)
    assert [next(again).sample.key for _ in range(15)] == mixed


def test_broken_samples_and_shards_are_counted(
    tmp_path: Path, tar_of: Callable[..., bytes]
) -> None:
    good = tar_of([(f"g{k}", {"caption": "a dog"}, WIDE) for k in range(3)])
    bad = tar_of([("a", {"caption": "a cat"}, WIDE), ("b", {"caption": " "}, WIDE),
                  ("c", {"caption": "a cat"}, None), ("d", {}, WIDE)])  # fmt: skip
    (tmp_path / "good.tar").write_bytes(good)
    (tmp_path / "bad.tar").write_bytes(bad)
    (tmp_path / "cut.tar").write_bytes(good[:5000])
    (tmp_path / "text.tar").write_bytes(b"<html>sign in</html>" * 100)
    (tmp_path / "doubled.tar").write_bytes(tar_of([("e", {"caption": "x"}, WIDE)] * 2))
    shards = sorted(tmp_path.glob("*.tar"))
    found = stream(shards, buffer=1)
    seen: list[str] = []
    while found.counts.tally.shards < 5:
        seen.append(next(found).sample.key)
    tally, faults = found.counts.take()
    whole = {"a", "e", "g0", "g1", "g2"}
    assert set(seen) == whole
    # b and d have no caption, c no image; e comes twice, and its second members are both left out.
    assert tally == Tally(samples=5, broken=5, shards=5, broken_shards=2)
    told = "\n".join(fault.reason for fault in faults)
    for words in ("bad.tar: b: it has no caption", "bad.tar: d: it has no caption", "bad.tar: c: ",
                  "e.jpg: duplicate file name", "shard given up: ", "cut.tar: unexpected end",
                  "text.tar: "):  # fmt: skip
        assert words in told, told
    assert found.counts.take() == (Tally(), ())


def test_three_shards_without_a_sample_end_the_run(
    tmp_path: Path, tar_of: Callable[..., bytes]
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([]))
    found = stream([tmp_path / "a.tar", tmp_path / "missing.tar"])
    with pytest.raises(UnavailableError, match=r"3 shards in a row gave no sample.*data\.timeout"):
        next(found)
    assert found.counts.tally.shards == 3


def test_a_hundred_broken_samples_end_the_run(tmp_path: Path, tar_of: Callable[..., bytes]) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(tar_of([(f"{n}", {"note": "none"}, WIDE) for n in range(100)]))
    with pytest.raises(DataError, match=r"100 samples in a row cannot be used.*99: it has no cap"):
        next(stream([shard]))


def test_a_silent_shard_is_given_up_and_the_next_one_read(
    site: Any, tar_of: Callable[..., bytes]
) -> None:
    # Larger than a chunk, so that the first half is known to arrive.
    big = [(f"b{k}", {"caption": "a dog", "pad": "x" * 400_000}, WIDE) for k in range(4)]
    site.files |= {"/a.tar": tar_of(big), "/b.tar": tar_of([("c", {"caption": "a cat"}, WIDE)])}
    site.silent = {"/a.tar"}
    found = stream([f"{site.url}/a.tar?token=secret", f"{site.url}/b.tar"], buffer=1, timeout=0.5)
    site.silent.add("/a.tar?token=secret")
    keys: set[str] = set()
    while "c" not in keys or not found.counts.tally.broken_shards:
        keys.add(next(found).sample.key)
    assert {"b0", "c"} <= keys and "b3" not in keys
    told = found.counts.faults[0].reason
    assert "/a.tar: less than 256 KiB arrived in 0.5 seconds" in told and "secret" not in told


def test_a_compressed_shard_is_streamed(site: Any, tar_of: Callable[..., bytes]) -> None:
    whole = tar_of([(f"{n}", {"caption": "a cat"}, WIDE) for n in range(4)])
    site.files["/a.tar.gz"] = gzip.compress(whole)
    found = stream([f"{site.url}/a.tar.gz"], buffer=1)
    assert sorted(next(found).sample.key for _ in range(4)) == ["0", "1", "2", "3"]


# --- captions ---


@pytest.mark.parametrize(
    ("record", "keys", "captions"),
    [
        ({"top_caption": " a dog ", "all_captions": ["a dog", "a cat"]}, ["top_caption"], "a dog"),
        ({"top_caption": "b", "all_captions": ["a", "b"]}, ["top_caption", "all_captions"], "b a"),
        ({"all_captions": "['one', \"two\"]"}, ["all_captions"], "one two"),
        ({"all_captions": '["one"]', "top_caption": None}, ["top_caption", "all_captions"], "one"),
        ({"x": [{"caption": "a"}, {"caption": "b"}]}, ["x"], "a b"),
        ({"x": "[not a list"}, ["x"], "[not_a_list"),
        ({"x": 3}, ["x"], ""),
    ],
)
def test_captions_by_key(record: dict[str, Any], keys: list[str], captions: str) -> None:
    found = [text.replace(" ", "_") for text in captions_by_key(record, keys)]
    assert [one.replace("a_dog", "a dog") for one in found] == (
        [captions] if captions == "a dog" else captions.split()
    )


def test_a_missing_key_names_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"none of data\.caption_key=top \(keys: caption, url\)"):
        captions_by_key({"caption": "a", "url": "b"}, ["top"])
    with pytest.raises(DataError, match="not valid Unicode"):
        captions_by_key({"caption": "\ud800"}, ["caption"])


# --- partners ---


def sample(number: int, landscape: bool) -> StreamSample:
    return StreamSample(number, Sample(f"{number}", b"", ("a",)), landscape)


def test_the_pool_draws_from_what_is_in_it() -> None:
    pool = OrientationPool()
    rng, there = np.random.default_rng(0), dict[int, StreamSample]()
    for number in range(300):
        one = sample(number, bool(rng.integers(2)))
        pool.add(one)
        there[number] = one
        if len(there) > 20:
            gone = there.pop(int(rng.choice(list(there))))
            pool.remove(gone)
        for landscape in (True, False):
            fitting = {n for n, s in there.items() if s.landscape == landscape}
            assert pool.count(landscape) == len(fitting)
            drawn = pool.draw(landscape, min(3, len(fitting)), rng)
            assert {s.number for s in drawn} <= fitting
            assert len({s.number for s in drawn}) == min(3, len(fitting))
    every = {s.number for _ in range(400) for s in pool.draw(True, 1, rng)}
    assert every == {n for n, s in there.items() if s.landscape}


def test_the_pool_holds_the_shuffle_buffer(tmp_path: Path, tar_of: Callable[..., bytes]) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(
        tar_of([(f"{n}", {"caption": "a cat"}, HIGH if n % 3 else WIDE) for n in range(30)])
    )
    found = stream([shard], buffer=12, pooled=True)
    for _ in range(40):
        one = next(found)
    assert found.pool.count(True) + found.pool.count(False) in (11, 12)
    for landscape in (True, False):
        inside = found.pool.draw(landscape, found.pool.count(landscape), found._rng)
        assert inside and all(s.landscape == landscape for s in inside)
        assert one.number not in {s.number for s in inside}
