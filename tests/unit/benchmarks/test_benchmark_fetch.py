"""`clic-data fetch` against a local server that drops connections and serves wrong files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clic.cli.data import main
from clic.errors import ConfigError, DataError
from clic.evaluation.benchmarks import catalogue
from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.benchmarks.caption_retrieval import COCO_2017
from clic.evaluation.files import fetching
from clic.evaluation.files.file_sources import Archive, ByHand, File, ImageList, Source, Torchvision
from clic.evaluation.tables.classification import Classification

Command = Callable[..., "Done"]
Zipped = Callable[[dict[str, bytes]], bytes]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@dataclass
class Site:
    """What the server has, what it was asked for, and after how many bytes it hangs up once."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    serving = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            serving.asked.append((self.path, wanted))
            data = serving.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:8]}"')
            self.send_header("Content-Length", str(len(data) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            stop = start + serving.drops.pop(0) if serving.drops else len(data)
            self.wfile.write(data[start:stop])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    serving.url = f"http://127.0.0.1:{server.server_port}"
    yield serving
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def clic_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIC_DATA", raising=False)

    def call(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["clic-data", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Done(int(stopped.value.code or 0), captured.out, captured.err)

    return call


def made_of(*sources: Source, images: tuple[Source, ...] = ()) -> Benchmark:
    """Return a benchmark of nothing but sources."""

    def load(data_root: Path, split: str, seed: int) -> Classification:
        return Classification(images=(), texts=(), tasks={})

    return Benchmark(
        name="x", title="X", about="x", load=load, version="1", citation="c", licence="l",
        rule="r", annotations=sources, images=images,
    )  # fmt: skip


def get(benchmark: Benchmark, root: Path, mirror: str | None = None) -> tuple[Any, list[str]]:
    said: list[str] = []
    found = fetching.fetch(
        benchmark, root, said.append, lambda title: lambda done, all: None, mirror
    )
    return found, said


NAMES = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def scpp(site: Site) -> None:
    texts = {"caption": "a", "caption2": "b", "negative_caption": "c"}
    rows = json.dumps([{"filename": "000000000001.jpg", **texts}]).encode()
    for name in NAMES:
        site.files[f"/Sri-Harsha/scpp/main/data/{name}.json"] = rows + b" " * 5000


def test_sugarcrepe_pp_over_a_broken_connection(
    site: Site, clic_data: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: Zipped
) -> None:
    monkeypatch.setattr("clic.io.download.BACKOFF", 0.01)
    scpp(site)
    images = zipped({"val2017/000000000001.jpg": b"1" * 3000, "val2017/2.jpg": b"2"})
    site.files["/zips/val2017.zip"] = images
    sha256 = hashlib.sha256(images).hexdigest()
    archive = replace(COCO_2017, checksum=f"sha256:{sha256}", size=len(images))
    known = catalogue.BENCHMARKS["sugarcrepe++"]
    monkeypatch.setitem(catalogue.BENCHMARKS, "sugarcrepe++", replace(known, images=(archive,)))
    site.drops = [2000, 1500]  # the first file breaks off twice
    done = clic_data("fetch", "SugarCrepe_pp", "--data", "d", "--mirror", site.url)
    assert (done.code, done.err) == (0, "")
    assert site.asked[:3] == [
        ("/Sri-Harsha/scpp/main/data/replace_att.json", None),
        ("/Sri-Harsha/scpp/main/data/replace_att.json", "bytes=2000-"),
        ("/Sri-Harsha/scpp/main/data/replace_att.json", "bytes=3500-"),
    ]
    assert "coco/val2017: 2 new files" in done.out and "none is published" in done.out
    assert (tmp_path / "d/coco/val2017/000000000001.jpg").read_bytes() == b"1" * 3000
    assert not (tmp_path / "d/coco/val2017.zip").exists()
    recorded = json.loads((tmp_path / "d/coco/fetched.json").read_text())["coco/val2017.zip"]
    assert (recorded["sha256"], recorded["bytes"]) == (sha256, len(images))
    left = {path.name for path in (tmp_path / "d").rglob("*") if path.is_file()}
    expected = {f"{name}.json" for name in NAMES} | {"fetched.json", "000000000001.jpg", "2.jpg"}
    assert left == expected
    # A second time nothing is asked for, and nothing is written.
    asked = len(site.asked)
    done = clic_data("fetch", "sugarcrepe++", "--data", "d", "--mirror", site.url)
    assert (done.code, len(site.asked)) == (0, asked)
    assert done.out.count("exists, left unchanged") == 6


def test_a_wrong_checksum_leaves_nothing(
    site: Site, clic_data: Command, tmp_path: Path, zipped: Zipped
) -> None:
    site.files["/zips/val2017.zip"] = zipped({"val2017/1.jpg": b"other"})
    scpp(site)
    done = clic_data("fetch", "sugarcrepe++", "--data", "d", "--mirror", site.url)
    assert done.code == 2 and done.err.count("\n") == 1
    assert "bytes where 815585330 were expected" in done.err
    assert not (tmp_path / "d/coco/val2017").exists()
    assert not list((tmp_path / "d/coco").glob("*.zip*"))


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_checksums_of_either_kind(site: Site, tmp_path: Path, kind: str) -> None:
    site.files["/a"] = b"right"
    good = hashlib.new(kind, b"right").hexdigest()
    source = File("http://x.org/a", "folder/a.json", f"{kind}:{good}")
    _, said = get(made_of(source), tmp_path, site.url)
    assert "(as published)" in said[0]
    assert (tmp_path / "folder/a.json").read_bytes() == b"right"
    other = replace(source, path="folder/b.json", checksum=f"{kind}:{'0' * len(good)}")
    with pytest.raises(DataError, match="was expected; it is another file"):
        get(made_of(other), tmp_path, site.url)
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert not {name for name in names if name.startswith("b.json") and ".lock" not in name}


def test_without_a_published_checksum_the_first_one_counts(site: Site, tmp_path: Path) -> None:
    site.files["/a"] = b"first"
    benchmark = made_of(File("http://x.org/a", "folder/a.json"))
    get(benchmark, tmp_path, site.url)
    (tmp_path / "folder/a.json").unlink()
    site.files["/a"] = b"second"
    with pytest.raises(DataError, match="SHA-256"):
        get(benchmark, tmp_path, site.url)
    site.files["/a"] = b"first"
    _, said = get(benchmark, tmp_path, site.url)
    assert "(as before)" in said[0]
    (tmp_path / "folder/a.json").write_bytes(b"edited")
    with pytest.raises(DataError, match=r"a\.json is not the file that was fetched"):
        get(benchmark, tmp_path, site.url)
    assert (tmp_path / "folder/a.json").read_bytes() == b"edited"


def test_a_web_page_is_no_file(site: Site, tmp_path: Path) -> None:
    site.files["/download?id=7"] = b"\n<!DOCTYPE html><html>Quota exceeded"
    source = File("https://drive.usercontent.google.com/download?id=7", "aro/x.json")
    with pytest.raises(DataError, match="answers with a web page"):
        get(made_of(source), tmp_path, site.url)
    assert not (tmp_path / "aro/x.json").exists()


def test_a_sign_up_is_told_and_the_rest_is_fetched(
    site: Site, clic_data: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: Zipped
) -> None:
    splits = {"images": []}
    content = zipped({"dataset_flickr30k.json": json.dumps(splits).encode(), "other.json": b"{}"})
    site.files["/people/karpathy/deepimagesent/caption_datasets.zip"] = content
    monkeypatch.setattr(fetching, "_missing_files", lambda *_: set())
    done = clic_data("fetch", "flickr30k_retrieval", "--data", "d", "--mirror", site.url)
    assert done.code == 2 and done.err.count("\n") == 1
    assert "need a sign-up: sign up at https://shannon.cs.illinois.edu" in done.err
    assert "into d/flickr30k" in done.err
    assert json.loads((tmp_path / "d/flickr30k/dataset_flickr30k.json").read_text()) == splits
    assert not (tmp_path / "d/flickr30k/other.json").exists()


@pytest.mark.parametrize("name", ["winoground", "imagenet"])
def test_what_needs_a_sign_up_ends_with_2(clic_data: Command, name: str) -> None:
    done = clic_data("fetch", name)
    assert done.code == 2
    assert "needs a sign-up" in done.err and done.err.count("\n") == 1


def test_images_one_by_one_some_gone(site: Site, tmp_path: Path) -> None:
    site.files |= {"/1.jpg": b"one", "/2.jpg": b"<html>gone", "/4.jpg": b"four"}
    urls = {f"cola/images/{n}.jpg": f"https://x.org/{n}.jpg" for n in (1, 2, 3, 4)}
    (tmp_path / "cola/images").mkdir(parents=True)
    (tmp_path / "cola/images/4.jpg").write_bytes(b"own")
    benchmark = made_of(images=(ImageList("cola/images", lambda root: urls),))
    found, said = get(replace(benchmark, annotations=()), tmp_path, site.url)
    assert said == ["cola/images: 1 new images, 2 unavailable"]
    assert set(found.lost) == {"cola/images/2.jpg", "cola/images/3.jpg"}
    assert (tmp_path / "cola/images/4.jpg").read_bytes() == b"own"
    lines = fetching.told([found])
    assert len(lines) == 2 and any("404" in line for line in lines)
    site.files |= {"/2.jpg": b"two", "/3.jpg": b"three"}
    found, said = get(benchmark, tmp_path, site.url)
    assert (found.lost, said) == ({}, ["cola/images: 2 new images, 0 unavailable"])


def test_the_hub_lists_files_with_their_checksums(site: Site, tmp_path: Path) -> None:
    body = b"PAR1 content"
    tree = [
        {"type": "directory", "path": "data/x", "oid": "0"},
        {"type": "file", "path": "data/test-00000-of-00001.parquet", "size": len(body),
         "oid": "git", "lfs": {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}},
        {"type": "file", "path": "data/README.md", "size": 3, "oid": "git"},
    ]  # fmt: skip
    site.files["/api/datasets/imirandam/BiVLC/tree/main/data"] = json.dumps(tree).encode()
    path = "/datasets/imirandam/BiVLC/resolve/main/data/test-00000-of-00001.parquet"
    site.files[path] = body
    benchmark = catalogue.BENCHMARKS["bivlc"]
    _, said = get(benchmark, tmp_path, site.url)
    file = tmp_path / "bivlc/data/test-00000-of-00001.parquet"
    assert file.read_bytes() == body and "(as published)" in said[0]
    _, said = get(benchmark, tmp_path, site.url)
    assert said == ["bivlc/data/test-00000-of-00001.parquet: exists, left unchanged"]
    file.write_bytes(b"PAR1 other..")
    with pytest.raises(DataError, match="is not the file that is published"):
        get(benchmark, tmp_path, site.url)


def test_an_archive_is_got_again_where_images_of_it_are_missing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: Zipped
) -> None:
    site.files["/v.zip"] = zipped({"val/1.jpg": b"new", "val/2.jpg": b"two"})
    archive = Archive("http://x.org/v.zip", "coco/v.zip", "coco", "coco/val")
    note = File("http://x.org/n", "coco/n.json")
    site.files["/n"] = b"[]"
    (tmp_path / "coco/val").mkdir(parents=True)
    (tmp_path / "coco/val/1.jpg").write_bytes(b"own")
    benchmark = made_of(note, images=(archive,))
    _, said = get(benchmark, tmp_path, site.url)
    assert said[1:] == ["coco/val: exists, left unchanged"]
    lost = {tmp_path / "coco/val/2.jpg"}
    monkeypatch.setattr(fetching, "_missing_files", lambda *_: lost)
    _, said = get(benchmark, tmp_path, site.url)
    assert said[-1] == "coco/val: 1 new files"
    assert (tmp_path / "coco/val/1.jpg").read_bytes() == b"own"
    assert (tmp_path / "coco/val/2.jpg").read_bytes() == b"two"


def test_a_full_disk_is_noticed_before(site: Site, tmp_path: Path) -> None:
    big = Archive("http://x.org/a.zip", "coco/a.zip", "coco", "coco/a", size=1 << 60)
    with pytest.raises(DataError, match=r"needs .* GB and the disk has .* GB left"):
        get(made_of(big), tmp_path, site.url)
    assert site.asked == []


def test_torchvision_gets_its_sets_beside_and_whole(tmp_path: Path) -> None:
    def broken(root: Path) -> None:
        (root / "food-101").mkdir()
        raise RuntimeError("Error downloading")

    def whole(root: Path) -> None:
        assert not (root / "food-101").exists()
        (root / "food-101").mkdir()
        (root / "food-101.tar.gz").write_bytes(b"")

    with pytest.raises(DataError, match="torchvision cannot get food-101"):
        get(made_of(Torchvision("food-101", broken)), tmp_path)
    assert not (tmp_path / "food-101").exists()
    benchmark = made_of(Torchvision("food-101", whole))
    get(benchmark, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["food-101"]
    shutil.rmtree(tmp_path / "food-101")
    with pytest.raises(ConfigError, match="--mirror has no effect on food-101"):
        get(benchmark, tmp_path, "http://localhost:1")


def test_two_at_a_time_do_it_once(site: Site, tmp_path: Path, zipped: Zipped) -> None:
    site.files["/v.zip"] = zipped({f"val/{n}.jpg": bytes(5000) for n in range(50)})
    benchmark = made_of(Archive("http://x.org/v.zip", "coco/v.zip", "coco", "coco/val"))
    with ThreadPoolExecutor(4) as pool:
        said = [s for _, s in pool.map(lambda _: get(benchmark, tmp_path, site.url), range(4))]
    assert len(site.asked) == 1
    assert sum("coco/val: 50 new files" in lines for lines in said) == 1
    assert sum("coco/val: exists, left unchanged" in lines for lines in said) == 3


def test_built_in_benchmarks_need_nothing(clic_data: Command) -> None:
    done = clic_data("fetch", "shapes++")
    assert (done.code, done.err) == (0, "") and "is built in" in done.out


def test_an_unknown_name(clic_data: Command) -> None:
    done = clic_data("fetch", "winogrund")
    assert done.code == 2 and "did you mean 'winoground'" in done.err


def test_a_folder_that_cannot_be_one(clic_data: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = clic_data("fetch", "cola", "--data", str(tmp_path / "file"))
    assert done.code == 2 and done.err.count("\n") == 1 and "no folder can be made at" in done.err


def test_the_manifest_of_another_hand(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/fetched.json").write_text("{")
    with pytest.raises(DataError, match=r"fetched\.json cannot be read"):
        fetching.recorded(tmp_path, "a/x.json")
    (tmp_path / "a/fetched.json").write_text('{"a/x.json": 7}')
    assert fetching.recorded(tmp_path, "a/x.json") is None


def test_by_hand_steps_name_the_folder() -> None:
    for benchmark in catalogue.BENCHMARKS.values():
        for source in (*benchmark.annotations, *benchmark.images):
            if isinstance(source, ByHand):
                assert "{data}" in source.steps


@pytest.mark.parametrize("name", ["winoground", "sugarcrepe++", "imagenet"])
def test_a_fetch_that_gets_nothing_leaves_no_folder(
    clic_data: Command, tmp_path: Path, site: Site, name: str
) -> None:
    (tmp_path / "own" / "empty").mkdir(parents=True)
    for data in ("new/deep", "own", "own/empty"):
        assert clic_data("fetch", name, "--data", data, "--mirror", site.url).code == 2
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["own", "own/empty"]


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"[" * 10**5])
@pytest.mark.parametrize("name", ["sugarcrepe++", "winoground", "imagenet", "aro-relation"])
def test_pointers_and_garbage_are_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (benchmark,) = catalogue.select([name])
    for source in benchmark.annotations or benchmark.images:
        place = tmp_path / source.gives
        if not place.suffix:
            place = place / "examples.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with pytest.raises(DataError) as error:
        benchmark.load(tmp_path, "test", 0)
    assert ("git lfs pull" in str(error.value)) == (name != "imagenet" and b"lfs" in content)
