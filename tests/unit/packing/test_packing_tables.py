"""Tables as people have them: no rows merged, no caption torn, nothing left out unsaid."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic.data.packing import Request, open_source
from clic.errors import ConfigError, DataError

Put = Callable[..., Path]
Pack = Callable[..., Any]
Image = Callable[..., bytes]


def images(put: Put, names: str = "abcd", folder: str = "") -> None:
    for name in names:
        put(f"{folder}{name}.jpg")


def reasons(result: Any) -> dict[str, str]:
    return {line["source"]: line["reason"] for line in result.rejected}


# --- quotes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "captions"),
    [
        (['a.jpg\t"A dog', "b.jpg\tA cat"], ['"A dog', "A cat"]),
        (['a.jpg\t"A dog', 'b.jpg\tA cat"'], ['"A dog', 'A cat"']),
        (['a.jpg\t"A dog', 'b.jpg\t"A cat"'], ['"A dog', "A cat"]),
        (['a.jpg\t"Hello" she said', "b.jpg\tA cat"], ['"Hello" she said', "A cat"]),
        (['a.jpg\t6" pipe', 'b.jpg\t"A\ncat"'], ['6" pipe', "A cat"]),
        (['"A dog\ta.jpg', 'A cat"\tb.jpg'], ['"A dog', 'A cat"']),
    ],
)
def test_a_lone_quote_in_a_tsv_merges_no_rows(
    put: Put, packed: Pack, rows: list[str], captions: list[str]
) -> None:
    images(put)
    header = "caption\timage" if rows[0].endswith(".jpg") else "image\tcaption"
    result = packed(put("t.tsv", "\n".join([header, *rows, ""])))
    assert result.captions() == [[caption] for caption in captions]
    assert result.sources() == ["a.jpg", "b.jpg"] and not result.rejected


@pytest.mark.parametrize(
    "rows",
    [
        ['a.jpg,"A dog', 'b.jpg,A cat"', "c.jpg,A hen"],
        ['a.jpg,"A dog', 'b.jpg,6" pipe', 'c.jpg,"A hen"'],
        ['a.jpg,"A dog', 'b.jpg,"A cat"', "c.jpg,A hen"],
        ['a.jpg,"He said "hi", left', "b.jpg,A cat", "c.jpg,A hen"],
    ],
)
@pytest.mark.parametrize("header", ["", "image,caption\n"])
def test_a_lone_quote_in_a_csv_costs_its_own_row_and_is_counted(
    put: Put, packed: Pack, rows: list[str], header: str
) -> None:
    images(put)
    result = packed(put("t.csv", header + "\n".join(rows)))
    assert result.sources() == ["b.jpg", "c.jpg"]
    assert all(len(captions) == 1 for captions in result.captions())
    (line,) = result.rejected
    assert line["row"] == ("t.csv:2" if header else "t.csv:1") and "quote" in line["reason"]


@pytest.mark.parametrize("header", ["", "image,caption\n"])
@pytest.mark.parametrize(
    ("cell", "caption"),
    [
        (r'"A \"red\" dog, wet"', 'A "red" dog, wet'),
        (r'"6\", wide"', '6", wide'),
        (r'"The sign says \"stop\""', 'The sign says "stop"'),
        (r'"A \\ and \"b\", in C:\new"', r'A \ and "b", in C:\new'),
        (r'"It ends with a \"', "It ends with a " + chr(92)),
        ('"A ""red"" dog, wet"', 'A "red" dog, wet'),
        ('"Hello" she said', '"Hello" she said'),
    ],
)
def test_quotes_within_a_cell_are_not_torn(
    put: Put, packed: Pack, cell: str, caption: str, header: str
) -> None:
    images(put)
    result = packed(put("t.csv", f"{header}a.jpg,{cell}\nb.jpg,A cat\n"))
    assert result.captions() == [[caption], ["A cat"]]


def test_a_cell_of_several_lines_stays_one(put: Put, packed: Pack) -> None:
    images(put)
    rows = ['"A dog,\nwet, runs",a.jpg', '"A \\"red\\"\ncat",b.jpg']
    result = packed(put("t.csv", "caption,image\n" + "\n".join(rows)))
    assert result.captions() == [["A dog, wet, runs"], ['A "red" cat']]
    table = put("u.tsv", 'image\tcaption\tmore\na.jpg\t"A\ndog"\tx\n')
    assert packed(table, out=table.parent / "o").captions() == [["A dog"]]


# --- captions that are none, and lines that are none ----------------------------------------------


@pytest.mark.parametrize("text", ["nan", "NaN", " NULL ", "None", "<NA>", "N/A"])
def test_what_stands_for_no_caption_is_none(put: Put, packed: Pack, text: str) -> None:
    images(put, "abc"), put("f/a.jpg"), put("f/a.txt", text), put("f/b.jpg"), put("f/b.txt", "A")
    result = packed(put("t.csv", f"image,caption\na.jpg,{text}\nb.jpg,A dog\nc.jpg,Nan bread\n"))
    assert result.captions() == [["A dog"], ["Nan bread"]]
    assert reasons(result) == {"a.jpg": "no caption"}
    folder = packed(put("f/a.txt", text).parent, out=put("x").parent / "o")
    assert folder.captions() == [["A"]] and list(reasons(folder)) == ["a.jpg"]


def test_json_lines_with_faults(put: Put, packed: Pack) -> None:
    images(put, "a")
    lines = ['{"image": "a.jpg", "caption": "A dog"}', "{", "[1]", '{"image": 3}', ""]
    result = packed(put("t.jsonl", "\ufeff" + "\n".join(lines)))
    assert result.captions() == [["A dog"]]
    assert [line["row"] for line in result.rejected] == ["t.jsonl:2", "t.jsonl:3", "t.jsonl:4"]


# --- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "captions"),
    [
        ("path,caption1,caption2,caption10", ["x", "y", "z"]),
        ("image,caption_1,caption_0,id", ["y", "x"]),
        ("caption 2,image,Caption 1", ["y", "x"]),
        ("image,caption,caption.1,note", ["x", "y"]),
        ("image,sentence_0,other,sentence_1", ["x", "z"]),
    ],
)
def test_numbered_caption_columns_are_the_captions_of_an_image(
    put: Put, packed: Pack, header: str, captions: list[str]
) -> None:
    images(put, "a")
    names = header.split(",")
    values = iter("xyz")
    row = ["a.jpg" if name in ("path", "image") else next(values) for name in names]
    assert packed(put("t.csv", f"{header}\n{','.join(row)}\n")).captions() == [captions]


@pytest.mark.skipif("CLIC_TEST_DATA" not in os.environ, reason="needs Flickr8k's tables")
def test_flickr8k_packs_as_it_is(packed: Pack) -> None:
    source = Path(os.environ["CLIC_TEST_DATA"]) / "flickr8k" / "captions_unused.csv"
    items = list(open_source(str(source), Request()).items())
    assert items and all(len(item.captions) == 5 for item in items)


@pytest.mark.parametrize("form", ["raw", "caption", "text"])
def test_parquet_lists_of_objects(put: Put, packed: Pack, form: str) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images(put, "ab")
    cells = [[{form: "One", "id": 1}, {form: "Two", "id": 2}], [{form: "nan", "id": 3}]]
    path = put("t.parquet", b"")
    parquet.write_table(arrow.table({"image": ["a.jpg", "b.jpg"], "sentences": cells}), path)
    result = packed(path)
    assert result.captions() == [["One", "Two"]]
    assert reasons(result) == {"b.jpg": "no caption"}


def test_lists_of_objects_in_a_cell_and_in_a_json(put: Put, packed: Pack) -> None:
    images(put, "a"), put("f/a.jpg")
    cell = '[{""raw"": ""One""}, {""raw"": ""Two""}]'
    assert packed(put("t.csv", f'image,captions\na.jpg,"{cell}"\n')).captions() == [["One", "Two"]]
    folder = put("f/a.json", '{"captions": [{"caption": "One"}, {"caption": "Two"}]}').parent
    assert packed(folder, out=folder.parent / "o").captions() == [["One", "Two"]]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("A red cat\ta.jpg\nA dog\tb.jpg\n", {}),
        ("7\tA red cat\ta.jpg\n8\tA dog\tb.jpg\n", {}),
        ("cats\tA red cat\tx\ta.jpg\ndogs\tA dog\ty\tb.jpg\n", {}),
        ("A red cat\ta.jpg\nA dog\tb.jpg\n", {"no_header": True}),
        ("caption\ta.jpg\tA red cat\nx\tb.jpg\tA dog\n", {"caption_column": ("3",)}),
        ("a.jpg\tx\tA red cat\nb.jpg\ty\tA dog\n", {"caption_column": ("3",)}),
        (
            "caption\timage\nA dog\ta.jpg\n",
            {"no_header": True, "image_column": "2", "caption_column": ("1",)},
        ),
    ],
)
def test_a_table_without_a_header(
    put: Put, packed: Pack, text: str, settings: dict[str, Any]
) -> None:
    images(put)
    result = packed(put("t.tsv", text), **settings)
    if "image_column" in settings:
        assert [line["row"] for line in result.rejected] == ["t.tsv:1"]
    else:
        assert result.captions() == [["A red cat"], ["A dog"]] and not result.rejected


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("A cat\tOf red\ta.jpg\nA dog\tIt runs\tb.jpg\n", {}),
        ("1\ta.jpg\n2\tb.jpg\n", {}),
        ("A cat\tA dog\n", {"no_header": True}),
    ],
)
def test_a_table_without_a_header_that_cannot_be_told(
    put: Put, text: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="by number with --image-column and --caption-column"):
        open_source(str(put("t.tsv", text)), Request(**settings))


def test_a_table_of_urls_without_a_header_is_told_what_to_do(put: Put, packed: Pack) -> None:
    """CC3M's."""
    rows = [f"A dog {n}\thttp://x.org/{n}" for n in range(3)]
    with pytest.raises(DataError, match="is a URL"):
        packed(put("t.tsv", "\n".join(rows)))


# --- how text is written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_tables_in_any_unicode_and_with_any_line_ends(
    put: Put, packed: Pack, encoding: str, ending: str
) -> None:
    images(put)
    text = ending.join(["image,caption", "a.jpg,A café", 'b.jpg,"A dog, wet"', ""])
    if encoding in ("utf-16-be", "utf-32") and ending == "\r\n":
        text = text.rstrip()
    result = packed(put("t.csv", text.encode(encoding)))
    assert result.captions() == [["A café"], ["A dog, wet"]] and not result.rejected


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"'])
def test_excels_first_line_names_the_separator(put: Put, packed: Pack, line: str) -> None:
    images(put)
    table = put("t.csv", f"{line}\r\nfilepath;caption\r\na.jpg;A dog, wet\r\nb.jpg;\r\n")
    result = packed(table)
    assert result.captions() == [["A dog, wet"]]
    assert result.rejected[0]["row"] == "t.csv:4"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("A café".encode("utf-16"), None),
        ("A café".encode("utf-16-le"), None),
        ("A café".encode("utf-8-sig"), None),
        ("A café".encode("cp1252"), "cp1252"),
        ("A café".encode("utf-16"), "cp1252"),
    ],
)
def test_texts_beside_images_in_their_encodings(
    put: Put, packed: Pack, data: bytes, encoding: str | None
) -> None:
    images(put, "a", "f/")
    assert packed(put("f/a.txt", data).parent, encoding=encoding).captions() == [["A café"]]


def test_a_text_that_is_not_utf8_is_left_out_and_the_remedy_helps(put: Put, packed: Pack) -> None:
    images(put, "a", "f/")
    folder = put("f/a.txt", b"A caf\xe9").parent
    with pytest.raises(DataError, match="--encoding cp1252"):
        packed(folder, out=folder.parent / "o")
    images(put, "a")
    table = put("t.csv", b"image,caption\na.jpg,A caf\xe9\n")
    assert packed(table, encoding="cp1252").captions() == [["A café"]]
    for name in ("cp12521", "hex"):
        with pytest.raises(ConfigError, match=f"--encoding {name}"):
            open_source(str(table), Request(encoding=name))


# --- images: their paths, or the images themselves -----------------------------------------------


def test_paths_as_windows_writes_them(put: Put, packed: Pack) -> None:
    images(put, "ab", "pics/"), put("odd\\name.jpg")
    rows = [r"pics\a.jpg", r".\pics\b.jpg", r"odd\name.jpg", r"C:\data\c.jpg", r"\\nas\d.jpg"]
    rows += [r"..\e.jpg", "D:/f.jpg"]
    table = put("t.csv", "image,caption\n" + "".join(f"{row},A dog\n" for row in rows))
    result = packed(table)
    assert result.sources() == rows[:3]
    found = reasons(result)
    assert all("Windows" in found[name] for name in (rows[3], rows[4], rows[6]))
    assert "leads out of" in found[rows[5]]


@pytest.mark.parametrize("header", ["", "id\timage\tcaption\n"])
@pytest.mark.parametrize("form", ["plain", "url", "bare", "data"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_in_base64(
    put: Put, packed: Pack, image: Image, header: str, form: str, kind: str
) -> None:
    """As OFA's tables hold them, a row a caption."""
    rows = ""
    for number, size in enumerate((20, 30, 20)):
        data = image(size, format=kind)
        cell = (base64.urlsafe_b64encode if form == "url" else base64.b64encode)(data).decode()
        cell = cell.rstrip("=") if form == "bare" else cell
        cell = f"data:image/jpeg;base64,{cell}" if form == "data" else cell
        rows += f"{number}\t{cell}\tA caption {number}\n"
    result = packed(put("t.tsv", header + rows))
    assert result.captions() == [["A caption 0", "A caption 2"], ["A caption 1"]]
    assert [record["width"] for record in result.records] == [20, 30]
    assert result.sources() == [f"t.tsv:{n + bool(header)}" for n in (1, 2)]


def test_images_in_base64_without_captions_or_broken(put: Put, packed: Pack, image: Image) -> None:
    """Chinese-CLIP keeps its captions in another file; no message prints an image."""
    cell = base64.b64encode(image(200, 200)).decode()
    with pytest.raises(DataError, match="in another file") as caught:
        packed(put("imgs.tsv", f"1000002\t{cell}\n1000003\t{cell}\n"))
    assert len(str(caught.value)) < 600
    images(put, "a")
    table = put("t.tsv", f"image\tcaption\n{cell[:-90]}x\tA dog\n{cell[:90]}!\tA cat\na.jpg\tA\n")
    result = packed(table)
    assert result.sources() == ["a.jpg"]
    assert all(len(json.dumps(line)) < 600 for line in result.rejected)
