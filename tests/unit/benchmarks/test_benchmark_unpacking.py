"""Unpacking archives from elsewhere: nothing leads out of the folder, nothing half stays."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic.errors import DataError
from clic.evaluation.files import unpacking

Pack = Callable[[dict[str, Any]], bytes]


def tarred(members: dict[str, bytes | str]) -> bytes:
    """Return a tar.gz; a text is the target of a link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(body, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, body
                archive.addfile(entry)
            else:
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
    return data.getvalue()


@pytest.fixture(params=["zip", "tar"])
def pack(request: pytest.FixtureRequest, zipped: Pack) -> Pack:
    """Return what makes the bytes of an archive of either kind."""
    return zipped if request.param == "zip" else tarred


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "..\\out", "C:/out"])
def test_no_member_leaves_the_folder(tmp_path: Path, pack: Pack, name: str) -> None:
    (tmp_path / "a.bin").write_bytes(pack({"good": b"1", name: b"2"}))
    with pytest.raises(DataError, match="would be put outside the folder"):
        unpacking.unpack(tmp_path / "a.bin", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "into"}


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tarred({"link": "/etc/passwd", "link/x": b"1"}))
    with pytest.raises(DataError, match="'link' is a link"):
        unpacking.unpack(tmp_path / "a.tgz", tmp_path / "into")


def test_a_broken_archive_leaves_nothing(tmp_path: Path, pack: Pack) -> None:
    data = pack({f"{n}.jpg": bytes([n]) * 5000 for n in range(9)})
    (tmp_path / "a.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="is no whole archive"):
        unpacking.unpack(tmp_path / "a.bin", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


def test_a_damaged_member_leaves_nothing(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(range(256)) * 40)
    data = bytearray(stream.getvalue())
    data[40:60] = b"\xff" * 20
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="is no whole archive"):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


def test_a_part_a_new_name_and_what_is_there(tmp_path: Path, pack: Pack) -> None:
    members = {"images/1.jpg": b"new", "images/2.jpg": b"two", "notes/x.txt": b"x"}
    (tmp_path / "a.bin").write_bytes(pack(members))
    into = tmp_path / "into"
    (into / "visual7w").mkdir(parents=True)
    (into / "visual7w/1.jpg").write_bytes(b"own")
    count = unpacking.unpack(tmp_path / "a.bin", into, "images", ("images", "visual7w"))
    assert count == 1
    found = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    assert found == {"visual7w/1.jpg": b"own", "visual7w/2.jpg": b"two"}


def deflated(members: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return stream.getvalue()


def damaged(content: bytes, spot: int, value: int, width: int = 2) -> bytes:
    """Return a zip whose local and central headers say something else at a field."""
    data = bytearray(content)
    for mark, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        start = data.find(mark) + spot + shift
        data[start : start + width] = value.to_bytes(width, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("spot", "value", "said"),
    [(6, 1, "encrypted"), (8, 97, "compression"), (8, 9, "compression"), (8, 6, "compression")],
)
def test_what_zipfile_cannot_open_is_one_line(
    tmp_path: Path, zipped: Pack, spot: int, value: int, said: str
) -> None:
    (tmp_path / "a.zip").write_bytes(damaged(zipped({"a.jpg": b"1" * 50}), spot, value))
    with pytest.raises(DataError, match=f"a.zip cannot be unpacked here .*{said}.*by hand"):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_damaged_streams_are_one_line(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.jpg", bytes(range(256)) * 400)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[45:90] = b"\xff" * 45
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="is no whole archive"):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


@pytest.mark.parametrize("content", [b"", b"7z\xbc\xaf\x27\x1c" + b"x" * 900, b"Rar!\x1a" * 300])
def test_what_is_no_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match="is no whole archive") as error:
        unpacking.unpack(tmp_path / "a.bin", tmp_path / "into")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(unpacking, "ALLOWED", 1 << 16)
    pack = deflated if kind == "zip" else tarred
    (tmp_path / "a.bin").write_bytes(pack({f"{n}.txt": bytes(1 << 20) for n in range(3)}))
    with pytest.raises(DataError, match=r"more than [\d,]+ in it; do not trust it"):
        unpacking.unpack(tmp_path / "a.bin", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
    (tmp_path / "b.bin").write_bytes(pack({"a.txt": b"many words " * 500, "b.txt": b"1"}))
    assert unpacking.unpack(tmp_path / "b.bin", tmp_path / "into") == 2


def test_a_member_that_the_disk_has_no_room_for(
    tmp_path: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.evaluation.files.unpacking.SPARE", 1 << 60)
    (tmp_path / "a.bin").write_bytes(pack({"a.txt": b"1" * 100}))
    with pytest.raises(DataError, match=r"the disk has .* left; make room"):
        unpacking.unpack(tmp_path / "a.bin", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
