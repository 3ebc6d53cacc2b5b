"""Folders, tars and patterns as people have them: nothing is left out unsaid."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from clic.data import ShardSource
from clic.data.packing import Request, open_source
from clic.errors import DataError

Put = Callable[..., Path]
Pack = Callable[..., Any]
Image = Callable[..., bytes]


def images(put: Put, names: str = "abcd", folder: str = "") -> None:
    for name in names:
        put(f"{folder}{name}.jpg")


def reasons(result: Any) -> dict[str, str]:
    return {line["source"]: line["reason"] for line in result.rejected}


# --- folders -------------------------------------------------------------------------------------


def test_linked_folders_are_followed_once(put: Put, packed: Pack) -> None:
    put("real/sub/a.jpg"), put("real/sub/a.txt", "A"), put("src/in/b.jpg"), put("src/in/b.txt", "B")
    source = put("src/c.jpg").parent
    put("src/c.txt", "C")
    (source / "linked").symlink_to(source.parent / "real")
    (source / "again").symlink_to(source.parent / "real" / "sub")
    (source / "inner").symlink_to(source / "in")
    (source / "loop").symlink_to(source)
    (source / "up").symlink_to(source.parent)
    (source / "gone").symlink_to(source / "nowhere")
    (source / "self").symlink_to(source / "self")
    (source.parent / "real" / "back").symlink_to(source)
    result = packed(source)
    assert result.captions() == [["C"], ["A"], ["B"]]
    assert set(reasons(result)) == {
        *("inner", "loop", "up", "gone", "self", "linked/back", "linked/sub"),
    }


@pytest.mark.parametrize("depth", ["linked", "deep/linked"])
def test_a_folder_of_nothing_but_links_is_one(put: Put, packed: Pack, depth: str) -> None:
    images(put, "a", "real/"), put("real/a.txt", "A")
    link = put(f"only/{depth}")
    link.unlink()
    link.symlink_to(put("real/a.txt", "A").parent)
    assert packed(put("x").parent / "only").captions() == [["A"]]


@pytest.mark.parametrize("name", ["A.JPG", "A.jfif", "A.JPEG", "A.jpe"])
@pytest.mark.parametrize("text", ["A.TXT", "A.Txt", "A.txt", "A.JSON"])
def test_endings_in_any_case(put: Put, packed: Pack, name: str, text: str) -> None:
    put(f"f/{name}")
    content = '{"caption": "A cat"}' if text.endswith("JSON") else "A cat"
    result = packed(put(f"f/{text}", content).parent)
    assert result.captions() == [["A cat"]] and not result.rejected


# --- tars ----------------------------------------------------------------------------------------


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


A, B, X, Y = ("a.jpg", 20), ("a.jpg", 30), ("a.txt", "One"), ("a.txt", "Two")
TARS = {
    # members (images by their width), and what is said of them
    "two tars in one": ([A, X, B, Y], "1 keys occur again"),
    "an image behind": ([A, X, B], "1 keys occur again"),
    "by type": ([A, B, X, Y], "2 members have the name of a later one"),
    "an image twice": ([A, B, X], "1 members have the name of a later one"),
    "dots that pair": ([("v1.0 a.JPG", 20), ("v1.0 a.txt", "One"), ("v1.0 b.jpg", 30),
                        ("v1.0 b.txt", "Two")], "2 samples are read by the last dot"),
    "dots that do not": ([("a.left.jpg", 20), ("a.txt", "One")], ""),
    "parts of one": ([A, ("a.seg.png", 9), ("a.crop.txt", "Part"), X], ""),
    "junk": ([("__MACOSX/a.jpg", 9), ("__MACOSX/a.txt", "?"), ("in/.DS_Store", "?"), A,
              ("._a.jpg", "?"), ("PaxHeaders.1/a.txt", "?"), X], ""),
    "rare endings": ([("a.pjp", 20), X, ("a.pjp", 30), Y, ("v1.0.PJPEG", 9), ("v1.0.txt", "B")],
                     "1 keys occur again"),
    "two formats": ([("a.png", 30), A, X], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", TARS)
def test_a_tar_holds_the_same_samples_for_packing_as_for_the_index(
    put: Put, packed: Pack, image: Image, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    members, said = TARS[case]
    tail = [("b.jpg", 24), ("b.txt", "Last")]
    path = write(
        put("0.tar", b""),
        [(n, w.encode() if isinstance(w, str) else image(w)) for n, w in [*members, *tail]],
    )
    result = packed(path)
    told = [line for line in capsys.readouterr().err.splitlines() if said in line]
    source = ShardSource(str(path))
    read = [source.read(i) for i in range(len(source))]
    assert result.sources() == [f"0.tar/{sample.key}" for sample in read]
    assert result.captions() == [list(sample.captions) for sample in read]
    widths = [PIL.Image.open(io.BytesIO(sample.image)).width for sample in read]
    assert [record["width"] for record in result.records] == widths
    error = capsys.readouterr().err.splitlines()
    assert bool(said) == bool(told) and set(told) <= set(error)
    left_out = [line for line in error if "are left out" in line]
    assert len(result.rejected) == len(left_out)
    assert all("first dot" in line["reason"] for line in result.rejected if "dots" in case)


def test_what_a_broken_tar_repeats_is_said_too(
    put: Put, packed: Pack, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [("a.jpg", image(20)), ("a.jpg", image(30)), ("a.txt", b"One"), ("b.jpg", image())]
    path = write(put("t.tar", b""), members)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"b.jpg") + 600])
    result = packed(path)
    assert result.captions() == [["One"]] and result.records[0]["width"] == 30
    assert "not all of the tar is packed" in reasons(result)["t.tar"]
    assert f"{path}: 1 members have the name of a later one" in capsys.readouterr().err


def test_a_samples_files_need_not_lie_side_by_side(put: Put, packed: Pack, image: Image) -> None:
    members = [(f"{n}.jpg", image()) for n in range(3)] + [("._0.jpg", b"macOS")]
    path = write(put("t.tar", b""), members + [(f"{n}.TXT", f"A {n}".encode()) for n in range(3)])
    result = packed(path)
    assert result.captions() == [["A 0"], ["A 1"], ["A 2"]] and not result.rejected


def test_our_own_shards_packed_again_keep_all_that_they_hold(put: Put, packed: Pack) -> None:
    images(put, "abc")
    rows = ["gone.jpg\tX\t['y']\t[2]", "a.jpg\tA red cat\t['A blue cat', 'B']\t[2, 0]"]
    rows += ["b.jpg\tA dog runs\t['A frog runs']\t[1]"]
    table = put("n.tsv", "filepath\ttitle\tneg_caption\tneg_image\n" + "\n".join(rows))
    first = packed(table, tags="hanta", out=table.parent / "first")
    again = packed(first.out, resize_short=10)
    assert [r["key"] for r in again.records] == ["000000000", "000000001"]
    assert [r["neighbours"] for r in again.records] == [["000000001"], ["000000000"]]
    for name in ("captions", "source", "negatives", "tokens", "tagger", "caption_hash"):
        assert [r[name] for r in again.records] == [r[name] for r in first.records], name
    old, new = (ShardSource(str(found.out), negatives=True) for found in (first, again))
    assert [old.read(i).tags for i in range(2)] == [new.read(i).tags for i in range(2)]
    assert [old.read(i).negatives for i in range(2)] == [new.read(i).negatives for i in range(2)]


def test_tags_of_captions_that_change_are_not_kept(put: Put, packed: Pack) -> None:
    images(put, "a")
    dense = "The image shows a wet brown dog. It runs over the grass."
    first = packed(put("t.csv", f"a.jpg,{dense}\n"), tags="hanta", out=put("x").parent / "first")
    again = packed(first.out, prepare_sentences=True)
    assert again.captions() == [["A wet brown dog.", "It runs over the grass."]]
    assert "tokens" not in again.records[0] and again.sources() == ["a.jpg"]


# --- patterns ------------------------------------------------------------------------------------


def test_patterns_of_tars_and_of_tables(put: Put, packed: Pack, image: Image) -> None:
    for number in range(2):
        write(put(f"s{number}/0.tar", b""), [("a.jpg", image()), ("a.txt", b"A dog")])
    images(put, "a"), put("one.csv", "a.jpg,A cat\n")
    here = put("x").parent
    assert len(packed(f"{here}/s*/*.tar", out=here / "o").records) == 2
    assert len(ShardSource(f"{here}/s?/*.tar")) == 2
    assert packed(f"{here}/*.csv", out=here / "p").captions() == [["A cat"]]
    put("two.csv", "a.jpg,A cat\n")
    with pytest.raises(DataError, match="2 files match this pattern"):
        open_source(f"{here}/*.csv", Request())
    for pattern in ("q*.csv", "q*.tar"):
        with pytest.raises(DataError, match="no file matches this pattern"):
            open_source(f"{here}/{pattern}", Request())


# --- what is counted of captions -----------------------------------------------------------------


def test_captions_that_a_context_of_77_cuts_are_counted(put: Put, packed: Pack) -> None:
    images(put)
    dense = "A wet dog runs over green grass. " * 12
    rows = f"a.jpg,A dog\nb.jpg,{dense}\nc.jpg,A dog runs over grass. A cat sits on a mat.\n"
    outcome = packed(put("t.csv", rows)).outcome
    assert (outcome.captions, outcome.cut, outcome.several) == (3, 1, 2)
