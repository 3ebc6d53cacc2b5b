"""Which members of a tar make a sample: wherever they lie, whatever they are called."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from clic.data import ShardSource, write_index
from clic.data.shards.index import index_path
from clic.data.shards.shard_source import _read_spans
from clic.data.shards.tar import Span
from clic.data.tools.verifying import Findings, check_shard
from clic.errors import DataError
from clic.io.processes import Ticker

Jpeg = Callable[..., bytes]
Entries = Sequence[tuple[str, bytes]]


def tar_of(path: Path, entries: Entries) -> Path:
    """Write a tar in which names may occur again."""
    with tarfile.open(path, "w") as file:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def colours(source: ShardSource) -> dict[str, tuple[int, str]]:
    """Return the width of each image and its caption by key."""
    read = [source.read(i) for i in range(len(source))]
    return {s.key: (Image.open(io.BytesIO(s.image)).width, s.captions[0]) for s in read}


def check(shard: Path) -> Findings:
    return check_shard("ViT-B-32", shard, Ticker(lambda count: None))


def agree(shard: Path, source: ShardSource) -> Findings:
    """Return what `verify` finds, which is what the index holds."""
    found = check(shard)
    assert (found.broken, found.samples) == (0, len(source)), found.problems
    return found


LAYOUTS: dict[str, list[str]] = {
    "side by side": ["0.jpg", "0.txt", "1.jpg", "1.txt", "2.jpg", "2.txt"],
    "by type": ["0.jpg", "1.jpg", "2.jpg", "0.txt", "1.txt", "2.txt"],
    "texts first": ["2.txt", "1.txt", "0.txt", "0.jpg", "1.jpg", "2.jpg"],
    "mixed": ["0.txt", "1.jpg", "0.jpg", "2.jpg", "1.txt", "2.txt"],
    "in two folders of one name": ["0.jpg", "1.jpg", "2.jpg", "./0.txt", "./1.txt", ".//2.txt"],
    "with ./": ["./0.jpg", "./1.jpg", "./2.jpg", "./0.txt", "./1.txt", "./2.txt"],
    "other endings": ["0.JPG", "1.jfif", "2.JPE", "0.TXT", "1.Txt", "2.txt"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_members_are_grouped_wherever_they_lie(tmp_path: Path, layout: str, jpeg: Jpeg) -> None:
    entries = []
    for name in LAYOUTS[layout]:
        number = int(name.lstrip("./")[0])
        text = name.lower().endswith(".txt")
        entries.append((name, b"number %d" % number if text else jpeg(20 + number, 10)))
    shard = tar_of(tmp_path / "x.tar", entries)
    source = ShardSource(str(shard))
    found = {key.removeprefix("./"): value for key, value in colours(source).items()}
    assert found == {str(i): (20 + i, f"number {i}") for i in range(3)}
    assert agree(shard, source).left_out == 0


def test_keys_are_webdatasets_where_it_reads_the_tar(tmp_path: Path, jpeg: Jpeg) -> None:
    entries: list[tuple[str, bytes]] = []
    for key in ("000", "in/001", "a.b/002", "./003"):
        entries += [
            (f"{key}.jpg", jpeg()), (f"{key}.txt", b"a dog"), (f"{key}.seg.png", b"a mask"),
            (f"{key}.crop.jpg", jpeg(5, 5)), (f"{key}.crop.txt", b"a part"), (f"{key}.cls", b"3"),
        ]  # fmt: skip
    shard = tar_of(tmp_path / "x.tar", [*entries, ("._000.jpg", b"x"), (".DS_Store", b"x")])
    theirs = [s["__key__"] for s in webdataset.WebDataset(str(shard), shardshuffle=False)]
    source = ShardSource(str(shard))
    assert [source.read(i).key for i in range(len(source))] == theirs
    assert agree(shard, source).notes == []


def test_names_with_dots_are_read_where_they_pair(
    tmp_path: Path, jpeg: Jpeg, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["IMG.2024.001", "IMG.2024.B02", "Screenshot 10.30.11", "in/v1.0 final"]
    entries: list[tuple[str, bytes]] = []
    for number, name in enumerate(names):
        entries += [(f"{name}.JPG", jpeg(20 + number)), (f"{name}.txt", b"of %d" % number)]
    shard = tar_of(tmp_path / "x.tar", [*entries, ("IMG.2024.003.jpg", jpeg())])
    source = ShardSource(str(shard))
    assert colours(source) == {name: (20 + i, f"of {i}") for i, name in enumerate(names)}
    found = agree(shard, source)
    assert found.left_out == 1
    assert "4 samples are read by the last dot" in found.notes[0]
    assert found.notes[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [
        ("0.image.jpg", "0.caption.txt"),
        ("0.jpg", "0.caption.txt"),
        ("0.left.jpg", "0.right.jpg", "0.txt"),
    ],
)
def test_names_with_dots_that_do_not_pair_are_explained(
    tmp_path: Path, names: tuple[str, ...], jpeg: Jpeg, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [(name, b"x" if name.endswith(".txt") else jpeg()) for name in names]
    message = r"a key ends at the first dot of a name, and 0\.\w+\.\w+ is '0\S* '\.\w+\.\w+'; give"
    with pytest.raises(DataError, match=message):
        write_index(tar_of(tmp_path / "x.tar", entries))
    write_index(tar_of(tmp_path / "y.tar", [*entries, ("a.jpg", jpeg()), ("a.txt", b"x")]))
    error = capsys.readouterr().err
    assert "1 of 2 keys" in error and "first dot of a name" in error


JUNK = [
    *("._a.jpg", "._a.txt", "in/._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/a.jpg", "__MACOSX/a.txt"),
    *(".DS_Store", "in/.DS_Store", "PaxHeaders.123/a.jpg", "in/PaxHeaders/a.txt"),
]


@pytest.mark.parametrize("first", [True, False])
def test_what_macos_and_pax_add_is_no_member(tmp_path: Path, first: bool, jpeg: Jpeg) -> None:
    junk = [(name, b"\0\5\x16\7 resource fork") for name in JUNK]
    own = [("a.jpg", jpeg()), ("a.txt", b"a dog")]
    shard = tar_of(tmp_path / "x.tar", junk + own if first else own + junk)
    source = ShardSource(str(shard))
    assert colours(source) == {"a": (20, "a dog")}
    assert agree(shard, source).left_out == 0


def test_macos_copies_of_tars_in_a_folder_are_passed_over(tmp_path: Path, jpeg: Jpeg) -> None:
    tar_of(tmp_path / "0.TAR", [("a.jpg", jpeg()), ("a.txt", b"x")])
    (tmp_path / "._0.TAR").write_bytes(b"\0\5\x16\7")
    assert len(ShardSource(str(tmp_path))) == 1


A, B = ("a.jpg", 21), ("a.jpg", 22)
X, Y = ("a.txt", "first"), ("a.txt", "second")
REPEATED = {
    # members, the samples that are read, keys that are left out, what is said
    "two whole samples": ((A, X, B, Y), [(21, "first"), (22, "second")], 0, "1 keys occur again"),
    "two tars in one": ((A, X, ("b.jpg", 9), ("b.txt", "b"), B, Y),
                        [(21, "first"), (22, "second"), (9, "b")], 0, "1 keys occur again"),
    "an image behind": ((A, X, B), [(21, "first")], 1, "1 keys occur again"),
    "a text behind": ((A, X, Y), [(21, "first")], 1, "1 keys occur again"),
    "by type": ((A, B, X, Y), [(22, "second")], 0, "2 members have the name of a later one"),
    "an image twice": ((A, B, X), [(22, "first")], 0, "1 members have the name of a later one"),
    "capitals": ((A, ("a.JPG", 22), X), [(22, "first")], 0, "1 members have the name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REPEATED)
def test_names_that_occur_again_are_said_and_paired_rightly(
    tmp_path: Path, case: str, jpeg: Jpeg, capsys: pytest.CaptureFixture[str]
) -> None:
    members, samples, left_out, said = REPEATED[case]
    entries = [
        (name, what.encode() if isinstance(what, str) else jpeg(what)) for name, what in members
    ]
    shard = tar_of(tmp_path / "x.tar", entries)
    source = ShardSource(str(shard))
    read = [source.read(i) for i in range(len(source))]
    assert [(Image.open(io.BytesIO(s.image)).width, s.captions[0]) for s in read] == samples
    assert said in capsys.readouterr().err
    found = agree(shard, source)
    assert (found.left_out, len(found.notes)) == (left_out, 1)
    assert said in found.notes[0]


@pytest.mark.parametrize(
    ("pack", "command"),
    [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")],
)
def test_compressed_tars_are_named_with_the_remedy(
    tmp_path: Path, pack: Callable[[bytes], bytes], command: str, jpeg: Jpeg
) -> None:
    data = pack(tar_of(tmp_path / "x", [("a.jpg", jpeg()), ("a.txt", b"x")]).read_bytes())
    ending = {"gunzip": "gz", "bunzip2": "bz2", "unxz": "xz"}[command]
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(DataError, match=rf"0\.tar is compressed by .*{command} .*0\.tar\.{ending}"):
        ShardSource(str(tmp_path / "0.tar"))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (f"1.tar.{ending}", f"1.T{ending}"):
        (folder / name).write_bytes(data)
        for named in (folder, folder / name):
            with pytest.raises(DataError, match=rf"{command} -c .*/{name} > .*/1\.tar"):
                ShardSource(str(named))
        (folder / name).unlink()


TEXTS = {
    "UTF-8": ("a café".encode(), "a café"),
    "with a byte order mark": ("a café".encode("utf-8-sig"), "a café"),
    "UTF-16": ("a café".encode("utf-16"), "a café"),
    "UTF-16, big end first": ("\ufeffa café".encode("utf-16-be"), "a café"),
    "UTF-32": ("a café".encode("utf-32"), "a café"),
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_texts_are_decoded_as_their_byte_order_mark_says(
    tmp_path: Path, encoding: str, jpeg: Jpeg
) -> None:
    data, text = TEXTS[encoding]
    shard = tar_of(tmp_path / "x.tar", [("a.jpg", jpeg()), ("a.txt", data + b"")])
    assert colours(ShardSource(str(shard))) == {"a": (20, text)}
    record = '{"caption": "a café"}'
    codec = "utf-8" if encoding == "UTF-8" else {"w": "utf-8-sig", "U": encoding[:6]}[encoding[0]]
    shard = tar_of(tmp_path / "y.tar", [("a.jpg", jpeg()), ("a.json", record.encode(codec))])
    source = ShardSource(str(shard))
    assert colours(source) == {"a": (20, text)}
    agree(shard, source)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("b.txt", "a café".encode("cp1252"), r"b: its text is not UTF-8 .*iconv"),
        ("b.txt", "a dog".encode("utf-16-le"), r"b: its text holds zero bytes.*UTF-16"),
        ("b.txt", b"\xff\xfea", r"b: its text is not UTF-16"),
        ("b.json", '{"caption": "café"}'.encode("cp1252"), r"b: its JSON is not valid UTF-8"),
    ],
)
def test_texts_in_other_encodings_are_broken_samples(
    tmp_path: Path, name: str, data: bytes, message: str, jpeg: Jpeg
) -> None:
    own = [("a.jpg", jpeg()), ("a.txt", b"x"), ("b.jpg", jpeg())]
    shard = tar_of(tmp_path / "x.tar", [*own, (name, data)])
    source = ShardSource(str(shard))
    assert source.read(0).captions == ("x",)
    with pytest.raises(DataError, match=message):
        source.read(1)
    assert check(shard).broken == 1


@pytest.mark.parametrize("failing", ["makedirs", "access"])
def test_data_and_cache_that_are_read_only_name_the_cache(
    tmp_path: Path, failing: str, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    shard = tar_of(data / "0.tar", [("a.jpg", jpeg()), ("a.txt", b"x")])
    monkeypatch.setenv("CLIC_CACHE", str(cache))
    made, allowed = Path.mkdir, os.access

    def mkdir(self: Path, *args: object, **options: object) -> None:
        if failing == "makedirs":
            raise OSError(30, "Read-only file system")
        made(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    with pytest.raises(DataError, match=rf"index of {shard} can .*{cache}/indexes .*CLIC_CACHE"):
        ShardSource(str(data))
    assert not index_path(shard).exists()
    monkeypatch.undo()
    assert len(ShardSource(str(data))) == 1


def test_spans_are_read_to_their_end_whatever_the_kernel_gives_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pread = tmp_path / "a.tar", os.pread
    path.write_bytes(bytes(range(256)) * 10)
    monkeypatch.setattr(os, "pread", lambda file, length, at: pread(file, min(length, 100), at))
    with open(path, "rb") as file:
        found = _read_spans(file.fileno(), [Span(3, 900), Span(7, 0), Span(2559, 1)], path)
        assert found == [path.read_bytes()[3:903], b"", b"\xff"]
        for span in (Span(2000, 561), Span(9999, 1), Span(0, 1 << 50)):
            with pytest.raises(DataError, match=r"a\.tar ends before byte \d+: it was cut short"):
                _read_spans(file.fileno(), [span], path)
