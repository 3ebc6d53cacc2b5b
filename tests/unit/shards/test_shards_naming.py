"""Naming shards: folders, brace patterns, lists and addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clic.data import ShardSource, pack
from clic.data.shards.locating import find_shards, locate_shards
from clic.errors import DataError
from clic.types import Sample

World = Callable[[int], list[Sample]]


def test_ways_to_name_shards(tmp_path: Path, world: World) -> None:
    shards = pack(world(4), tmp_path, shard_size=1)
    assert find_shards(str(tmp_path), "s") == shards
    assert find_shards(str(tmp_path / "{00000..00002}.tar"), "s") == shards[:3]
    assert find_shards([str(shards[3]), str(shards[1])], "s") == [shards[3], shards[1]]
    assert find_shards(f"{shards[0]}", "s") == shards[:1]


def test_what_is_not_there(tmp_path: Path, world: World) -> None:
    pack(world(1), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data\.shards=.*no file or folder .*00001\.tar"):
        ShardSource(str(tmp_path / "{00000..00001}.tar"))
    with pytest.raises(DataError, match=r"data\.shards=.*no \.tar files in .*empty"):
        ShardSource(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"data\.single_shards=.*nowhere"):
        ShardSource(str(tmp_path / "nowhere"), "data.single_shards")


@pytest.mark.parametrize("name", ["http://x.org/a.tar", "s3://bucket/{0..1}.tar"])
def test_shards_that_are_not_on_disk(name: str) -> None:
    with pytest.raises(DataError, match=r"index=.*needs shards on disk; download"):
        find_shards([name], "index")


@pytest.mark.parametrize("name", ["pipe:curl http://x.org/a.tar", "ftp://x.org/a.tar", "hdfs://x"])
def test_commands_and_unknown_addresses_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="never from commands") as error:
        ShardSource([name])
    assert f"data.shards={name}:" in str(error.value)


def test_addresses_are_expanded_like_paths() -> None:
    assert locate_shards("https://x.org/{00..01}.tar?key=a", "s") == [
        "https://x.org/00.tar?key=a",
        "https://x.org/01.tar?key=a",
    ]


def test_a_file_that_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,caption")
    with pytest.raises(DataError, match=r"x\.csv is not a \.tar file.*\.tar files; .*data pack"):
        ShardSource(str(tmp_path / "x.csv"))
