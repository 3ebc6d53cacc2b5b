"""Every format is recognised, and what it says comes back from the shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic.data import ShardSource
from clic.data.packing import Request, open_source
from clic.data.packing.readers import text_tables
from clic.errors import DataError

Put = Callable[..., Path]
Pack = Callable[..., Any]

UNICODE = "Ein grüner Käfer — 甲虫 🪲"


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


# --- tables --------------------------------------------------------------------------------------


def test_the_published_csv(put: Put, packed: Pack) -> None:
    put("img/a.jpg"), put("img/b.jpg")
    rows = f'img/a.jpg,"A dog, wet",It runs.,\nimg/b.jpg,{UNICODE},,Three,"two\nlines"\n'
    result = packed(put("captions.csv", rows))
    assert result.captions() == [["A dog, wet", "It runs."], [UNICODE, "Three", "two lines"]]
    first = {"key": "000000000", "caption": "A dog, wet", "captions": ["A dog, wet", "It runs."]}
    assert result.records[0] == {**first, "width": 24, "height": 16, "source": "img/a.jpg"}
    assert result.names[:3] == ["000000000.jpg", "000000000.json", "000000000.txt"]
    assert result.members["000000001.txt"].decode() == UNICODE
    assert (result.outcome.samples, result.outcome.shards, result.rejected) == (2, 1, [])


def test_a_caption_that_is_a_columns_name_makes_no_header(put: Put, packed: Pack) -> None:
    put("a.jpg")
    assert packed(put("captions.csv", "a.jpg,photo,It runs\n")).captions() == [["photo", "It runs"]]


def test_shards_are_read_as_any_others(put: Put, packed: Pack) -> None:
    put("img/a.jpg")
    result = packed(put("captions.csv", "img/a.jpg,A dog,It runs\n"))
    source = ShardSource(str(result.out))
    assert source.read(0).captions == ("A dog", "It runs")
    assert source.sizes().tolist() == [[24, 16]]


def test_a_header_over_the_published_form_is_no_sample(put: Put, packed: Pack) -> None:
    put("a.jpg")
    source = put("captions.csv", "path,caption,sentence\na.jpg,A dog,It runs\n")
    assert packed(source, "clic-csv").captions() == [["A dog", "It runs"]]


@pytest.mark.parametrize(
    ("name", "separator", "header"),
    [
        ("t.tsv", "\t", ("filepath", "title")),
        ("t.csv", ",", ("caption", "id", "Image")),
        ("t.csv", ";", ("image_path", "text")),
        ("t.txt", "|", ("file_name", "sentence", "more")),
    ],
)
def test_any_table(
    put: Put, packed: Pack, name: str, separator: str, header: tuple[str, ...]
) -> None:
    """FLAIR's columns among them; commas in captions do not make a TSV a CSV."""
    put("img/a.jpg")
    cells = {"filepath": "img/a.jpg", "Image": "img/a.jpg", "image_path": "img/a.jpg"}
    cells |= {"file_name": "img/a.jpg", "id": "7", "more": "x"}
    row = [cells.get(column, '"A dog, wet"') for column in header]
    text = "\r\n".join(separator.join(line) for line in (header, row))
    result = packed(put(name, "\ufeff" + text))
    assert result.captions() == [["A dog, wet"]] and result.sources() == ["img/a.jpg"]


def test_columns_are_chosen(put: Put, packed: Pack) -> None:
    put("data/a.jpg")
    table = put("t.csv", "where,caption,long,short\na.jpg,no,It is long,Short\n")
    columns = {"image_column": "where", "caption_column": ("short", "long")}
    result = packed(table, image_root=table.parent / "data", **columns)
    assert result.captions() == [["Short", "It is long"]]


def test_a_list_in_a_cell_is_several_captions(put: Put, packed: Pack) -> None:
    put("a.jpg")
    cell = "[\"It's one.\", 'Two.']".replace('"', '""')
    result = packed(put("t.csv", f'image,captions\na.jpg,"{cell}"\n'))
    assert result.captions() == [["It's one.", "Two."]]


def test_what_was_guessed_is_told(put: Put) -> None:
    reader = open_source(str(put("t.tsv", "url\tfilepath\ttitle\nu\ta.jpg\tA dog\n")), Request())
    assert reader.NAME == "table"
    assert reader.found[:3] == [
        "separator: tab (detected)",
        "image column 'filepath' (guessed), caption column 'title' (guessed)",
        "columns left out: 'url'",
    ]


def test_negclip(put: Put, packed: Pack) -> None:
    """The columns of train_neg_clip.tsv, its lists quoted as pandas does."""
    put("coco/val2014/a.jpg"), put("coco/val2014/b.jpg")
    table = put(
        "valid_neg_clip.tsv",
        "\ttitle\tfilepath\tneg_caption\tneg_image\n"
        "0\tA cup.\tcoco/val2014/a.jpg\t['A up.', 'Cup a .']\t[1, 0]\n"
        '1\tIt\'s a dog.\tcoco/val2014/b.jpg\t"[""It \'s a god .""]"\t[0]\n',
    )
    result = packed(table)
    assert result.captions() == [["A cup."], ["It's a dog."]]
    assert [r["negatives"] for r in result.records] == [["A up.", "Cup a ."], ["It 's a god ."]]
    assert [r["neighbours"] for r in result.records] == [["000000001", "000000000"], ["000000000"]]


# --- JSON lists ----------------------------------------------------------------------------------


def test_coco_captions_are_grouped(put: Put, packed: Pack) -> None:
    put("train2014/a.jpg"), put("train2014/b.jpg")
    value = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 3, "caption": "b one"},
            {"image_id": 7, "caption": "a one"},
            {"image_id": 3, "caption": "b two\n"},
            {"image_id": 9, "caption": "of nothing"},
        ],
    }
    result = packed(put("annotations/captions_train2014.json", json.dumps(value)))
    assert result.sources() == ["a.jpg", "b.jpg"]
    assert result.captions() == [["a one"], ["b one", "b two"]]
    assert [r["source"] for r in result.rejected] == ["of nothing"]
    assert "unknown image id 9" in result.rejected[0]["reason"]


def karpathy() -> dict[str, Any]:
    def of(name: str, split: str) -> dict[str, Any]:
        sentences = [{"raw": f"{name} {i}", "tokens": [name]} for i in range(2)]
        place = {"filepath": "val2014", "filename": f"{name}.jpg"}
        return {**place, "split": split, "sentences": sentences, "cocoid": 1}

    return {"images": [of("a", "train"), of("b", "test"), of("c", "restval")], "dataset": "coco"}


@pytest.mark.parametrize(("split", "names"), [(None, "ac"), ("test", "b"), ("train,test", "ab")])
def test_karpathy(put: Put, packed: Pack, split: str | None, names: str) -> None:
    for name in "abc":
        put(f"val2014/{name}.jpg")
    result = packed(put("dataset_coco.json", json.dumps(karpathy())), split=split)
    assert result.sources() == [f"val2014/{name}.jpg" for name in names]
    assert result.captions() == [[f"{name} 0", f"{name} 1"] for name in names]


# --- images beside their captions ----------------------------------------------------------------


def test_a_folder(put: Put, packed: Pack) -> None:
    put("f/b.png"), put("f/b.txt", f"A dog\n\n{UNICODE}\n")
    put("f/sub/a.JPG"), put("f/sub/a.json", json.dumps({"captions": ["One", "Two"], "id": 1}))
    put("f/sub/c.jpg"), put("f/sub/c.json", '["A list"]')
    put("f/sub/d.jpg"), put("f/.hidden/e.jpg"), put("f/stray.txt", "x")
    result = packed(put("f/b.png").parent)
    assert result.sources() == ["b.png", "sub/a.JPG", "sub/c.jpg"]
    assert result.captions() == [["A dog", UNICODE], ["One", "Two"], ["A list"]]
    assert [(r["source"], r["reason"]) for r in result.rejected] == [
        ("stray.txt", "there is no image of its name beside it"),
        ("sub/d.jpg", "no .txt or .json"),
    ]


def img2dataset_sample(number: int) -> dict[str, bytes]:
    key = f"{number:09d}"
    record = {"caption": f"A dog {key}", "url": f"http://x/{key}", "key": key, "status": "success"}
    text = f"A dog {key}".encode()
    return {f"{key}.jpg": b"", f"{key}.json": json.dumps(record).encode(), f"{key}.txt": text}


def test_img2dataset_tars(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    folder = put("d/00000_stats.json", "{}").parent
    put("d/00000.parquet", b"not read")
    for shard in (0, 1):
        members = {**img2dataset_sample(shard * 2), **img2dataset_sample(shard * 2 + 1)}
        tar(folder / f"{shard:05d}.tar", {k: v or image() for k, v in members.items()})
    result = packed(folder)
    assert result.sources()[2] == "00001.tar/000000002"
    assert result.captions()[2] == ["A dog 000000002"]
    assert result.records[2]["url"] == "http://x/000000002"
    assert result.members["000000002.jpg"] == image()
    assert len(packed(f"{folder}/{{00000..00001}}.tar", out=folder / "o").records) == 4


def test_img2dataset_files(put: Put, packed: Pack) -> None:
    for name, data in img2dataset_sample(0).items():
        put(f"d/00000/{name}", data or None)
    put("d/00000_stats.json", "{}")
    result = packed(put("d/00000.parquet", b"not read").parent)
    assert (result.sources(), result.rejected) == (["00000/000000000.jpg"], [])
    assert result.records[0]["url"] == "http://x/000000000"


# --- parquet and datasets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("['a dog', 'two']", ["a dog", "two"]),
        ('["a dog", "two"]', ["a dog", "two"]),
        ('[{"raw": "a dog", "id": null}]', [{"raw": "a dog", "id": None}]),
        ('["a dog \\ud83d\\ude00"]', ["a dog \U0001f600"]),
        ("['a sign with a bracket", "['a sign with a bracket"),
    ],
)
def test_a_cell_that_holds_a_list(cell: str, value: object) -> None:
    """As pandas writes it, or as JSON does, with null and pairs of escaped surrogates."""
    assert text_tables.cell_value(cell) == value


def test_a_folder_without_parquet(put: Put, packed: Pack) -> None:
    pytest.importorskip("pyarrow")
    folder = put("d/a.txt", b"none").parent
    with pytest.raises(DataError, match=r"has no \.parquet file; name another"):
        packed(folder, format="parquet")


def test_parquet_by_path(put: Put, packed: Pack) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = arrow.array([put("i/a.jpg").name, put("i/b.jpg").name])
    path = put("t.parquet", b"")
    for column in (names, names.dictionary_encode()):
        table = {"image_path": column, "captions": [["A", UNICODE], ["B"]]}
        parquet.write_table(arrow.table(table), path)
        out = path.parent / f"out-{column.type.id}"
        result = packed(path, image_root=path.parent / "i", out=out)
        assert result.sources() == ["a.jpg", "b.jpg"]
        assert result.captions() == [["A", UNICODE], ["B"]]


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_parquet_with_bytes(put: Put, packed: Pack, image: Callable[..., bytes], form: str) -> None:
    """Row groups, parts and files need not fit each other; the Hub's form {bytes, path} is one."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = [image(20 + i) for i in range(7)]
    cells = data if form == "bytes" else [{"bytes": d, "path": "x.jpg"} for d in data]
    folder = put("p/0.parquet", b"").parent
    for name, rows in (("0", slice(0, 5)), ("1", slice(5, 7))):
        table = arrow.table({"image": cells[rows], "caption": [f"c{i}" for i in range(7)][rows]})
        parquet.write_table(table, folder / f"{name}.parquet", row_group_size=2)
    result = packed(folder, shard_size=3)
    assert result.outcome.shards == 3
    assert [result.members[f"{i:09d}.jpg"] for i in range(7)] == data
    assert result.captions() == [[f"c{i}"] for i in range(7)]
    assert result.sources()[:2] == ["0.parquet:0", "0.parquet:1"]


def test_parquet_whose_structs_name_files(put: Put, packed: Pack) -> None:
    """What `datasets` writes with to_parquet where the images were files."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    paths = [str(put("elsewhere/a.jpg")), "b.jpg", "../b.jpg", None]
    cells = [{"bytes": None, "path": path} for path in paths]
    path = put("p/b.jpg").with_name("t.parquet")
    table = arrow.table({"image": arrow.array(cells, kind), "caption": list("abcd")})
    parquet.write_table(table, path)
    result = packed(path)
    assert result.captions() == [["a"], ["b"]]
    assert "leads out of" in result.rejected[0]["reason"]
    assert result.rejected[1]["reason"] == "the cell holds no image"


def test_a_dataset_on_disk(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    columns = {"image": [image(20), image(30)], "text": ["A", UNICODE]}
    folder = put("ds/x").parent / "saved"
    data = datasets.Dataset.from_dict(columns, features)
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(folder)
    result = packed(folder)
    assert [r["width"] for r in result.records] == [20, 30]
    assert result.captions() == [["A"], [UNICODE]]
    assert len(packed(folder, split="test", out=folder / "o").records) == 1


def test_a_dataset_by_name(
    put: Put, packed: Pack, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"jpg": [image()], "sentences": [["A", "B"]]})
    asked = []

    def load(name: str, config: str | None) -> Any:
        asked.append((name, config))
        return datasets.DatasetDict({"train": data})

    monkeypatch.setattr(datasets, "load_dataset", load)
    result = packed("hf:org/name:v1")
    assert asked[0] == ("org/name", "v1")
    assert (result.captions(), result.sources()) == ([["A", "B"]], ["hf:org/name:v1:0"])
