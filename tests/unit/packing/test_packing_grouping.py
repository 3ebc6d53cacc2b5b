"""Rows of one image become one sample, and a row that adds nothing to it is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Put = Callable[..., Path]
Pack = Callable[..., Any]


def images(put: Put, names: str) -> None:
    for name in names:
        put(f"{name}.jpg")


def grouped(packed: Pack, source: Path, **settings: Any) -> None:
    result = packed(source, **settings)
    assert result.sources() == ["a.jpg", "b.jpg"]
    assert result.captions() == [["A1", "A2", "A3"], ["B1"]]
    assert (result.outcome.items, result.outcome.grouped) == (2, 3)


ROWS = [("a.jpg", "A1"), ("b.jpg", "B1"), ("./a.jpg", "A2"), ("a.jpg", "A1"), ("a.jpg", "A3")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image,caption\n" + "".join(f"{i},{c}\n" for i, c in ROWS)),
        ("t.tsv", "image\tcaption\n" + "".join(f"{i}\t{c}\n" for i, c in ROWS)),
        ("t.jsonl", "".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in ROWS)),
        ("t.json", json.dumps([{"image": i, "caption": [c]} for i, c in ROWS])),
        ("headless.csv", "".join(f"{i},{c}\n" for i, c in ROWS)),
        ("Flickr8k.token.txt", "".join(f"{i}#{n}\t{c}\n" for n, (i, c) in enumerate(ROWS))),
        (
            "results.csv",
            "image_name| comment_number| comment\n"
            + "".join(f"{i}| {n}| {c}\n" for n, (i, c) in enumerate(ROWS)),
        ),
    ],
)
def test_rows_of_one_image_are_one_sample(put: Put, packed: Pack, name: str, text: str) -> None:
    images(put, "ab")
    grouped(packed, put(name, text))


def test_rows_of_one_image_in_a_parquet_file_are_one_sample(put: Put, packed: Pack) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images(put, "ab")
    names, captions = zip(*ROWS, strict=True)
    path = put("t.parquet", b"")
    parquet.write_table(arrow.table({"image_path": names, "caption": captions}), path)
    grouped(packed, path)


def test_rows_of_one_image_keep_false_captions_and_neighbours(put: Put, packed: Pack) -> None:
    """Neighbours name rows, and become the keys of the images of these rows."""
    images(put, "ab")
    rows = ["A1\ta.jpg\t['x']\t[1, 3]", "A2\ta.jpg\t['y', 'x']\t[2]", "C\tgone.jpg\t[]\t[0]"]
    rows += ["B\tb.jpg\t['z']\t[0, 1]"]
    table = put("n.tsv", "title\tfilepath\tneg_caption\tneg_image\n" + "\n".join(rows))
    records = packed(table).records
    assert [r["key"] for r in records] == ["000000000", "000000002"]
    assert [r["negatives"] for r in records] == [["x", "y"], ["z"]]
    assert records[0]["neighbours"] == ["000000000", "000000002", "000000001"]
    assert records[1]["neighbours"] == ["000000000"]


def test_a_broken_row_does_not_take_others_of_its_image_along(put: Put, packed: Pack) -> None:
    images(put, "a")
    result = packed(put("t.csv", b"image,caption\na.jpg,A dog\na.jpg,A caf\xe9\na.jpg,A cat\n"))
    assert result.captions() == [["A dog", "A cat"]]
    assert len(result.rejected) == 1


def test_a_row_without_a_caption_beside_others_is_counted(put: Put, packed: Pack) -> None:
    images(put, "abc")
    rows = ["a.jpg,A1", "a.jpg,", "b.jpg,nan", "b.jpg,", "c.jpg,C1", "a.jpg,A2", "c.jpg, "]
    result = packed(put("t.csv", "image,caption\n" + "\n".join(rows)))
    assert result.captions() == [["A1", "A2"], ["C1"]]
    assert (result.outcome.items, result.outcome.grouped, result.outcome.empty) == (3, 4, 3)
    assert result.outcome.reasons == {"no caption": 4}
    found = sorted((line["row"], line["source"], line["reason"]) for line in result.rejected)
    sources = {"t.csv:3": "a.jpg", "t.csv:4": "b.jpg", "t.csv:5": "b.jpg", "t.csv:8": "c.jpg"}
    assert found == [(row, source, "no caption") for row, source in sources.items()]


def test_a_row_of_false_captions_alone_is_no_empty_one(put: Put, packed: Pack) -> None:
    images(put, "a")
    rows = ["A1\ta.jpg\t['x']\t[]", "\ta.jpg\t['y']\t[]", "\ta.jpg\t[]\t[]"]
    table = put("n.tsv", "title\tfilepath\tneg_caption\tneg_image\n" + "\n".join(rows))
    result = packed(table)
    assert [record["negatives"] for record in result.records] == [["x", "y"]]
    assert [line["row"] for line in result.rejected] == ["n.tsv:4"]
