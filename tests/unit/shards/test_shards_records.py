"""Samples of tars that other tools made: captions, sizes, tokens, and what is broken in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from clic import images
from clic.data import ShardSource, pack
from clic.data.shards.index import index_path
from clic.data.shards.records import tag_record
from clic.errors import DataError
from clic.types import Sample, Token

Jpeg = Callable[..., bytes]
WriteTar = Callable[[Path, dict[str, bytes]], Path]
World = Callable[[int], list[Sample]]
Members = Callable[..., dict[str, bytes]]


def test_img2dataset_layout(tmp_path: Path, jpeg: Jpeg, tar: WriteTar) -> None:
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
def test_where_captions_are_looked_for(
    tmp_path: Path, meta: dict, captions: tuple, jpeg: Jpeg, tar: WriteTar
) -> None:
    members = {"a.jpg": jpeg(), "a.json": json.dumps(meta).encode(), "a.txt": b"the txt"}
    assert ShardSource(str(tar(tmp_path / "x.tar", members))).read(0).captions == captions


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "tif", "png", "webp"])
def test_size_in_the_index_is_that_of_the_upright_pixels(
    tmp_path: Path, ending: str, turn: int, jpeg: Jpeg, tar: WriteTar
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    kind = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG", "webp": "WEBP"}[ending]
    members = {f"a.{ending}": jpeg(20, 10, format=kind, exif=exif), "a.txt": b"x"}
    source = ShardSource(str(tar(tmp_path / "x.tar", members)))
    np.testing.assert_array_equal(source.sizes(), [[10, 20] if turn >= 5 else [20, 10]])
    for method in ("exact", "fast", "scaled"):
        height, width = images.decode(source.read(0).image, method).shape[:2]
        assert [width, height] == source.sizes()[0].tolist()


def test_coins_for_square_images(tmp_path: Path, world: World) -> None:
    pack(world(40), tmp_path)
    source = ShardSource(str(tmp_path))
    assert source.landscape("landscape", 0).all()
    coins = source.landscape("either", 0)
    assert 5 < coins.sum() < 35
    np.testing.assert_array_equal(coins, source.landscape("either", 0))
    assert (coins != source.landscape("either", 1)).any()


def test_members_in_folders_and_capital_endings(tmp_path: Path, jpeg: Jpeg, tar: WriteTar) -> None:
    members = {
        "in/a.JPG": jpeg(),
        "in/a.txt": b"x",
        "in/b.png": jpeg(format="PNG"),
        "in/b.txt": b"y",
    }
    source = ShardSource(str(tar(tmp_path / "x.tar", members)))
    assert [source.read(i).key for i in range(2)] == ["in/a", "in/b"]


def test_what_is_left_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], jpeg: Jpeg, tar: WriteTar
) -> None:
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


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "holds no sample.*WebDataset"),
        (b'{"url": 1, "alt": "x"}', r"'caption'.*a\.json has 'url', 'alt'"),
        (b"{}", r"no captions.*\.txt \(a\.json has no keys\)"),
    ],
)
def test_a_tar_without_samples(
    tmp_path: Path, record: bytes | None, message: str, jpeg: Jpeg, tar: WriteTar
) -> None:
    members = {"a.jpg": jpeg()} if record is None else {"a.jpg": jpeg(), "a.json": record}
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
        ({"a.jpg": b"no image"}, "not an image"),
        ({"a.jpg": b""}, "not an image"),
        ({"a.jpg": pixels_of_a_bomb()}, "178956970 pixels"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_a_broken_sample_keeps_its_place_and_says_why_when_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    members: dict[str, bytes],
    message: str,
    jpeg: Jpeg,
    tar: WriteTar,
    members_with: Members,
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
def test_tokens_of_other_tools_are_left_alone(
    tmp_path: Path, tokens: object, tar: WriteTar, members_with: Members
) -> None:
    meta = json.dumps({"caption": "x", "tokens": tokens}).encode()
    shard = tar(tmp_path / "x.tar", members_with(**{"a.json": meta}))
    assert ShardSource(str(shard)).read(0).tags is None


def test_stored_tokens(tmp_path: Path, tar: WriteTar, members_with: Members) -> None:
    tokens = ((Token("x", 0, 1, "NOUN", "x"),),)
    stored = tag_record(["x"], tokens, "mine", "1")
    for caption, tags in (("x", tokens), ("y", ())):  # those of another caption are none
        meta = json.dumps({"caption": caption, **stored}).encode()
        shard = tar(tmp_path / f"{caption}.tar", members_with(**{"a.json": meta}))
        assert ShardSource(str(shard)).read(0).tags == tags
