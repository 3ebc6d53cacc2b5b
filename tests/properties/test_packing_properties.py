"""Whatever stands in a source, a reader gives items or an error that the user can mend."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clic.data.packing import Request, open_source
from clic.data.packing.items import Item, dump, load, stays_inside
from clic.errors import ClicError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
LISTED = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | st.just(name) | st.just([{"raw": "A dog", "caption": "A dog", "image_id": 1}])
        for name in ("id", "file_name", "filename", "filepath", "split", "sentences", "image_id")
    },
)
CELL = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["a.jpg", "../a.jpg", "['x', 'y']", '"', "[", "", "A dog, wet"]
)


def items_of(name: str, data: bytes, format: str | None = None) -> list[Item]:
    """Return the items of a source of this content; none where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            return [load(dump(item)) for item in open_source(str(path), Request(), format).items()]
        except ClicError as error:
            assert str(error)
            return []


@given(st.binary(max_size=300), st.sampled_from(["t.csv", "t.tsv", "t.json", "t.parquet", "t.tar"]))
@settings(max_examples=80, deadline=None)
def test_any_bytes(data: bytes, name: str) -> None:
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    items_of(name, data)


@given(
    st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=1, max_size=8),
    st.sampled_from("\t,;|"),
)
@settings(max_examples=60, deadline=None)
def test_any_table(rows: list[list[str]], separator: str) -> None:
    for header in ([], ["filepath", "title", "neg_caption", "neg_image"]):
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=separator).writerows([header, *rows] if header else rows)
        for item in items_of("t.csv", buffer.getvalue().encode()):
            assert bool(item.place) != bool(item.reason)


@given(st.lists(LISTED, max_size=4), st.lists(LISTED | JSON, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_json_list(images: list[Any], annotations: list[Any]) -> None:
    for value in ({"images": images, "annotations": annotations}, {"images": images}):
        for format in (None, "coco", "karpathy"):
            items_of("t.json", json.dumps(value).encode(), format)


@given(st.dictionaries(st.text("ab./", max_size=6), st.binary(max_size=30) | JSON, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_tar(members: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in members.items():
            for ending in (".jpg", ".json"):
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                info = tarfile.TarInfo(name + ending)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for item in items_of("t.tar", buffer.getvalue()):
        assert bool(item.place) != bool(item.reason)


@given(st.text(st.sampled_from("ab/."), max_size=12))
def test_no_relative_path_escapes(name: str) -> None:
    root = Path("/data/set")
    if stays_inside(name):
        resolved = Path(os.path.normpath(root / name))
        assert resolved == root or root in resolved.parents
