"""`clic-data pack` and `clic-data verify` as they are typed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Clic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV of three images, of which one is missing."""
    for name, size in (("a", (30, 20)), ("b", (20, 30))):
        Image.new("RGB", size, (200, 30, 40)).save(tmp_path / f"{name}.jpg")
    path = tmp_path / "captions.csv"
    path.write_text("image,caption,id\n" + "".join(f"{n}.jpg,A wet dog {n},1\n" for n in "abc"))
    return path


def test_pack_says_what_it_took_the_source_for(clic_data: Clic, table: Path) -> None:
    code, out, err = clic_data("pack", "captions.csv", "shards", "--workers", 1)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "captions.csv: table",
        "  separator: comma (detected)",
        "  image column 'image' (guessed), caption column 'caption' (guessed)",
        "  columns left out: 'id'",
        f"  images below {table.parent}",
        "shards: 2 samples in 1 shard, 0.0 MB",
        "  1 of 3 were left out: shards/rejected.jsonl",
        "        1 x No such file or directory",
    ]
    line = json.loads((table.parent / "shards" / "rejected.jsonl").read_text())
    assert (line["source"], line["row"]) == ("c.jpg", "captions.csv:4")


def test_pack_says_how_many_rows_name_an_image(clic_data: Clic, table: Path) -> None:
    table.write_text("image,caption\na.jpg,A dog\na.jpg,A wet dog\nb.jpg,A cat\n")
    _, out, _ = clic_data("pack", "captions.csv", "shards", "--workers", 1)
    wanted = "  3 rows name 2 images: their captions are grouped by image"
    assert out.splitlines()[-1] == wanted
    _, again, _ = clic_data("pack", "captions.csv", "shards", "--workers", 1)
    assert again.splitlines()[-1] == wanted


@pytest.mark.parametrize(
    ("caption", "part"),
    [
        ("A wet dog runs over green grass. " * 12, "1 of 1 captions are longer than the 77 tokens"),
        ("A dog runs over grass. A cat sits on a mat.", "1 of 1 captions hold several sentences"),
        ("A dog.", ""),
    ],
)
def test_pack_hints_at_sentences_where_captions_are_dense(
    clic_data: Clic, table: Path, caption: str, part: str
) -> None:
    table.write_text(f"image,caption\na.jpg,{caption}\n")
    _, out, _ = clic_data("pack", "captions.csv", "dense", "--workers", 1)
    assert part in out and ("--prepare-sentences" in out) == bool(part)
    if part:
        words = ("pack", "captions.csv", "s", "--workers", 1, "--prepare-sentences")
        assert "--prepare-sentences" not in clic_data(*words)[1]


def test_pack_takes_columns_by_number(clic_data: Clic, table: Path) -> None:
    table.write_text("caption,image,x\nA dog,a.jpg,A wet dog\n")
    words = ("--no-header", "--image-column", 2, "--caption-column", 3, "--encoding", "cp1252")
    code, out, _ = clic_data("pack", "captions.csv", "s", "--workers", 1, *words)
    assert code == 0 and "  no header (said): columns are numbered from 1\n" in out
    assert "s: 1 samples in 1 shard" in out


def test_pack_again_says_that_it_was_done(clic_data: Clic, table: Path) -> None:
    clic_data("pack", "captions.csv", "shards", "--workers", 1)
    code, out, _ = clic_data("pack", "captions.csv", "shards", "--workers", 1)
    assert code == 0 and "shards had been packed already\n" in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["pack"], ["SOURCE"]),
        (["pack", "captions.csv"], ["OUT"]),
        (["pack", "caption.csv", "s"], ["caption.csv", "did you mean 'captions.csv'"]),
        (["pack", "captions.csv", "captions.csv"], ["OUT captions.csv is a file"]),
        (["pack", "captions.csv", "s", "--formt", "table"], ["--formt"]),
        (["pack", "captions.csv", "s", "--format", "tabel"], ["did you mean 'table'"]),
        (["pack", "captions.csv", "s", "--quality", "0"], ["--quality 0", "1 and 95"]),
        (["pack", "captions.csv", "s", "--resize-short", "-3"], ["--resize-short -3"]),
        (["pack", "captions.csv", "s", "--workers", "0"], ["--workers 0"]),
        (["pack", "captions.csv", "s", "--shard-size", "0"], ["--shard-size 0"]),
        (["pack", "captions.csv", "s", "--shard-mb", "0"], ["--shard-mb 0"]),
        (["pack", "captions.csv", "s", "--keep-original", "--quality", "80"], ["no effect"]),
        (["pack", "captions.csv", "s", "--tags", "hana"], ["did you mean 'hanta'"]),
        (["pack", "captions.csv", "s", "--split", "train"], ["--split has no effect"]),
        (["pack", "captions.csv", "s", "--image-column", "im"], ["no such column"]),
        (["pack", "captions.csv", "s", "quality=3"], ["'quality=3'"]),
        (["pack", ".", "."], ["OUT . is SOURCE itself"]),
        (["pack", "captions.csv", "/proc/x"], ["OUT /proc/x cannot be written to"]),
        (["verify"], ["SHARDS"]),
        (["verify", "nowhere"], ["nowhere"]),
        (["verify", "."], ["no .tar files"]),
        (["verify", "a.jpg"], ["not a .tar file"]),
        (["verify", ".", "--workers", "0"], ["--workers 0"]),
        (["verify", ".", "--out", "no/h.png"], ["no/h.png", "no folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_exit_2(
    clic_data: Clic, table: Path, words: list[str], parts: list[str]
) -> None:
    before = sorted(table.parent.iterdir())
    code, _, err = clic_data(*words)
    assert code == 2
    assert err.count("\n") == 1 and ": error: " in err, err
    for part in parts:
        assert part in err
    assert sorted(table.parent.iterdir()) == before


def test_verify_prints_a_summary(clic_data: Clic, table: Path) -> None:
    clic_data("pack", "captions.csv", "shards", "--workers", 1, "--tags", "hanta")
    code, out, err = clic_data("verify", "shards", "--workers", 1, "--out", "h.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("2 samples in 1 tar, ")
    assert lines[1].split() == [
        "images",
        "landscape",
        "50.0",
        "%,",
        "square",
        "0.0",
        "%,",
        "portrait",
        "50.0",
        "%",
    ]
    assert lines[4].startswith("  tags      stored with 2 samples (hanta ")
    assert " ".join(lines[6].split()) == "captions 6 6 6 0.0 % 0.0 %"
    assert lines[8].split() == [
        "two",
        "first",
        "captions",
        "joined",
        "10",
        "10",
        "10",
        "0.0",
        "%",
        "0.0",
        "%",
    ]
    assert lines[-2:] == ["h.png: histograms", "nothing is broken"]
    assert all(len(line) <= 80 for line in lines)
    assert Image.open("h.png").format == "PNG"


def test_verify_ends_with_1_and_names_what_is_broken(clic_data: Clic, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (99, 99)).save(buffer, "JPEG")
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for key in range(12):
            for ending, data in (("jpg", buffer.getvalue()[:-90]), ("txt", b"a dog")):
                info = tarfile.TarInfo(f"{key:02d}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    code, out, _ = clic_data("verify", "0.tar", "--workers", 1)
    lines = out.splitlines()
    assert code == 1
    assert lines[0].startswith("12 samples in 1 tar")
    assert "  without an index: 1 tars (clic-data index makes it)" in lines
    assert "12 broken:" in lines
    assert lines[-11].startswith("  0.tar/00: image of ")
    assert lines[-1] == "  and 2 more"
