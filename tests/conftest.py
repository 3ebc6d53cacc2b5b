"""What holds for every test: GPU tests say why they are skipped, a model that is fast, and a web
server that fails on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where torch sees no GPU."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the commands cache out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def clic_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return what runs `clic-data` in `tmp_path` and gives exit code, output and errors."""
    from clic.cli import data

    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clic-data", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            data.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32},
    "text_cfg": {
        "context_length": 34,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
"""A CLIP of a second's thought: BatchNorm in its vision tower, CLIP's own tokenizer."""


@pytest.fixture(scope="session")
def build_tiny() -> Callable[..., Any]:
    """Return what builds a tiny `ClipModel` with random weights of a seed."""
    from clic.models import ModelSource, build

    def make(folder: Path, seed: int = 0, **changes: Any) -> Any:
        architecture = json.loads(json.dumps({**TINY, **changes}))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": architecture, "preprocess_cfg": {}})
        )
        torch.manual_seed(seed)
        return build(ModelSource("tiny", f"local-dir:{folder}", None, architecture))

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, build_tiny: Callable[..., Any]) -> Path:
    """Return the open_clip folder of a tiny model."""
    from clic.models import save

    return save(
        build_tiny(tmp_path_factory.mktemp("cfg")), tmp_path_factory.mktemp("tiny") / "model"
    )


@pytest.fixture(scope="session")
def tiny_words(tiny: Path) -> list[str]:
    """Return the words that make a `clic-train` of any experiment small and fast."""
    return [
        f"model.name={tiny}",
        "model.pretrained=included",
        "data=shapes",
        "data.samples=64",
        "data.workers=0",
        "train.batch_size=4",
        "train.device=cpu",
        "train.log_every=1",
        "train.report=false",
    ]


@pytest.fixture
def settings(tmp_path: Path, tiny_words: list[str]) -> Callable[..., Any]:
    """Return what composes the settings of a small run below `tmp_path`, with overrides."""
    from clic.cli.train import compose

    def make(*words: str) -> Any:
        return compose([*tiny_words, f"train.runs_dir={tmp_path / 'runs'}", *words])

    return make


@dataclass
class Site:
    """What a server serves, and how it misbehaves.

    Attributes:
        files: Content by path.
        drops: Bytes after which the next connections break off, one entry for each.
        stalls: Seconds that the next answers wait in the middle, one entry for each.
        answers: Status codes (and headers) that the next requests get instead of a file.
        ranges: Whether it knows of ranges.
        validators: Headers that name the version of a file; `{hash}` is put in.
        lengths: Whether it says how long a file is.
        silent: Paths after whose first half nothing more ever comes.
        requests: Path and Range header of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    validators: dict[str, str] = field(default_factory=lambda: {"ETag": '"{hash}"'})
    lengths: bool = True
    silent: set[str] = field(default_factory=set)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Serves `site`."""

    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append((self.path, self.headers.get("Range")))
        if site.answers:
            code, headers = site.answers.pop(0)
            self._head(code, {"Content-Length": "0", **headers})
            return
        data = site.files.get(self.path.partition("?")[0])
        if data is None:
            self._head(404, {"Content-Length": "0"})
            return
        tag = hashlib.md5(data).hexdigest()[:8]
        headers = {name: value.format(hash=tag) for name, value in site.validators.items()}
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in headers.values()
        first, code = 0, 200
        if asked and same and site.ranges:
            first, code = int(asked[1]), 206
            if first >= len(data):
                self._head(416, {"Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if site.lengths:
            headers["Content-Length"] = str(len(data) - first)
        self._head(code, headers)
        stop = first + site.drops.pop(0) if site.drops else len(data)
        middle = (first + stop) // 2
        self.wfile.write(data[first:middle])
        if self.path in site.silent:
            site.ended.wait()
            return
        if site.stalls:
            threading.Event().wait(site.stalls.pop(0))
        with contextlib.suppress(ConnectionError):  # who asked may have left
            self.wfile.write(data[middle:stop])

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a server's site; it runs as long as the test."""
    served = Site()
    handler = type("SiteHandler", (Handler,), {"site": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield served
    served.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def tar_of() -> Callable[..., bytes]:
    """Return what makes a shard's bytes of samples: key, JSON, and width and height of the image.

    Without a size a sample's image is no image.
    """
    import io
    import tarfile

    from PIL import Image

    def image(size: tuple[int, int] | None) -> bytes:
        if size is None:
            return b"no image"
        file = io.BytesIO()
        Image.new("RGB", size, (90, 120, 150)).save(file, "JPEG")
        return file.getvalue()

    def make(samples: list[tuple[str, dict[str, Any], tuple[int, int] | None]]) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for key, record, size in samples:
                for ending, data in (("jpg", image(size)), ("json", json.dumps(record).encode())):
                    entry = tarfile.TarInfo(f"{key}.{ending}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        return file.getvalue()

    return make
