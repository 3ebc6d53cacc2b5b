"""What is broken is left out, counted and listed; what the user can mend is one line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic.data.packing import Request, open_source
from clic.errors import ClicError, ConfigError, DataError

Put = Callable[..., Path]
Pack = Callable[..., Any]


def reasons(result: Any) -> dict[str, str]:
    """Return why each source was left out."""
    return {line["source"]: line["reason"] for line in result.rejected}


def test_each_fault_has_its_line(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    for name in ("good", "silent"):
        put(f"{name}.jpg")
    put("cut.jpg", image(200, 200)[:-300]), put("text.jpg", "no image"), put("empty.jpg", b"")
    names = ["good", "cut", "text", "empty", "gone"]
    rows = [f"{name}.jpg,A {name} one" for name in names]
    rows += ["silent.jpg,  ", "../up.jpg,A dog", "http://x.org/a.jpg,A dog", ",A dog"]
    result = packed(put("t.csv", "image,caption\n" + "\n".join(rows)))
    assert result.sources() == ["good.jpg"]
    found = reasons(result)
    assert list(found) == [row.split(",")[0] for row in rows[1:]]
    assert "cannot be decoded" in found["cut.jpg"]
    assert "not an image that PIL can read" in found["text.jpg"]
    assert found["gone.jpg"].endswith("gone.jpg: No such file or directory")
    assert found["silent.jpg"] == "no caption"
    assert "leads out of" in found["../up.jpg"] and "--image-root" in found["../up.jpg"]
    assert "is a URL" in found["http://x.org/a.jpg"]
    assert found[""] == "no image is named"
    assert result.rejected[0]["row"] == "t.csv:3"
    assert result.outcome.reasons["no caption"] == 1


def test_rows_of_the_wrong_width(put: Put, packed: Pack) -> None:
    put("a.jpg")
    text = "image,caption,more\na.jpg,A dog,x\na.jpg,A dog\n\na.jpg,A dog, wet,x\n"
    result = packed(put("t.csv", text))
    assert result.captions() == [["A dog"]]
    assert [line["row"] for line in result.rejected] == ["t.csv:3", "t.csv:5"]
    assert [line["source"] for line in result.rejected] == ["a.jpg", "a.jpg"]
    assert result.rejected[1]["reason"].startswith("4 columns where the header has 3")


def test_a_quote_that_never_closes_costs_one_row(put: Put, packed: Pack) -> None:
    """All that follows would be its cell; beyond what a cell may hold, the row alone is lost."""
    put("a.jpg")
    rows = "".join(f"a.jpg,{number} {'A dog ' * 200}\n" for number in range(120))
    result = packed(put("t.csv", f'a.jpg,A cat\na.jpg,"A dog\n{rows}'))
    assert len(result.captions()[0]) == 121
    assert [line["row"] for line in result.rejected] == ["t.csv:2"]


def test_a_quote_that_never_closes_near_the_end(put: Put, packed: Pack) -> None:
    """What follows is no part of its caption."""
    put("a.jpg")
    result = packed(put("t.csv", 'a.jpg,"A\ncat"\na.jpg,"A dog\na.jpg,A cow\na.jpg,A hen'))
    assert result.captions() == [["A cat", "A cow", "A hen"]]
    assert [line["row"] for line in result.rejected] == ["t.csv:3"]
    assert "quote" in result.rejected[0]["reason"]


def test_an_image_too_long_for_a_jpeg(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    put("a.jpg"), put("long.png", image(65_501, 2, "PNG"))
    result = packed(put("t.csv", "long.png,A line\na.jpg,A dog\n"))
    assert result.captions() == [["A dog"]]
    assert "65501 x 2" in reasons(result)["long.png"]


def test_captions_that_are_not_utf8(put: Put, packed: Pack) -> None:
    put("a.jpg")
    result = packed(put("t.csv", b"a.jpg,A caf\xe9\na.jpg,A dog\n"))
    assert result.captions() == [["A dog"]]
    assert "not UTF-8" in result.rejected[0]["reason"]


def test_names_that_are_not_utf8(put: Put, packed: Pack) -> None:
    """The file is found by its bytes, in Linux any bytes will do; its name is told as escapes."""
    import os

    put("x.jpg").rename(os.fsdecode(os.fsencode(put("t").parent) + b"/caf\xe9.jpg"))
    rows = [b"caf\xe9.jpg,A dog", b"gone\xe9.jpg,A cat", "gr\u00fcn.jpg,A cow".encode()]
    result = packed(put("t.csv", b"\n".join(rows)))
    assert result.sources() == ["caf\\udce9.jpg"]
    assert [line["source"] for line in result.rejected] == ["gone\udce9.jpg", "gr\u00fcn.jpg"]
    assert "gr\u00fcn.jpg" in (result.out / "rejected.jsonl").read_text("utf-8")


def test_a_path_that_no_file_can_have(put: Put, packed: Pack) -> None:
    images = [{"id": 1, "file_name": "\ud800.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    notes = [{"image_id": i, "caption": "A dog"} for i in (1, 2)]
    put("a.jpg")
    result = packed(put("c.json", json.dumps({"images": images, "annotations": notes})))
    assert result.sources() == ["a.jpg"]
    assert result.rejected[0]["reason"].endswith("is not a path")


def test_the_same_name_in_two_folders_is_two_samples(put: Put, packed: Pack) -> None:
    put("x/a.jpg"), put("y/a.jpg")
    result = packed(put("t.csv", "x/a.jpg,One\ny/a.jpg,Two\nx/a.jpg,Three\n"))
    assert result.names[::3] == ["000000000.jpg", "000000001.jpg"]
    assert result.sources() == ["x/a.jpg", "y/a.jpg"]
    assert result.captions() == [["One", "Three"], ["Two"]]


def test_coco_ids_twice_or_missing(put: Put, packed: Pack) -> None:
    put("a.jpg")
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    images += [{"file_name": "c"}, {"file_name": "d"}]
    value = {"images": images, "annotations": [{"image_id": 1, "caption": "A dog"}, "x"]}
    result = packed(put("c.json", json.dumps(value)))
    assert result.captions() == [["A dog"]]
    assert reasons(result)["b.jpg"] == "image id 1 occurs twice"
    assert reasons(result)["c"] == reasons(result)["d"] == "it has no id"


def test_negatives_that_are_no_list(put: Put, packed: Pack) -> None:
    put("a.jpg")
    rows = [
        "a.jpg\tA\t['B']",
        "a.jpg\tA\tB",
        "a.jpg\tA\t__import__('os')",
        "a.jpg\tA\t" + "[" * 999,
    ]
    result = packed(put("t.tsv", "filepath\ttitle\tneg_caption\n" + "\n".join(rows)))
    assert [record["negatives"] for record in result.records] == [["B"]]
    assert [line["row"] for line in result.rejected] == ["t.tsv:3", "t.tsv:4", "t.tsv:5"]


# --- archives ------------------------------------------------------------------------------------


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_names_that_lead_out_of_an_archive(
    put: Put, packed: Pack, image: Callable[..., bytes]
) -> None:
    path = put("t.tar", b"")
    names = ["/etc/a", "../b", "in/../../c", "in/../d", "e"]
    write_tar(
        path,
        [(f"{n}.{t}", image() if t == "jpg" else b"A dog") for n in names for t in ("jpg", "txt")],
    )
    result = packed(path)
    assert result.sources() == ["t.tar/e"]
    (line,) = result.rejected
    assert line["source"] == "t.tar"
    assert "its entry '/etc/a.jpg' (and 7 more) leads out of the folder" in line["reason"]


def test_a_tar_with_faults(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    path = put("t.tar", b"")
    members = [("a.jpg", image()), ("a.json", b'{"caption": '), ("b.txt", b"A dog")]
    members += [("c.jpg", image()), ("d.jpg", image()), ("d.txt", b"A dog")]
    members += [("e.jpg", image()), ("e.json", b'{"caption": "' + b"x" * 2_000_000 + b'"}')]
    write_tar(path, members)
    result = packed(path)
    assert result.sources() == ["t.tar/d"]
    found = reasons(result)
    assert "a.json is not valid JSON" in found["t.tar/a"]
    assert found["t.tar/b"] == "no image among its files (.txt)"
    assert found["t.tar/c"] == "no caption in its .json or .txt"
    assert "larger than 1,000,000 bytes" in found["t.tar/e"]


def test_a_tar_that_was_cut(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    path = put("t.tar", b"")
    write_tar(
        path, [(f"{k}.{t}", image() if t == "jpg" else b"A") for k in "abc" for t in ("jpg", "txt")]
    )
    path.write_bytes(path.read_bytes()[: 512 * 9])  # behind b.jpg
    result = packed(path)
    assert result.sources() == ["t.tar/a"]
    assert len(result.rejected) >= 1 and "t.tar" in reasons(result)


def test_links_in_a_tar_are_not_followed(
    put: Put, packed: Pack, image: Callable[..., bytes]
) -> None:
    path = put("t.tar", b"")
    with tarfile.open(path, "w") as file:
        for name, data in (("a.txt", b"A dog"), ("b.jpg", image()), ("b.txt", b"A dog")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
            if name == "a.txt":
                link = tarfile.TarInfo("a.jpg")
                link.type, link.linkname = tarfile.SYMTYPE, str(put("secret.jpg"))
                file.addfile(link)
    assert packed(path).sources() == ["t.tar/b"]


# --- images --------------------------------------------------------------------------------------


def test_absolute_paths_are_the_users_own(put: Put, packed: Pack) -> None:
    path = put("elsewhere/a.jpg")
    assert packed(put("t/t.csv", f"{path},A dog\n")).sources() == [str(path)]


def test_images_are_shrunk_turned_and_made_jpeg(
    put: Put, packed: Pack, image: Callable[..., bytes]
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    put("large.jpg", image(1000, 600)), put("turned.jpg", image(40, 20, exif=turned))
    put("small.png", image(30, 20, "PNG")), put("plain.jpg", image(30, 20))
    rows = "".join(f"{n},A dog\n" for n in ("large.jpg", "turned.jpg", "small.png", "plain.jpg"))
    result = packed(put("t.csv", rows), resize_short=100, quality=80)
    assert [(r["width"], r["height"]) for r in result.records] == [
        (167, 100),
        (20, 40),
        (30, 20),
        (30, 20),
    ]
    stored = [Image.open(io.BytesIO(result.members[f"{i:09d}.jpg"])) for i in range(4)]
    assert [(s.width, s.height, s.format) for s in stored][:2] == [
        (167, 100, "JPEG"),
        (20, 40, "JPEG"),
    ]
    assert not stored[1].getexif()
    assert result.members["000000003.jpg"] == image(30, 20)  # nothing to gain


def test_originals_are_kept(put: Put, packed: Pack, image: Callable[..., bytes]) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = [image(1000, 600), image(40, 20, exif=turned), image(30, 20, "PNG"), image(9, 9, "PPM")]
    for name, content in zip("abcd", data, strict=True):
        put(f"{name}.jpg", content)
    rows = "".join(f"{name}.jpg,A dog\n" for name in "abcd")
    result = packed(put("t.csv", rows), resize_short=None, quality=None)
    assert [
        result.members[f"00000000{i}.{e}"] for i, e in enumerate(("jpg", "jpg", "png"))
    ] == data[:3]
    assert (result.records[1]["width"], result.records[1]["height"]) == (20, 40)
    assert "PPM" in result.rejected[0]["reason"]


# --- captions ------------------------------------------------------------------------------------


def test_sentences_are_prepared(put: Put, packed: Pack) -> None:
    put("a.jpg"), put("b.jpg")
    dense = "The image shows a dog on a mat. Wow. It runs over the wet grass!"
    source = put("t.csv", f"a.jpg,{dense}\nb.jpg,Only one sentence is here.\n")
    result = packed(source, prepare_sentences=True)
    assert result.captions() == [["A dog on a mat.", "It runs over the wet grass!"]]
    assert result.rejected[0]["reason"] == "fewer than 2 sentences of 4 to 34 words"


def test_tags_are_stored_and_read(put: Put, packed: Pack) -> None:
    from clic.captions.tagging import make_tagger
    from clic.data import ShardSource

    put("a.jpg")
    result = packed(put("t.csv", "a.jpg,A wet dog runs,It barks\n"), tags="hanta")
    tagger = make_tagger("hanta")
    tags = ShardSource(str(result.out)).read(0).tags
    assert tags == (tagger("A wet dog runs"), tagger("It barks"))


# --- what the user can mend ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("t.csv", "", ["is empty"]),
        ("t.csv", "no separator here\nnone\n", ["one column", "--separator"]),
        ("t.csv", "a,b\n1,2\n", ["--image-column", "(columns: a, b)"]),
        ("t.csv", "image,b\n1.jpg,2\n", ["--caption-column", "(columns: image, b)"]),
        ("t.csv", "image,text,text\n", ["'text'", "twice"]),
        ("t.csv", b"a,b\0\1\2", ["UTF-8"]),
        ("t.json", "{", ["not valid JSON"]),
        ("t.json", '{"images": []}', ["neither COCO", "Karpathy"]),
        ("t.xyz", "x", ["--format", "clic-csv"]),
        ("t.parquet", b"x", ["parquet"]),
        ("d/readme.md", "x", ["neither images, nor tars"]),
        ("d/captions.csv", "x", ["holds captions.csv: name that file", "--format folder"]),
        ("t.csv.gz", "x", ["is compressed; unpack it first"]),
        ("t.csv", "image,caption\n", ["nothing to pack"]),
    ],
)
def test_sources_that_cannot_be_packed(
    put: Put, packed: Pack, tmp_path: Path, name: str, content: str | bytes, parts: list[str]
) -> None:
    path = put(name, content)
    with pytest.raises(DataError) as caught:
        packed(path.parent if name.startswith("d/") else path)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "error", "parts"),
    [
        ({"format": "csw"}, ConfigError, ["--format='csw'", "clic-csv"]),
        ({"split": "train"}, ConfigError, ["--split has no effect", "table"]),
        ({"image_column": "imag"}, ConfigError, ["--image-column imag", "did you mean 'image'"]),
        ({"caption_column": ("x",)}, ConfigError, ["--caption-column x", "columns: image"]),
        ({"image_root": Path("/nowhere")}, DataError, ["--image-root /nowhere"]),
        ({"separator": "--"}, DataError, ["--separator '--'", "tab"]),
        ({"format": "coco"}, DataError, ["not valid JSON"]),
        ({"format": "negclip"}, DataError, ["neg_caption", "--format table"]),
    ],
)
def test_options_that_do_not_fit(
    put: Put, settings: dict[str, Any], error: type[ClicError], parts: list[str]
) -> None:
    path = put("t.csv", "image,caption\na.jpg,A dog\n")
    format = settings.pop("format", None)
    with pytest.raises(error) as caught:
        open_source(str(path), Request(**settings), format)
    for part in parts:
        assert part in str(caught.value)


def test_a_source_that_is_not_there(put: Put) -> None:
    path = put("captions.csv", "x")
    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'captions\.csv'"):
        open_source(str(path.with_name("caption.csv")), Request())


def test_splits_that_are_not_there(put: Put) -> None:
    images = [{"split": "test", "filename": "a.jpg", "sentences": []}]
    path = put("d.json", json.dumps({"images": images}))
    with pytest.raises(ConfigError, match=r"--split tset.*did you mean 'test'"):
        open_source(str(path), Request(split="tset"))
    with pytest.raises(DataError, match=r"no split train,restval.*--split \(test\)"):
        open_source(str(path), Request())


def test_a_missing_extra_says_what_to_install(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pyarrow.*pip install pyarrow"):
        open_source(str(put("t.parquet", b"x")), Request())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"datasets.*pip install datasets"):
        open_source("hf:org/name", Request())


def test_nothing_left_is_an_error_that_can_be_mended(put: Put, packed: Pack) -> None:
    table = put("t/t.csv", "a.jpg,A dog\nb.jpg,A cat\n")
    put("i/a.jpg")
    with pytest.raises(DataError, match=r"none of 2 could be packed \(2 x No such file.*rejected"):
        packed(table)
    result = packed(table, image_root=table.parent.parent / "i")  # other options, the same folder
    assert (result.sources(), len(result.rejected)) == (["a.jpg"], 1)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("image: image of 5321 bytes (JPEG) cannot be decoded (cut: 12 left); drop it", "image"),
        ("a.jpg: No such file or directory", "No such file or directory"),
        ("its text is not UTF-8; save the source as UTF-8", "its text is not UTF-8"),
    ],
)
def test_reasons_are_counted_without_what_is_particular(reason: str, kind: str) -> None:
    from clic.data.packing.packer import _kind

    counted = _kind(reason)
    assert counted.startswith(kind) and "(" not in counted and ")" not in counted
