"""Indexes: mapped and shared, rebuilt when something changed, made once by whoever comes first."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clic import shapes
from clic.data import Sampler, ShardSource, pack, write_index
from clic.data.shards.index import (
    index_counts,
    index_path,
    is_indexed,
    load_index,
    read_columns,
    read_header,
    save_index,
    write_columns,
)
from clic.data.shards.merged_index import ensure_index
from clic.errors import DataError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three shards of 3, 3 and 1 samples."""
    folder = tmp_path_factory.mktemp("shards")
    pack([shapes.sample("train", i, 2) for i in range(7)], folder, shard_size=3)
    return folder


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every source be a large one."""
    monkeypatch.setattr("clic.data.shards.merged_index.IN_MEMORY", 0)


def copy(folder: Path, to: Path, indexes: bool = True) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        if indexes or path.suffix == ".tar":
            (to / path.name).write_bytes(path.read_bytes())
    return to


def opened(folder: Path, tmp_path: Path) -> ShardSource:
    return ShardSource(str(folder), cache_dir=str(tmp_path / "cache"))


def merged(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "indexes").glob("*.merged"))


# --- the file format -----------------------------------------------------------------------------


def test_columns_come_back(tmp_path: Path) -> None:
    columns = {
        "a": np.arange(5, dtype="<u2"),
        "b": np.arange(12, dtype="<i8").reshape(4, 3),
        "empty": np.zeros(0, dtype="|u1"),
    }
    specs = {name: (c.dtype.str, c.shape) for name, c in columns.items()}
    header = {"long": "x" * 9000}
    with write_columns(tmp_path / "x", "test", 3, header, specs) as put:
        put("a", columns["a"])
        put("b", columns["b"][:1])
        put("b", columns["b"][1:], start=1)
    for as_mapped in (False, True):
        found, read = read_columns(tmp_path / "x", "test", 3, as_mapped)
        assert found["long"] == header["long"] and read.keys() == columns.keys()
        for name, column in columns.items():
            np.testing.assert_array_equal(read[name], column)
            assert read[name].dtype == column.dtype
    assert read_header(tmp_path / "x", "test", 3)["columns"]["b"][1] == [4, 3]
    for format, version, message in (
        ("other", 3, "not a clic other file"),
        ("test", 4, "another version"),
    ):
        with pytest.raises(DataError, match=message):
            read_columns(tmp_path / "x", format, version, mapped=False)


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with (
        pytest.raises(KeyboardInterrupt),
        write_columns(tmp_path / "x", "test", 1, {}, {"a": ("<u2", (5,))}),
    ):
        raise KeyboardInterrupt
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_what_an_index_says(shards: Path) -> None:
    shard = shards / "00000.tar"
    index = load_index(index_path(shard))
    assert (index.samples, index.left_out, index.broken) == (3, 0, {})
    assert index.shard_bytes == shard.stat().st_size
    assert index_counts(index_path(shard)) == (3, len(index.columns["keys"]), index.shard_bytes)
    sample = shapes.sample("train", 1, 2)
    key, end = sample.key.encode(), int(index.columns["key_ends"][1])
    assert index.columns["keys"][end - len(key) : end].tobytes() == key
    assert index.columns["sentences"][1] == len(sample.captions)
    with tarfile.open(shard) as file:
        image = file.getmember(f"{sample.key}.png")
    assert index.columns["blocks"][1][0] * 512 == image.offset_data
    assert index.columns["lengths"][1][0] == image.size


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("crcs", None),
        ("crcs", np.zeros(2, "<u4")),
        ("sizes", np.zeros((3, 2), "<i8")),
        ("blocks", np.zeros(9, "<u4")),
        ("key_ends", np.array([5, 4, 6], "<u4")),
        ("keys", np.zeros(1, "|u1")),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    shards: Path, tmp_path: Path, name: str, column: np.ndarray | None
) -> None:
    shard = copy(shards, tmp_path / "s") / "00000.tar"
    path = index_path(shard)
    index = load_index(path)
    columns = {**index.columns, name: column}
    kept = {key: value for key, value in columns.items() if value is not None}
    save_index(path, replace(index, columns=kept))  # its checksum is right
    with pytest.raises(DataError, match=r"is broken .*clic-data index --force"):
        load_index(path)
    assert not is_indexed(shard)


# --- the merged index ----------------------------------------------------------------------------


def test_a_large_source_is_mapped(shards: Path, tmp_path: Path, mapped: None) -> None:
    small = ShardSource(str(shards), cache_dir=str(tmp_path / "none"))  # patched: mapped as well
    large = opened(shards, tmp_path)
    for source in (small, large):
        assert len(source) == 7
        for i in range(7):
            expected = shapes.sample("train", i, 2)
            sample = source.read(i)
            assert (sample.key, sample.captions) == (expected.key, expected.captions)
        np.testing.assert_array_equal(source.sizes(), np.full((7, 2), 64))
        np.testing.assert_array_equal(source.aspects(), np.zeros(7))
    assert len(merged(tmp_path)) == 1
    base = large.sizes()
    while isinstance(base.base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap), "the columns are mapped, not copied"


def test_a_spawned_worker_gets_no_copy(shards: Path, tmp_path: Path, mapped: None) -> None:
    source = opened(shards, tmp_path)
    sent = pickle.dumps(source)
    assert len(sent) < 4000
    assert pickle.loads(sent).read(5).key == source.read(5).key
    merged(tmp_path)[0].unlink()
    with pytest.raises(DataError, match="was replaced in the meantime"):
        pickle.loads(sent)


def test_a_small_source_needs_no_cache(shards: Path, tmp_path: Path) -> None:
    source = opened(shards, tmp_path)
    assert not (tmp_path / "cache").exists()
    assert pickle.loads(pickle.dumps(source)).read(6).key == source.read(6).key


def test_an_unchanged_source_is_merged_once(
    shards: Path, tmp_path: Path, mapped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(shards, tmp_path)
    monkeypatch.setattr("clic.data.shards.merged_index._write", None)  # would fail
    opened(shards, tmp_path)


def test_what_changed_is_merged_anew(shards: Path, tmp_path: Path, mapped: None) -> None:
    mine = copy(shards, tmp_path / "mine")
    assert len(opened(mine, tmp_path)) == 7
    shard = mine / "00001.tar"
    shard.write_bytes((mine / "00002.tar").read_bytes())
    with pytest.raises(DataError, match=rf"{shard} has changed since it was indexed"):
        opened(mine, tmp_path)
    write_index(shard)
    assert len(opened(mine, tmp_path)) == 5
    assert len(merged(tmp_path)) == 1  # in the place of the older one
    shard.unlink()
    assert len(opened(mine, tmp_path)) == 4


def test_a_broken_merged_index_is_made_anew(shards: Path, tmp_path: Path, mapped: None) -> None:
    opened(shards, tmp_path)
    (path,) = merged(tmp_path)
    for content in (b"", b"junk", path.read_bytes()[:-300]):
        path.write_bytes(content)
        assert len(opened(shards, tmp_path)) == 7


def test_a_cache_that_cannot_be_written(shards: Path, tmp_path: Path, mapped: None) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written .*choose another data\.cache_dir"):
        opened(shards, tmp_path)


def test_shards_in_a_folder_that_cannot_be_written(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy(shards, tmp_path / "mine", indexes=False)
    monkeypatch.setattr("clic.data.shards.shard_source.os.access", lambda path, mode: path != mine)
    assert opened(mine, tmp_path).read(6).key == shapes.sample("train", 6, 2).key
    assert {path.suffix for path in mine.iterdir()} == {".tar"}
    kept = list((tmp_path / "cache" / "indexes").iterdir())
    assert sorted(path.name.split("-")[1] for path in kept) == [
        f"0000{i}.tar.index" for i in range(3)
    ]
    monkeypatch.setattr("clic.data.shards.merged_index.write_index", None)  # would fail
    assert len(opened(mine, tmp_path)) == 7


# --- several processes ---------------------------------------------------------------------------


def read_everything(folder: Path, tmp_path: Path, start: Any, found: Any) -> None:
    """Open a source and read it, as a rank does."""
    start.wait()
    source = opened(folder, tmp_path)
    found.put([source.read(i).key for i in range(len(source))])


def test_ranks_that_start_at_once_index_each_shard_once(
    shards: Path, tmp_path: Path, mapped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy(shards, tmp_path / "mine", indexes=False)
    log = tmp_path / "log"

    def logged(shard: Path, *words: Any) -> Path:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{shard.name}\n")
        time.sleep(0.05)
        return write_index(shard, *words)

    monkeypatch.setattr("clic.data.shards.merged_index.write_index", logged)
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    words = (mine, tmp_path, start, found)
    ranks = [context.Process(target=read_everything, args=words, daemon=True) for _ in range(4)]
    for rank in ranks:
        rank.start()
    start.set()
    expected = [shapes.sample("train", i, 2).key for i in range(7)]
    assert [found.get(timeout=600) for _ in ranks] == [expected] * 4
    for rank in ranks:
        rank.join(600)
    assert sorted(log.read_text().split()) == ["00000.tar", "00001.tar", "00002.tar"]
    assert not [path for path in mine.iterdir() if path.name.startswith(".")]


def hang_on(shard: Path, claimed: Any) -> None:
    """Claim a shard and never index it."""
    from clic.data.shards import merged_index

    def hang(shard: Path, target: Path) -> None:
        claimed.set()
        time.sleep(3600)

    merged_index.write_index = hang  # type: ignore[assignment]
    ensure_index(shard, index_path(shard), wait=True)


def test_the_claim_of_a_killed_process_is_free(shards: Path, tmp_path: Path) -> None:
    mine = copy(shards, tmp_path / "mine", indexes=False)
    context = multiprocessing.get_context("fork")
    claimed = context.Event()
    other = context.Process(target=hang_on, args=(mine / "00000.tar", claimed), daemon=True)
    other.start()
    assert claimed.wait(600)
    pair = (mine / "00000.tar", index_path(mine / "00000.tar"))
    assert not ensure_index(*pair, wait=False)
    os.kill(other.pid or 0, signal.SIGKILL)
    assert ensure_index(*pair, wait=True)
    assert load_index(pair[1]).samples == 3


# --- scale ---------------------------------------------------------------------------------------


def test_what_a_worker_holds_does_not_grow_with_the_samples(
    shards: Path, tmp_path: Path, mapped: None
) -> None:
    """Two million samples: neither source nor sampler sends or keeps a table of them."""
    count = 2_000_000
    wide = np.random.default_rng(0).random(count) < 0.5
    sampler = Sampler({"composite": wide, "single": wide}, "alternate", 100, seed=0)
    sampler.plan(0)
    sampler.plan(count // 100)  # the next epoch
    assert len(pickle.dumps(sampler)) < 1.4 * count  # a byte an image, and the orientations' bits
