"""Whatever the bytes of a tar: they are indexed and read, or refused in a line."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clic.data import ShardSource, write_index
from clic.data.shards.index import index_path
from clic.data.shards.records import captions_of, parse_record
from clic.errors import DataError


def valid_tar() -> bytes:
    """Return a tar of three samples, one with a name that needs a pax header."""
    buffer, image = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (9, 5), (200, 30, 40)).save(image, "JPEG")
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for key in ("a", "b", "ç" + "long" * 40):
            for ending, data in (("jpg", image.getvalue()), ("json", b'{"caption": "a dog"}')):
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


TAR = valid_tar()
changes = st.lists(
    st.tuples(st.integers(0, len(TAR) - 1), st.binary(min_size=1, max_size=12)), max_size=6
)


def read_all(shard: Path) -> None:
    """Open and read everything; only `DataError` may come of it."""
    try:
        source = ShardSource(str(shard))
    except DataError:
        return
    for index in range(len(source)):
        try:
            sample = source.read(index)
        except DataError:
            continue
        assert sample.key and sample.captions and isinstance(sample.image, bytes)


def changed(places: list[tuple[int, bytes]], length: int) -> bytes:
    data = bytearray(TAR)
    for place, new in places:
        data[place : place + len(new)] = new
    return bytes(data[:length])


@settings(max_examples=150, deadline=None)
@given(changes, st.one_of(st.just(len(TAR)), st.integers(0, len(TAR))))
def test_any_tar_is_read_or_refused(places: list[tuple[int, bytes]], length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "x.tar"
        shard.write_bytes(changed(places, length))
        read_all(shard)


@settings(max_examples=60, deadline=None)
@given(changes)
def test_a_tar_that_changes_after_it_was_indexed_gives_no_wrong_sample(
    places: list[tuple[int, bytes]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "x.tar"
        shard.write_bytes(TAR)
        write_index(shard)
        source = ShardSource(str(shard))
        before = [source.read(index) for index in range(3)]
        shard.write_bytes(changed(places, len(TAR)))
        for index, sample in enumerate(before):
            try:
                assert source.read(index) == sample
            except DataError as error:
                assert "has changed since it was indexed" in str(error)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 2000), st.booleans())
def test_any_index_is_read_or_refused(new: bytes, place: int, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "x.tar"
        shard.write_bytes(TAR)
        path = write_index(shard)
        data = bytearray(path.read_bytes())
        data[place : place + len(new)] = new
        index_path(shard).write_bytes(data[: place + len(new)] if cut else data)
        read_all(shard)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
records = st.dictionaries(
    st.sampled_from(["caption", "captions", "tokens", "caption_hash", "x"]), json_values
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(), records.map(lambda r: json.dumps(r).encode())), st.binary())
def test_any_json_and_text_give_captions_or_are_refused(meta: bytes, text: bytes) -> None:
    try:
        captions = captions_of(parse_record(meta), text)
    except DataError:
        return
    assert all(isinstance(c, str) and c == c.strip() and c for c in captions)
