"""Tars and their indexes: cut, broken, changed and missing ones are told."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clic.data import ShardSource, pack, write_index
from clic.data.shards.index import index_path
from clic.errors import DataError
from clic.types import Sample

Jpeg = Callable[..., bytes]
WriteTar = Callable[[Path, dict[str, bytes]], Path]
World = Callable[[int], list[Sample]]
Members = Callable[..., dict[str, bytes]]


def with_size(data: bytes, place: int, size: bytes) -> bytes:
    """Return a tar with another size in the header at a place, and its checksum."""
    head = bytearray(data[place : place + 512])
    head[124:136], head[148:156] = size, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:place] + bytes(head) + data[place + 512 :]


@pytest.mark.parametrize(
    "size", [b"\xff" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"77777777777\0", b"x" * 12]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_sizes_that_cannot_be(
    tmp_path: Path, size: bytes, kind: bytes, tar: WriteTar, members_with: Members
) -> None:
    """Negative ones, with which tarfile walked in circles once, and ones beyond any memory."""
    shard = tar(tmp_path / "x.tar", members_with())
    with tarfile.open(shard) as file:
        place = file.getmember("a.json").offset
    data = bytearray(shard.read_bytes())
    data[place + 156 : place + 157] = kind
    shard.write_bytes(with_size(bytes(data), place, size))
    with pytest.raises(DataError, match=r"x\.tar"):
        write_index(shard)


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "in/../../a.jpg"])
def test_names_that_lead_elsewhere_are_refused(
    tmp_path: Path, name: str, jpeg: Jpeg, tar: WriteTar
) -> None:
    shard = tar(tmp_path / "x.tar", {"a.jpg": jpeg(), "a.txt": b"x", name: jpeg()})
    with pytest.raises(DataError, match=r"x\.tar is refused: its entry .* leads out of the folder"):
        write_index(shard)
    assert not index_path(shard).exists()


def test_a_cut_tar_is_refused_wherever_it_is_cut(tmp_path: Path, world: World) -> None:
    (whole,) = pack(world(2), tmp_path / "whole")
    data = whole.read_bytes()
    with tarfile.open(whole) as file:
        end = file.getmembers()[-1]
        last = end.offset_data + 512 * -(-end.size // 512)
    for length in (0, 100, 512, 700, end.offset, end.offset + 100, end.offset_data + 3, last):
        shard = tmp_path / "cut.tar"
        shard.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut\.tar"):
            ShardSource(str(shard))


def test_a_broken_header_is_not_the_end(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(2), tmp_path)
    index_path(shard).unlink()
    with tarfile.open(shard) as file:
        offset = file.getmembers()[3].offset
    data = bytearray(shard.read_bytes())
    data[offset : offset + 512] = b"x" * 512
    shard.write_bytes(data)
    with pytest.raises(DataError, match=rf"broken at byte {offset}"):
        ShardSource(str(shard))


def test_no_tar_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_text("hello " * 1000)
    with pytest.raises(DataError, match=r"x\.tar cannot be read as a tar file"):
        ShardSource(str(path))


def test_a_tar_that_changed_after_it_was_indexed(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(2), tmp_path)
    shard.write_bytes(shard.read_bytes()[:-1024])
    with pytest.raises(DataError, match=rf"{shard} has changed since .*index --force"):
        ShardSource(str(tmp_path))


def test_a_tar_that_changed_and_kept_its_size(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(3), tmp_path)
    source = ShardSource(str(tmp_path))
    key = source.read(0).key
    with tarfile.open(shard) as file:
        offset = file.getmember(f"{key}.png").offset_data
    data = bytearray(shard.read_bytes())
    data[offset + 60] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=rf"{key}: .*has changed since"):
        source.read(0)
    assert len(ShardSource(str(tmp_path))) == 3  # the size is the same
    write_index(shard)
    assert ShardSource(str(tmp_path)).read(0)


def test_a_shard_that_vanishes_and_comes_back(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(2), tmp_path)
    source = ShardSource(str(tmp_path))
    shard.rename(tmp_path / "away")
    with pytest.raises(DataError, match=rf"{shard} is no longer there; put it back"):
        source.read(0)
    (tmp_path / "away").rename(shard)
    assert source.read(0).key


def test_shards_of_any_length_and_empty_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], jpeg: Jpeg, tar: WriteTar
) -> None:
    tar(tmp_path / "0.tar", {})
    for number, count in enumerate((1, 7, 20), 1):
        members = {}
        for i in range(count):
            members |= {f"{number}-{i}.jpg": jpeg(), f"{number}-{i}.txt": b"x"}
        tar(tmp_path / f"{number}.tar", members)
    tar(tmp_path / "4.tar", {})
    source = ShardSource(str(tmp_path))
    keys = [source.read(i).key for i in range(len(source))]
    assert keys == [f"{n}-{i}" for n, count in ((1, 1), (2, 7), (3, 20)) for i in range(count)]
    assert source.shard_counts() == [
        ("0.tar", 0), ("1.tar", 1), ("2.tar", 7), ("3.tar", 20), ("4.tar", 0),
    ]  # fmt: skip
    assert "0.tar is empty" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"data\.shards: the 2 shard\(s\) named hold no sample"):
        ShardSource(str(tmp_path / "{0,4}.tar"))


def test_a_broken_index(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(3), tmp_path)
    data = index_path(shard).read_bytes()
    flipped = bytearray(data)
    flipped[-5] ^= 1
    cut = [data[:length] for length in (0, 5, 13, 40, 700, len(data) - 1)]
    for content in (*cut, b"text", b"clic-columns\n[]\n", b"clic-columns\n\xff\n", bytes(flipped)):
        index_path(shard).write_bytes(content)
        with pytest.raises(DataError, match=rf"tar\.index .*run: .* index --force {tmp_path}"):
            ShardSource(str(tmp_path))


def test_an_index_of_another_version(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(1), tmp_path)
    path = index_path(shard)
    path.write_bytes(path.read_bytes().replace(b'"version": 2', b'"version": 1'))
    with pytest.raises(
        DataError,
        match=r"tar\.index was made by another version of clic; run: .* --force",
    ):
        ShardSource(str(tmp_path))


def test_a_missing_index_is_made(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(2), tmp_path)
    index_path(shard).unlink()
    assert len(ShardSource(str(tmp_path))) == 2
    assert index_path(shard).is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_index_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tar: WriteTar, members_with: Members
) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(13, "Permission denied")

    shard = tar(tmp_path / "x.tar", members_with())
    monkeypatch.setattr("clic.data.shards.index.os.replace", refuse)
    with pytest.raises(DataError, match=r"tar\.index cannot be written \(Permission denied\)"):
        write_index(shard)
