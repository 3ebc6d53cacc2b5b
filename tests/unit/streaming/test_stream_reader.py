"""A file read from a server that drops, falls silent and lies."""

from __future__ import annotations

import io
import sys
import time
import types
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from clic.data.shards.locating import locate_shards
from clic.errors import DataError, UnavailableError
from clic.io import stream_reader
from clic.io.http_connection import RefusedError
from clic.io.stream_reader import StreamReader, within

DATA = bytes(range(256)) * 4000  # four chunks


def whole(url: str, patience: float = 20.0) -> bytes:
    reader = StreamReader(url, patience)
    try:
        return reader.read(1000) + reader.read()
    finally:
        reader.close()


def test_reads_are_as_long_as_asked_for(site: Any) -> None:
    site.files["/a"] = DATA
    reader = StreamReader(f"{site.url}/a", 20)
    assert [len(reader.read(n)) for n in (1, 0, 300_000, 5)] == [1, 0, 300_000, 5]
    assert reader.read(10**9) == DATA[300_006:] and reader.read(1) == b"" == reader.read()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_is_continued(site: Any, ranges: bool) -> None:
    site.files["/a"], site.drops, site.ranges = DATA, [300_000, 400_000], ranges
    site.drops += [] if ranges else [900_000]
    assert whole(f"{site.url}/a") == DATA
    assert site.requests[1] == ("/a", "bytes=300000-")


def test_without_a_validator_it_is_read_again_to_where_it_broke(site: Any) -> None:
    site.files["/a"], site.drops, site.validators = DATA, [300_000], {}
    assert whole(f"{site.url}/a") == DATA
    assert site.requests == [("/a", None), ("/a", None)]


def test_another_file_in_the_middle_is_refused(site: Any) -> None:
    site.files["/a"], site.drops = DATA, [900_000]
    reader = StreamReader(f"{site.url}/a", 20)
    reader.read(10)
    site.files["/a"] = DATA[1:]
    with pytest.raises(DataError, match=r"/a changed while it was read"):
        reader.read()


def test_a_server_that_is_busy_is_asked_again(site: Any) -> None:
    site.files["/a"], site.answers = DATA, [(503, {}), (429, {})]
    assert whole(f"{site.url}/a") == DATA


def test_a_file_that_is_not_there(site: Any) -> None:
    with pytest.raises(RefusedError, match="404"):
        whole(f"{site.url}/a")


def test_silence_ends_within_the_patience(site: Any) -> None:
    site.files["/a"], site.silent = DATA, {"/a"}
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="arrived in 1 seconds; the last connection: it bro"):
        whole(f"{site.url}/a", 1.0)
    assert time.monotonic() - begun < 10  # a watchdog, no timing


def test_a_server_that_only_drips_counts_as_silent(site: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream_reader, "CHUNK", 10**6)
    site.files["/a"], site.drops = DATA, [1] * 10_000
    with pytest.raises(UnavailableError, match=r"less than 976 KiB arrived in 0\.7 seconds"):
        whole(f"{site.url}/a", 0.7)


def test_a_silent_server_that_recovers(site: Any) -> None:
    site.files["/a"], site.stalls = DATA, [30.0]
    try:
        assert whole(f"{site.url}/a", 3.0) == DATA  # the connection gets a third of that
    finally:
        site.ended.set()


class Flaky(MemoryFileSystem):
    """A store whose reads fail as often as `failures` says."""

    protocol = "s3"
    cachable = False
    failures = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix(f"{cls.protocol}://").strip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"{self.protocol}://" + name.lstrip("/")

    def open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        file = super().open(path, mode, **more)
        if mode == "rb" and Flaky.failures:
            Flaky.failures -= 1
            return Dozing(file.getvalue()[:300_000])
        return file


class Dozing(io.BytesIO):
    """A file that falls asleep at its end."""

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        if not part:
            raise TimeoutError("the store dozes")
        return part


def test_an_object_store_is_continued_where_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", types.ModuleType("s3fs"))
    fsspec.register_implementation("s3", Flaky, clobber=True)
    Flaky().pipe_file("s3://bucket/a", DATA)
    Flaky.failures = 1
    assert whole("s3://bucket/a") == DATA
    assert Flaky.failures == 0
    with pytest.raises(RefusedError, match="s3://bucket/b cannot be read"):
        whole("s3://bucket/b")


def test_a_data_set_of_the_hub_is_listed_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flaky, "protocol", "hf")
    fsspec.register_implementation("hf", Flaky, clobber=True)
    for name in ("b.tar", "a.tar", "README.md"):
        Flaky().pipe_file(f"hf://datasets/org/name/{name}", DATA)
    shards = locate_shards("hf://datasets/org/name", "data.shards")
    assert shards == [f"hf://datasets/org/name/{name}.tar" for name in "ab"]
    assert locate_shards("hf://datasets/org/name/{a,b}.tar", "data.shards") == shards
    Flaky.failures = 1
    assert whole(str(shards[0])) == DATA


def test_work_that_takes_too_long() -> None:
    assert within(5, "x", lambda: 3) == 3
    with pytest.raises(UnavailableError, match=r"data.shards=s3://a: no answer within 0\.1 second"):
        within(0.1, "data.shards=s3://a", lambda: time.sleep(3))
    with pytest.raises(DataError, match="is no folder"):
        within(5, "x", lambda: (_ for _ in ()).throw(DataError("is no folder")))
