"""Packing samples into shards: what is packed is read back, also by other tools."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from clic.data import ShardSource, pack
from clic.errors import DataError
from clic.types import Sample

Jpeg = Callable[..., bytes]
World = Callable[[int], list[Sample]]
MakeOne = Callable[..., Sample]


@pytest.fixture
def one(jpeg: Jpeg) -> Callable[..., Sample]:
    """Return what makes a sample of one small image, with changes."""

    def make(**changes: object) -> Sample:
        record = {"key": "a", "image": jpeg(), "captions": ("a dog",), "tags": None, **changes}
        return Sample(**record)  # type: ignore[arg-type]

    return make


def test_world_samples_come_back(tmp_path: Path, world: World) -> None:
    samples = world(5)
    shards = pack(samples, tmp_path, shard_size=2)
    assert [shard.name for shard in shards] == ["00000.tar", "00001.tar", "00002.tar"]
    source = ShardSource(str(tmp_path))
    assert len(source) == 5
    for index, sample in enumerate(samples):
        read = source.read(index)
        assert (read.key, read.captions, read.tags) == (sample.key, sample.captions, sample.tags)
        assert isinstance(read.image, bytes)
        np.testing.assert_array_equal(Image.open(io.BytesIO(read.image)), sample.image)
    np.testing.assert_array_equal(source.sizes(), np.full((5, 2), 64))


def test_packing_twice_gives_equal_bytes(tmp_path: Path, world: World) -> None:
    first, second = (pack(world(3), tmp_path / name)[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_encoded_images_are_stored_as_they_are(tmp_path: Path, jpeg: Jpeg, one: MakeOne) -> None:
    data = jpeg(quality=40)
    pack([one(image=data)], tmp_path)
    assert ShardSource(str(tmp_path)).read(0).image == data


def test_webdataset_reads_our_shards(tmp_path: Path, world: World) -> None:
    (shard,) = pack(world(2), tmp_path)
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [r["__key__"] for r in read] == [s.key for s in world(2)]
    assert read[0]["txt"].decode() == world(1)[0].captions[0]
    assert json.loads(read[0]["json"])["captions"] == list(world(1)[0].captions)


def test_a_folder_with_shards_is_not_written_into(tmp_path: Path, world: World) -> None:
    pack(world(1), tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path} already holds shards"):
        pack(world(1), tmp_path)


def test_a_failure_leaves_no_half_shard(tmp_path: Path, one: MakeOne) -> None:
    with pytest.raises(DataError, match=r"'a\.b' must not"):
        pack([one(), one(key="a.b")], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "a.b"}, r"'a\.b'.*dot"),
        ({"key": ""}, "''.*empty"),
        ({"captions": ()}, "'a' has no caption"),
        ({"image": b"no image"}, "no image"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, changes: dict, message: str, one: MakeOne) -> None:
    with pytest.raises(DataError, match=message):
        pack([one(**changes)], tmp_path)


def test_an_image_type_that_few_tools_read(tmp_path: Path, jpeg: Jpeg, one: MakeOne) -> None:
    with pytest.raises(DataError, match=r"'a'.*type PPM.*JPEG"):
        pack([one(image=jpeg(format="PPM"))], tmp_path)


def test_a_camera_jpeg_with_a_second_picture_is_a_jpg(
    tmp_path: Path, jpeg: Jpeg, one: MakeOne
) -> None:
    second = Image.new("RGB", (4, 4))
    pack([one(image=jpeg(format="MPO", save_all=True, append_images=[second]))], tmp_path)
    with tarfile.open(tmp_path / "00000.tar") as file:
        assert "a.jpg" in file.getnames()
    assert len(ShardSource(str(tmp_path))) == 1
