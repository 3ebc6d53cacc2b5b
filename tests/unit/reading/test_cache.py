"""Remote shards: cached whole, fetched again, evicted, never half there."""

from __future__ import annotations

import errno
import fcntl
import io
import multiprocessing
import os
import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clic.data import ShardSource, pack, write_index
from clic.data.shards.index import index_path
from clic.data.shards.shard_cache import ShardCache, cache_folder
from clic.errors import DataError
from clic.types import Sample

COUNT = 4


def shard_bytes(folder: Path, name: str) -> tuple[bytes, bytes]:
    """Return a shard of four samples of about 3 kB, and its index."""
    samples = []
    for i in range(COUNT):
        pixels = np.random.default_rng([ord(name), i]).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        samples.append(Sample(f"{name}{i}", buffer.getvalue(), (f"{name} {i}",)))
    (shard,) = pack(samples, folder / name)
    return shard.read_bytes(), index_path(shard).read_bytes()


@pytest.fixture
def served(site: Any, tmp_path: Path) -> Any:
    """Return a site with the shards a, b and c, of equal size, without indexes."""
    for name in "abc":
        site.files[f"/{name}.tar"], _ = shard_bytes(tmp_path / "made", name)
    return site


def opened(site: Any, tmp_path: Path, names: str = "{a,b,c}", gb: float = 1.0) -> ShardSource:
    return ShardSource(f"{site.url}/{names}.tar", cache_dir=str(tmp_path / "cache"), cache_gb=gb)


def cached(tmp_path: Path) -> set[str]:
    return {path.name.split("-")[1] for path in (tmp_path / "cache/shards").glob("*.tar")}


def captions(source: ShardSource) -> list[str]:
    return [source.read(i).captions[0] for i in range(len(source))]


EXPECTED = [f"{name} {i}" for name in "abc" for i in range(COUNT)]


def test_shards_are_fetched_once_and_indexed(served: Any, tmp_path: Path) -> None:
    source = opened(served, tmp_path)
    assert captions(source) == EXPECTED
    asked = [path for path, _ in served.requests]
    assert sorted(asked) == sorted(f"/{n}.tar{s}" for n in "abc" for s in ("", ".index"))
    served.requests.clear()
    assert captions(opened(served, tmp_path)) == EXPECTED
    assert served.requests == []


def test_an_index_beside_the_shard_saves_fetching_it(served: Any, tmp_path: Path) -> None:
    for name in "abc":
        served.files[f"/{name}.tar.index"] = shard_bytes(tmp_path / "again", name)[1]
    source = opened(served, tmp_path)
    assert len(source) == 12 and cached(tmp_path) == set()
    assert source.read(5).captions == ("b 1",)
    assert cached(tmp_path) == {"b.tar"}


@pytest.mark.parametrize("content", [b"<html>not here</html>", b"clic-columns\n{}\n"])
def test_something_else_of_that_name_is_no_index(
    served: Any, tmp_path: Path, content: bytes
) -> None:
    served.files["/a.tar.index"] = content
    assert captions(opened(served, tmp_path, "a")) == EXPECTED[:4]


def test_a_shard_that_left_the_cache_is_fetched_again(served: Any, tmp_path: Path) -> None:
    source = opened(served, tmp_path)
    shutil.rmtree(tmp_path / "cache" / "shards")
    assert captions(source) == EXPECTED


def test_a_connection_that_drops_in_the_middle(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.io.download.BACKOFF", 0.001)
    source = opened(served, tmp_path, "a")
    source.paths[0].unlink()
    served.drops = [700, 2000, 1]
    served.requests.clear()
    assert captions(source) == EXPECTED[:4]
    assert [asked for _, asked in served.requests] == [
        None, "bytes=700-", "bytes=2700-", "bytes=2701-",
    ]  # fmt: skip


def test_a_server_that_is_gone_is_told(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.io.download.BACKOFF", 0.001)
    source = opened(served, tmp_path, "a")
    source.paths[0].unlink()
    served.answers = [(503, {})] * 6
    with pytest.raises(DataError, match=r"a\.tar cannot be fetched .*503"):
        source.read(0)
    assert source.read(0).captions == ("a 0",)  # and when it is back, the run goes on


def test_a_cache_that_cannot_be_is_told(served: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cache/shards cannot be used .*data\.cache_dir"):
        opened(served, tmp_path, "a")


def test_another_shard_under_the_same_address(served: Any, tmp_path: Path) -> None:
    source = opened(served, tmp_path, "a")
    source.paths[0].unlink()
    served.files["/a.tar"] = served.files["/b.tar"]
    with pytest.raises(DataError, match=r"a0: .*a\.tar has changed since it was indexed"):
        source.read(0)


def test_the_oldest_make_room(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = len(served.files["/a.tar"])
    source = opened(served, tmp_path, gb=2.5 * size / 1e9)
    assert "more than data.cache_gb=" in capsys.readouterr().err
    for path in source.paths:
        path.unlink(missing_ok=True)
    for index, kept in ((0, "a"), (4, "ab"), (1, "ab"), (8, "ac"), (4, "bc"), (8, "bc")):
        assert source.read(index).captions == (EXPECTED[index],)
        assert cached(tmp_path) == {f"{name}.tar" for name in kept}


@pytest.mark.parametrize("looks", [1, 2])
def test_what_was_in_the_way_may_be_gone_at_the_second_look(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread's file went between the look for room and the look at who holds it."""
    monkeypatch.setattr("clic.data.shards.shard_cache.POLL", 0.001)
    cache = ShardCache(tmp_path, 100)
    answers = iter(["in use"] * looks + [""])
    monkeypatch.setattr(cache, "_try_reserve", lambda need, path: next(answers))
    if looks == 1:
        cache.reserve(10, tmp_path / "a.tar")
        return
    with pytest.raises(DataError, match="in use"):
        cache.reserve(10, tmp_path / "a.tar")


def test_a_shard_in_use_stays(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clic.data.shards.shard_cache.PATIENCE", 0.2)
    size = len(served.files["/a.tar"])
    opened(served, tmp_path)  # for the indexes
    shutil.rmtree(tmp_path / "cache" / "shards")
    cache = ShardCache(tmp_path / "cache", int(1.5 * size))
    with cache.open(f"{served.url}/a.tar") as file:
        with (
            pytest.raises(DataError, match=r"the shards in use fill data\.cache_gb"),
            cache.open(f"{served.url}/b.tar"),
        ):
            pass
        assert len(file.read()) == size
        assert cached(tmp_path) == {"a.tar"}
    with cache.open(f"{served.url}/b.tar"):
        assert cached(tmp_path) == {"b.tar"}
    assert not list((tmp_path / "cache/shards").glob("*.part*"))


def test_a_shard_larger_than_the_cache(served: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tar has .* GB, more than data\.cache_gb=1e-06; raise"):
        opened(served, tmp_path, "a", gb=1e-6)


def test_a_server_that_does_not_say_how_long_a_shard_is(served: Any, tmp_path: Path) -> None:
    served.lengths = False
    assert captions(opened(served, tmp_path)) == EXPECTED


def test_a_disk_that_is_nearly_full(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is made first; where that is not enough, the message says what to do."""
    monkeypatch.setattr("clic.data.shards.shard_cache.PATIENCE", 0.2)
    source = opened(served, tmp_path)
    size = len(served.files["/a.tar"])
    usage = namedtuple("usage", "total used free")

    def free(folder: Path) -> Any:
        taken = sum(path.stat().st_size for path in folder.glob("*.tar"))
        return usage(0, 0, int(room * size) - taken)

    source.paths[2].unlink()
    monkeypatch.setattr("clic.data.shards.shard_cache.shutil.disk_usage", free)
    room = 2.5
    assert source.read(8).captions == ("c 0",)
    assert len(cached(tmp_path)) == 2
    room = 0.5
    source.paths[2].unlink()
    with pytest.raises(DataError, match=r"c\.tar needs .* the disk is full; .*data\.cache_dir"):
        source.read(8)


def test_a_disk_that_fills_for_real(served: Any, tmp_path: Path) -> None:
    """A file system of one megabyte, where this may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=1m clic {disk} 2>/dev/null") != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        served.files["/big.tar"] = os.urandom(2 << 20)
        served.validators = {}
        with pytest.raises(DataError, match=r"big\.tar needs .* the disk is full"):
            ShardSource(f"{served.url}/big.tar", cache_dir=str(disk))
        served.lengths = False  # so that nobody can know beforehand
        with pytest.raises(DataError, match="the disk is full"):
            ShardSource(f"{served.url}/big.tar", cache_dir=str(disk))
        served.lengths = True  # what the download that was given up left, makes room for another
        assert captions(ShardSource(f"{served.url}/a.tar", cache_dir=str(disk))) == EXPECTED[:4]
    finally:
        os.system(f"umount {disk}")


def test_a_failure_ends_the_other_downloads(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they have is kept, and is continued by the next start."""
    monkeypatch.setattr("clic.io.download.CHUNK", 500)
    served.stalls = [1.0]
    del served.files["/a.tar"]
    with pytest.raises(DataError, match=r"/a\.tar: the server says 404"):
        opened(served, tmp_path, "{a,b}")
    assert cached(tmp_path) == set()
    served.files["/a.tar"] = served.files["/c.tar"]
    assert len(opened(served, tmp_path, "{a,b}")) == 8


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CLIC_CACHE", raising=False)
    assert cache_folder(None) == tmp_path / "clic"
    monkeypatch.setenv("CLIC_CACHE", "~/x")
    assert cache_folder(None) == Path.home() / "x"
    assert cache_folder("/y") == Path("/y")


def test_names_from_addresses_are_not_trusted(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1)
    for url in ("http://x/../../etc/passwd", "http://x/%2e%2e/a b.tar?key=../..", "http://x/"):
        path = cache.path(url)
        assert path.parent == cache.folder and path.suffix == ".tar"
        assert path.name.isascii() and " " not in path.name
    assert cache.path("http://x/a.tar?key=1") != cache.path("http://x/a.tar?key=2")


def test_several_threads_with_room_for_two(served: Any, tmp_path: Path) -> None:
    size = len(served.files["/a.tar"])
    source = opened(served, tmp_path, gb=2.5 * size / 1e9)
    wrong: list[object] = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 12, size=25).tolist():
            try:
                if source.read(index).captions != (EXPECTED[index],):
                    wrong.append(index)
            except DataError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def read_all(url: str, cache: str, gb: float, found: Any) -> None:
    """Read everything, as a rank does."""
    found.put(captions(ShardSource(url, cache_dir=cache, cache_gb=gb)))


def test_several_processes_start_at_once(served: Any, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    gb = 2.5 * len(served.files["/a.tar"]) / 1e9
    words = (f"{served.url}/{{a,b,c}}.tar", str(tmp_path / "cache"), gb, found)
    ranks = [context.Process(target=read_all, args=words, daemon=True) for _ in range(3)]
    for rank in ranks:
        rank.start()
    assert [found.get(timeout=600) for _ in ranks] == [EXPECTED] * 3
    for rank in ranks:
        rank.join(600)
        assert rank.exitcode == 0


# --- object stores -------------------------------------------------------------------------------


def test_an_object_store(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr("clic.data.shards.locating.SCHEMES", ("memory",))
    monkeypatch.setattr("clic.io.download.PACKAGES", {"memory": "fsspec"})
    system = fsspec.filesystem("memory")
    for name in "abc":
        system.pipe(f"/bucket/{name}.tar", served.files[f"/{name}.tar"])
    try:
        for shards in ("memory://bucket", "memory://bucket/{a,b,c}.tar"):
            source = ShardSource(shards, cache_dir=str(tmp_path / shards[-5:]))
            assert captions(source) == EXPECTED
        source.paths[0].unlink()
        system.rm("/bucket/a.tar")
        with pytest.raises(DataError, match=r"memory://bucket/a\.tar is not there"):
            source.read(0)
        with pytest.raises(DataError, match=r"no \.tar files in memory://empty"):
            ShardSource("memory://empty", cache_dir=str(tmp_path))
    finally:
        system.rm("/bucket", recursive=True)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clic.io.download.PACKAGES", {"s3": "no_such_package"})
    with pytest.raises(DataError, match=r"s3://b/a\.tar.* needs the package no_such_package; pip"):
        ShardSource("s3://b/a.tar", cache_dir=str(tmp_path))


def test_local_and_remote_shards_together(served: Any, tmp_path: Path) -> None:
    (local,) = (tmp_path / "made" / "b").glob("*.tar")
    source = ShardSource([str(local), f"{served.url}/a.tar"], cache_dir=str(tmp_path / "cache"))
    assert captions(source) == EXPECTED[4:8] + EXPECTED[:4]
    write_index(local)


# --- other users, disks without locks, wrong answers ----------------------------------------------


def test_a_web_page_in_place_of_a_shard_does_not_stay(served: Any, tmp_path: Path) -> None:
    whole = served.files["/a.tar"]
    served.files["/a.tar"] = b"<!DOCTYPE html><html>sign in</html>"
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.tar answers with a web page"):
            opened(served, tmp_path, "a")
        assert cached(tmp_path) == set()
    served.files["/a.tar"] = whole
    assert captions(opened(served, tmp_path, "a")) == EXPECTED[:4]


def test_a_web_page_that_an_earlier_version_kept_goes(served: Any, tmp_path: Path) -> None:
    source = opened(served, tmp_path, "a")
    source.paths[0].write_bytes(b"<html>sign in</html>")
    assert captions(opened(served, tmp_path, "a")) == EXPECTED[:4]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_a_shard_that_may_not_be_touched_is_used(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    opened(served, tmp_path)
    served.requests.clear()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, "not yours")

    monkeypatch.setattr(os, "utime", refuse)
    assert captions(opened(served, tmp_path)) == EXPECTED
    assert cached(tmp_path) == {"a.tar", "b.tar", "c.tar"} and not served.requests


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_shards_are_cached_and_evicted_on_a_disk_without_locks(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("clic.io.locks._said", set())
    folder = tmp_path / "cache" / "shards"
    folder.mkdir(parents=True)
    for name, age in (("0-x.tar.part", 0), ("0-y.tar.part", 10**4), ("0-z.tar.ab.part", 10**4)):
        (folder / name).write_bytes(b"half")
        past = time.time() - age
        os.utime(folder / name, (past, past))
    size = len(served.files["/a.tar"])
    with pytest.warns(UserWarning, match="cannot lock files"):
        assert captions(opened(served, tmp_path, gb=2.5 * size / 1e9)) == EXPECTED
    assert len(cached(tmp_path)) == 2
    # Another process may be at the one that was written to a moment ago.
    assert [path.name for path in folder.glob("*.part*")] == ["0-x.tar.part"]


@pytest.mark.parametrize("name", ["a.tar.part", "a.tar.1-2.part"])
def test_a_download_that_ends_while_room_is_made_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cache = ShardCache(tmp_path, limit=150)
    cache.folder.mkdir(parents=True)
    partial, shard = cache.folder / name, cache.folder / "a.tar"
    partial.write_bytes(b"x" * 100)
    listed = cache._others

    def then_rename(path: Path) -> list[Path]:
        found = listed(path)
        if partial.exists():
            partial.rename(shard)
        return found

    monkeypatch.setattr(cache, "_others", then_rename)
    cache.reserve(100, cache.folder / "b.tar")
    assert not shard.exists(), "200 bytes do not fit in 150"
