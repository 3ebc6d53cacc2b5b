"""Downloads from a server that drops, changes and lies."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import pickle
import socket
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from clic.errors import DataError
from clic.io.download import Partial, download
from clic.io.files import file_sha256
from clic.io.http_connection import RefusedError

DATA = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("clic.io.download.time.sleep", waits.append)
    return waits


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_under_its_name(site: Any, tmp_path: Path) -> None:
    site.files["/a.bin"] = DATA
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "b.bin"
    sha = hashlib.sha256(DATA).hexdigest()
    got = download(
        f"{site.url}/a.bin", target, sha256=sha.upper(), size=len(DATA),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert got == target and target.read_bytes() == DATA and file_sha256(target) == sha
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    assert names(target.parent) == ["b.bin"]


def test_an_empty_file(site: Any, tmp_path: Path) -> None:
    site.files["/a"] = b""
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == b""
    assert names(tmp_path) == ["a"]


def test_a_file_that_is_there_is_left_alone_but_checked(site: Any, tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"mine")
    assert download(f"{site.url}/a", target, size=4).read_bytes() == b"mine"
    assert site.requests == []
    for expected in ({"size": 5}, {"sha256": "0" * 64}):
        with pytest.raises(DataError, match=rf"{target} has .*another file"):
            download(f"{site.url}/a", target, **expected)  # type: ignore[arg-type]
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "validators",
    [
        {"ETag": '"{hash}"'},
        {"Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"},
        {"ETag": 'W/"{hash}"', "Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"},
    ],
)
def test_dropped_connections_are_resumed(site: Any, tmp_path: Path, validators: dict) -> None:
    site.files["/a"], site.validators = DATA, validators
    site.drops = [30_000, 1, 40_000]
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA
    assert [asked for _, asked in site.requests] == [
        None, "bytes=30000-", "bytes=30001-", "bytes=70001-",
    ]  # fmt: skip


def test_a_server_that_falls_silent(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.io.http_connection.TIMEOUT", 0.2)
    site.files["/a"], site.stalls = DATA, [1.0]
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA
    assert site.requests[1] == ("/a", f"bytes={len(DATA) // 2}-")


@pytest.mark.parametrize("validators", [{}, {"ETag": 'W/"{hash}"'}])
def test_what_cannot_be_known_again_is_fetched_anew(
    site: Any, tmp_path: Path, validators: dict
) -> None:
    site.files["/a"], site.validators, site.drops = DATA, validators, [30_000]
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA
    assert site.requests == [("/a", None), ("/a", None)]


def test_a_server_without_ranges(site: Any, tmp_path: Path) -> None:
    site.files["/a"], site.ranges, site.drops = DATA, False, [30_000, 50_000]
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA


def test_a_part_of_an_earlier_call_is_continued(site: Any, tmp_path: Path) -> None:
    site.files["/a"], site.drops = DATA, [1000]

    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{site.url}/a", tmp_path / "a", progress=stop)
    assert names(tmp_path) == ["a.part", "a.part.json"]
    kept = (tmp_path / "a.part").stat().st_size
    assert kept in (500, 1000)  # the server sends two halves, which may come as one
    download(f"{site.url}/a", tmp_path / "a")
    assert site.requests[1] == ("/a", f"bytes={kept}-")
    assert (tmp_path / "a").read_bytes() == DATA and names(tmp_path) == ["a"]


def test_a_file_that_changed_in_between_is_fetched_anew(site: Any, tmp_path: Path) -> None:
    site.files["/a"], site.drops = DATA, [1000]

    def change(done: int, total: int | None) -> None:
        if done == 1000:
            site.files["/a"] = b"x" * len(DATA)

    download(f"{site.url}/a", tmp_path / "a", progress=change)
    assert (tmp_path / "a").read_bytes() == b"x" * len(DATA)


def test_a_server_that_ignores_if_range_is_found_out(site: Any, tmp_path: Path) -> None:
    """It answers with the end of another file than the one we have the start of."""
    site.files["/a"], site.drops = DATA, [1000]

    def change(done: int, total: int | None) -> None:
        if done == 1000 and site.files["/a"] is DATA:
            site.files["/a"] = b"x" * 5000
            headers = {"Content-Range": "bytes 1000-4999/5000", "ETag": '"other"'}
            site.answers = [(206, headers)]

    download(f"{site.url}/a", tmp_path / "a", progress=change)
    assert (tmp_path / "a").read_bytes() == b"x" * 5000


def test_a_server_that_continues_elsewhere_is_found_out(site: Any, tmp_path: Path) -> None:
    """Its part of the same file would not follow the bytes that are there."""
    site.files["/a"], site.drops = DATA, [1000]

    def elsewhere(done: int, total: int | None) -> None:
        if done == 1000 and len(site.requests) == 1:
            headers = {"Content-Range": f"bytes 900-{len(DATA) - 1}/{len(DATA)}"}
            site.answers = [(206, headers)]

    download(f"{site.url}/a", tmp_path / "a", progress=elsewhere)
    assert (tmp_path / "a").read_bytes() == DATA
    assert [asked for _, asked in site.requests] == [None, "bytes=1000-", None]


def test_a_file_that_shrank(site: Any, tmp_path: Path) -> None:
    site.files["/a"], site.drops, site.validators = DATA, [5000], {"ETag": '"same"'}

    def change(done: int, total: int | None) -> None:
        if done == 5000:
            site.files["/a"] = b"short"

    download(f"{site.url}/a", tmp_path / "a", progress=change)
    assert (tmp_path / "a").read_bytes() == b"short"


def test_a_part_without_its_note_or_of_another_address(site: Any, tmp_path: Path) -> None:
    site.files["/a"] = site.files["/b"] = DATA
    for note in (None, "cut {", '{"url": "http://elsewhere/a", "validator": "x", "total": 9}'):
        (tmp_path / "a.part").write_bytes(b"junk")
        if note is not None:
            (tmp_path / "a.part.json").write_text(note)
        download(f"{site.url}/a", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == DATA
        (tmp_path / "a").unlink()


def test_busy_servers_are_asked_again(site: Any, tmp_path: Path, no_waiting: list[float]) -> None:
    site.files["/a"] = DATA
    site.answers = [(503, {"Retry-After": "3"}), (500, {}), (429, {"Retry-After": "9999"})]
    download(f"{site.url}/a", tmp_path / "a")
    assert no_waiting == [3.0, 1.0, 30.0]


def test_giving_up_keeps_what_has_arrived(site: Any, tmp_path: Path) -> None:
    site.files["/a"], site.drops = DATA, [1000] + [0] * 20
    with pytest.raises(DataError, match=r"/a cannot be fetched .*1000 of 102400.*1000 bytes are"):
        download(f"{site.url}/a", tmp_path / "a")
    assert len(site.requests) == 7
    site.drops = []
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot be fetched \(Connection refused; 6 tries"):
        download(f"http://127.0.0.1:{port}/a", tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [((404, {}), "404"), ((403, {}), "403"), ((302, {"Location": "file:///etc/hosts"}), "302")],
)
def test_a_refusal_is_final(site: Any, tmp_path: Path, answer: Any, message: str) -> None:
    site.answers = [answer]
    with pytest.raises(DataError, match=f"/a: the server says {message}") as error:
        download(f"{site.url}/a?token=secret", tmp_path / "a")
    assert "secret" not in str(error.value)
    assert len(site.requests) == 1 and names(tmp_path) == []


def test_redirects_are_followed(site: Any, tmp_path: Path) -> None:
    site.files["/b"] = DATA
    site.answers = [(302, {"Location": "/b"})]
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize("url", ["ftp://x/a", "file:///etc/hosts", "a.tar", "http://", "http://["])
def test_other_addresses(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no http or https address"):
        download(url, tmp_path / "a")


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/a", "http://a b/"])
def test_broken_addresses(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no address|cannot be fetched"):
        download(url, tmp_path / "a")


def test_another_file_than_expected_does_not_stay(site: Any, tmp_path: Path) -> None:
    site.files["/a"] = DATA
    with pytest.raises(DataError, match=r"has the SHA-256 \w+ where 0000"):
        download(f"{site.url}/a", tmp_path / "a", sha256="0" * 64)
    with pytest.raises(DataError, match="has 102400 bytes where 7 were expected"):
        download(f"{site.url}/a", tmp_path / "a", size=7)
    site.lengths = False
    with pytest.raises(DataError, match="has 102400 bytes where 7 were expected"):
        download(f"{site.url}/a", tmp_path / "a", size=7)
    assert names(tmp_path) == []
    assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == DATA


def test_a_full_disk(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Partial, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site.files["/a"] = DATA
    monkeypatch.setattr(Partial, "write", full)
    with pytest.raises(DataError, match=rf"{tmp_path / 'a'} cannot be written \(the disk is full"):
        download(f"{site.url}/a", tmp_path / "a")
    assert names(tmp_path) == []


def test_several_at_once_fetch_once(site: Any, tmp_path: Path) -> None:
    site.files["/a"] = DATA
    threads = [
        threading.Thread(target=download, args=(f"{site.url}/a", tmp_path / "a")) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert (tmp_path / "a").read_bytes() == DATA
    assert len(site.requests) == 1 and names(tmp_path) == ["a"]


def test_a_refusal_passes_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RefusedError("not there", 404)))
    assert (str(error), error.status) == ("not there", 404)


# --- what answers hold ----------------------------------------------------------------------------

PAGES = [
    b"<!DOCTYPE html><html>sign in</html>",
    b"\n  <HTML><body>quota</body>",
    b"\xef\xbb\xbf<html lang='en'>",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    b"<!-- moved --><html>",
]


def tar_of(*sizes: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, size in enumerate(sizes):
            entry = tarfile.TarInfo(f"{number}.jpg")
            entry.size = size
            archive.addfile(entry, io.BytesIO(b"x" * size))
    return stream.getvalue()


def zip_of(name: str = "a.jpg") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"x" * 5000)
    return stream.getvalue()


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.json", "a.jpg", "a.csv"])
def test_a_web_page_is_no_file_and_does_not_stay(
    site: Any, tmp_path: Path, page: bytes, name: str, lengths: bool
) -> None:
    site.files["/x"], site.lengths = page, lengths
    with pytest.raises(DataError, match=r"/x answers with a web page"):
        download(f"{site.url}/x?key=secret", tmp_path / name)
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tar", b'{"error": "rate limit"}', "is no tar"),
        ("a.tar", b"Too many requests", "is no tar"),
        ("a.tar", bytes(range(1, 256)) * 40, "is no tar"),
        ("a.zip", b"Too many requests", "is no whole zip"),
        ("a.zip", zip_of()[:3000], "is no whole zip"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git LFS"),
        ("a.tar", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git LFS"),
    ],
)
def test_what_is_not_what_its_name_says_does_not_stay(
    site: Any, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    site.files["/x"] = content
    with pytest.raises(DataError, match=said):
        download(f"{site.url}/x", tmp_path / name)
    assert not names(tmp_path)


CUT = {
    "no end blocks": ("a.tar", tar_of(700, 900), 512 + 1024 + 512 + 1024),
    "in a member": ("a.tar", tar_of(700, 900), 512 + 1024 + 512 + 100),
    "in a header": ("a.tar", tar_of(700, 900), 512 + 1024 + 100),
    "zip": ("a.zip", zip_of(), 3000),
    "json": ("a.json", b'[{"caption": "a dog"}, {"caption": "a cat"}]', 30),
}


@pytest.mark.parametrize("validators", [{}, {"ETag": '"{hash}"'}])
@pytest.mark.parametrize("case", CUT)
def test_a_cut_file_of_unknown_length_is_fetched_again(
    site: Any, tmp_path: Path, case: str, validators: dict[str, str]
) -> None:
    name, whole, cut = CUT[case]
    site.files["/x"], site.lengths, site.validators = whole, False, validators
    site.drops = [cut]
    assert download(f"{site.url}/x", tmp_path / name).read_bytes() == whole
    (tmp_path / name).unlink()
    site.files["/x"] = whole[:cut]
    with pytest.raises(DataError, match="ends early"):
        download(f"{site.url}/x", tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar", tar_of(700, 0, 900)),
        ("a.tar", tar_of()),
        ("a.tar", gzip.compress(tar_of(700))),
        ("a.zip", zip_of()),
        ("a.json", b'\xef\xbb\xbf [{"a": 1}]'),
        ("a.json", b'{"a": 1}\n{"a": 2}\n'),
        ("a.txt", b"a < b"),
        ("a.xml", b"<?xml version='1.0'?><a/>"),
        ("a.jpg", b"\xff\xd8"),
    ],
)
def test_whole_files_are_taken(
    site: Any, tmp_path: Path, name: str, content: bytes, lengths: bool
) -> None:
    site.files["/x"], site.lengths = content, lengths
    assert download(f"{site.url}/x", tmp_path / name).read_bytes() == content


def test_a_tar_that_has_no_end_at_its_source_is_taken(site: Any, tmp_path: Path) -> None:
    site.files["/x"] = tar_of(700)[: 512 + 1024]
    assert download(f"{site.url}/x", tmp_path / "a.tar").stat().st_size == 512 + 1024


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_that_only_drips_is_given_up(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: bool
) -> None:
    """Nothing is fast enough here, so that the test depends on no clock."""
    monkeypatch.setattr("clic.io.http_connection.SLOWEST", 1e15)
    monkeypatch.setattr("clic.io.http_connection.WINDOW", 0.0)
    site.files["/a"], site.lengths = DATA, lengths
    with pytest.raises(DataError, match=r"/a cannot be fetched .*too slow; 6 tries"):
        download(f"{site.url}/a", tmp_path / "a")
    assert len(site.requests) == 6


def test_a_byte_a_connection_is_given_up(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.io.http_connection.SLOWEST", 1e15)
    site.files["/a"], site.drops = DATA, [1] * 1000
    with pytest.raises(DataError, match="6 tries"):
        download(f"{site.url}/a", tmp_path / "a")
    assert len(site.requests) == 6


def test_notes_of_downloads_tell_no_secret(site: Any, tmp_path: Path) -> None:
    site.files["/a"], site.drops = DATA, [1000] + [0] * 20
    with pytest.raises(DataError, match="1000 bytes are"):
        download(f"{site.url}/a?sig=s3cret", tmp_path / "a")
    assert "s3cret" not in (tmp_path / "a.part.json").read_text()
