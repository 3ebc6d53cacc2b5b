"""Shards: what is packed is read back, foreign tars are understood, broken ones are told."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import webdataset
from PIL import Image

from clic import shapes
from clic.captions import annotation
from clic.data import ShardSource, pack, write_index
from clic.data.naming import locate_shards
from clic.data.shards import find_shards, index_path
from clic.errors import DataError
from clic.types import Sample, Token


def jpeg(width: int = 20, height: int = 10, format: str = "JPEG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(buffer, format, **settings)
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar as tools that are not ours do."""
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def world(count: int) -> list[Sample]:
    return [shapes.sample("train", i, objects=2) for i in range(count)]


def one(**changes: object) -> Sample:
    record = {"key": "a", "image": jpeg(), "captions": ("a dog",), "tags": None, **changes}
    return Sample(**record)  # type: ignore[arg-type]


# --- packing and reading -------------------------------------------------------------------------


def test_world_samples_come_back(tmp_path: Path) -> None:
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


def test_packing_twice_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = (pack(world(3), tmp_path / name)[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_encoded_images_are_stored_as_they_are(tmp_path: Path) -> None:
    data = jpeg(quality=40)
    pack([one(image=data)], tmp_path)
    assert ShardSource(str(tmp_path)).read(0).image == data


def test_webdataset_reads_our_shards(tmp_path: Path) -> None:
    (shard,) = pack(world(2), tmp_path)
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [r["__key__"] for r in read] == [s.key for s in world(2)]
    assert read[0]["txt"].decode() == world(1)[0].captions[0]
    assert json.loads(read[0]["json"])["captions"] == list(world(1)[0].captions)


def test_a_folder_with_shards_is_not_written_into(tmp_path: Path) -> None:
    pack(world(1), tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path} already holds shards"):
        pack(world(1), tmp_path)


def test_a_failure_leaves_no_half_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'a\.b' must not"):
        pack([one(), one(key="a.b")], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "a.b"}, r"'a\.b'.*dot"),
        ({"key": ""}, "''.*empty"),
        ({"captions": ()}, "'a' has no caption"),
        ({"image": jpeg(format="PPM")}, "'a'.*type PPM.*JPEG"),
        ({"image": b"no image"}, "no image"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pack([one(**changes)], tmp_path)


def test_a_camera_jpeg_with_a_second_picture_is_a_jpg(tmp_path: Path) -> None:
    second = Image.new("RGB", (4, 4))
    pack([one(image=jpeg(format="MPO", save_all=True, append_images=[second]))], tmp_path)
    with tarfile.open(tmp_path / "00000.tar") as file:
        assert "a.jpg" in file.getnames()
    assert len(ShardSource(str(tmp_path))) == 1


# --- foreign tars --------------------------------------------------------------------------------


def test_img2dataset_layout(tmp_path: Path) -> None:
    meta = {"caption": "from json", "width": 20, "tags": "holiday, beach"}  # foreign `tags`
    shard = tar(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": jpeg(20, 10),
            "000000000.json": json.dumps(meta).encode(),
            "000000000.txt": b"from txt",
            "000000001.jpg": jpeg(10, 20),
            "000000001.txt": b" only txt \n",
        },
    )
    source = ShardSource(str(shard))
    first, second = source.read(0), source.read(1)
    assert (first.captions, first.tags) == (("from json",), None)
    assert (second.key, second.captions) == ("000000001", ("only txt",))
    np.testing.assert_array_equal(source.sizes(), [[20, 10], [10, 20]])
    np.testing.assert_array_equal(source.landscape("landscape", 0), [True, False])


@pytest.mark.parametrize(
    ("meta", "captions"),
    [
        ({"captions": ["one.", " two "]}, ("one.", "two")),
        ({"captions": "one text"}, ("one text",)),
        ({"captions": [], "caption": "b"}, ("b",)),
        ({"captions": ["a", None, ""]}, ("a",)),
        ({"caption": None}, ("the txt",)),
        ({}, ("the txt",)),
    ],
)
def test_where_captions_are_looked_for(tmp_path: Path, meta: dict, captions: tuple) -> None:
    members = {"a.jpg": jpeg(), "a.json": json.dumps(meta).encode(), "a.txt": b"the txt"}
    assert ShardSource(str(tar(tmp_path / "x.tar", members))).read(0).captions == captions


def test_size_after_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    members = {"a.jpg": jpeg(20, 10, exif=exif), "a.txt": b"x"}
    source = ShardSource(str(tar(tmp_path / "x.tar", members)))
    np.testing.assert_array_equal(source.sizes(), [[10, 20]])


def test_members_in_folders_and_capital_endings(tmp_path: Path) -> None:
    members = {
        "in/a.JPG": jpeg(),
        "in/a.txt": b"x",
        "in/b.png": jpeg(format="PNG"),
        "in/b.txt": b"y",
    }
    source = ShardSource(str(tar(tmp_path / "x.tar", members)))
    assert [source.read(i).key for i in range(2)] == ["in/a", "in/b"]


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = tar(
        tmp_path / "x.tar",
        {
            "a.jpg": jpeg(),
            "a.txt": b"x",
            "b.jpg": jpeg(),
            "c.txt": b"no image",
            "d.jpg": jpeg(),
            "d.json": b"{}",
        },
    )
    assert len(ShardSource(str(shard))) == 1
    error = capsys.readouterr().err
    assert str(shard) in error and "3 of 4 keys" in error and "b, c, d" in error


def test_coins_for_square_images(tmp_path: Path) -> None:
    pack(world(40), tmp_path)
    source = ShardSource(str(tmp_path))
    assert source.landscape("landscape", 0).all()
    coins = source.landscape("either", 0)
    assert 5 < coins.sum() < 35
    np.testing.assert_array_equal(coins, source.landscape("either", 0))
    assert (coins != source.landscape("either", 1)).any()


# --- naming shards -------------------------------------------------------------------------------


def test_ways_to_name_shards(tmp_path: Path) -> None:
    shards = pack(world(4), tmp_path, shard_size=1)
    assert find_shards(str(tmp_path), "s") == shards
    assert find_shards(str(tmp_path / "{00000..00002}.tar"), "s") == shards[:3]
    assert find_shards([str(shards[3]), str(shards[1])], "s") == [shards[3], shards[1]]
    assert find_shards(f"{shards[0]}", "s") == shards[:1]


def test_what_is_not_there(tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match=r"x\.csv is no \.tar file.*\.tar files; .*data pack"):
        ShardSource(str(tmp_path / "x.csv"))


# --- broken ones ---------------------------------------------------------------------------------


def members_with(**changes: bytes) -> dict[str, bytes]:
    return {"a.jpg": jpeg(), "a.json": b'{"caption": "x"}', **changes}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": jpeg()}, "holds no sample.*WebDataset"),
        (
            members_with(**{"a.json": b'{"url": 1, "alt": "x"}'}),
            r"'caption'.*a\.json has 'url', 'alt'",
        ),
        (members_with(**{"a.json": b"{}"}), r"no captions.*\.txt \(a\.json has no keys\)"),
    ],
)
def test_a_tar_without_samples(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    shard = tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=message) as error:
        ShardSource(str(shard))
    assert str(shard) in str(error.value)
    assert not index_path(shard).exists()


def pixels_of_a_bomb() -> bytes:
    """Return the header of a PNG of 15000 x 15000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 15000, 15000, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", crc32(c)) for c in (head, b"IDAT")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.json": b"{"}, "its JSON is not valid"),
        ({"a.json": b"[1]"}, "its JSON should be an object, not list"),
        ({"a.json": b"\xff\xfe{"}, "its JSON is not valid"),
        ({"a.json": b"[" * 100_000}, "its JSON is not valid"),
        ({"a.json": b'{"caption": "\\ud800"}'}, "not valid Unicode"),
        ({"a.json": b'{"caption": "' + b"x" * 1_000_000 + b'"}'}, "JSON of 1000015 bytes .* limit"),
        ({"a.json": b"{}", "a.txt": b"x" * 1_000_001}, "text of 1000001 bytes .* limit"),
        ({"a.jpg": b"no image"}, "no image"),
        ({"a.jpg": b""}, "no image"),
        ({"a.jpg": pixels_of_a_bomb()}, "178956970 pixels"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_a_broken_sample_keeps_its_place_and_says_why_when_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], members: dict[str, bytes], message: str
) -> None:
    good = {"b.jpg": jpeg(), "b.txt": b"good"}
    shard = tar(tmp_path / "x.tar", {**members_with(**members), **good})
    source = ShardSource(str(shard))
    assert "1 of 2 samples are broken or above the limits (a, ...)" in capsys.readouterr().err
    assert len(source) == 2 and source.read(1).captions == ("good",)
    np.testing.assert_array_equal(source.sizes(), [[0, 0], [20, 10]])
    with pytest.raises(DataError, match=rf"x\.tar: a: .*{message}"):
        source.read(0)


@pytest.mark.parametrize("tokens", ["text", [["a", "b"]], [[["a", 0, 1]]], 5])
def test_tokens_of_other_tools_are_left_alone(tmp_path: Path, tokens: object) -> None:
    meta = json.dumps({"caption": "x", "tokens": tokens}).encode()
    shard = tar(tmp_path / "x.tar", members_with(**{"a.json": meta}))
    assert ShardSource(str(shard)).read(0).tags is None


def test_stored_tokens(tmp_path: Path) -> None:
    tokens = ((Token("x", 0, 1, "NOUN", "x"),),)
    stored = annotation.record(["x"], tokens, "mine", "1")
    for caption, tags in (("x", tokens), ("y", ())):  # those of another caption are none
        meta = json.dumps({"caption": caption, **stored}).encode()
        shard = tar(tmp_path / f"{caption}.tar", members_with(**{"a.json": meta}))
        assert ShardSource(str(shard)).read(0).tags == tags


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
def test_sizes_that_cannot_be(tmp_path: Path, size: bytes, kind: bytes) -> None:
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
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    shard = tar(tmp_path / "x.tar", {"a.jpg": jpeg(), "a.txt": b"x", name: jpeg()})
    with pytest.raises(DataError, match=r"x\.tar is refused: its entry .* leads out of the folder"):
        write_index(shard)
    assert not index_path(shard).exists()


def test_a_cut_tar_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
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


def test_a_broken_header_is_not_the_end(tmp_path: Path) -> None:
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


def test_a_tar_that_changed_after_it_was_indexed(tmp_path: Path) -> None:
    (shard,) = pack(world(2), tmp_path)
    shard.write_bytes(shard.read_bytes()[:-1024])
    with pytest.raises(DataError, match=rf"{shard} has changed since .*index --force"):
        ShardSource(str(tmp_path))


def test_a_tar_that_changed_and_kept_its_size(tmp_path: Path) -> None:
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


def test_a_shard_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    (shard,) = pack(world(2), tmp_path)
    source = ShardSource(str(tmp_path))
    shard.rename(tmp_path / "away")
    with pytest.raises(DataError, match=rf"{shard} is not there any more; put it back"):
        source.read(0)
    (tmp_path / "away").rename(shard)
    assert source.read(0).key


def test_shards_of_any_length_and_empty_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


def test_a_broken_index(tmp_path: Path) -> None:
    (shard,) = pack(world(3), tmp_path)
    data = index_path(shard).read_bytes()
    flipped = bytearray(data)
    flipped[-5] ^= 1
    cut = [data[:length] for length in (0, 5, 13, 40, 700, len(data) - 1)]
    for content in (*cut, b"text", b"clic-columns\n[]\n", b"clic-columns\n\xff\n", bytes(flipped)):
        index_path(shard).write_bytes(content)
        with pytest.raises(DataError, match=rf"tar\.index .*run: .* index --force {tmp_path}"):
            ShardSource(str(tmp_path))


def test_an_index_of_another_version(tmp_path: Path) -> None:
    (shard,) = pack(world(1), tmp_path)
    path = index_path(shard)
    path.write_bytes(path.read_bytes().replace(b'"version": 2', b'"version": 1'))
    with pytest.raises(
        DataError,
        match=r"tar\.index was made by another version of clic; run: .* --force",
    ):
        ShardSource(str(tmp_path))


def test_a_missing_index_is_made(tmp_path: Path) -> None:
    (shard,) = pack(world(2), tmp_path)
    index_path(shard).unlink()
    assert len(ShardSource(str(tmp_path))) == 2
    assert index_path(shard).is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_index_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(13, "Permission denied")

    shard = tar(tmp_path / "x.tar", members_with())
    monkeypatch.setattr("clic.data.index_columns.os.replace", refuse)
    with pytest.raises(DataError, match=r"tar\.index cannot be written \(Permission denied\)"):
        write_index(shard)
