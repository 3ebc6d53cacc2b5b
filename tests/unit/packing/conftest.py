"""What the tests of packing share: small images, and shards read back by tarfile alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic.data.packing import Options, PackOutcome, Request, open_source, pack_source


def encoded(width: int = 24, height: int = 16, format: str = "JPEG", **settings: Any) -> bytes:
    """Return an encoded image."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(buffer, format, **settings)
    return buffer.getvalue()


@pytest.fixture
def image() -> Callable[..., bytes]:
    """Return what makes the bytes of an image."""
    return encoded


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a file below `tmp_path`, an image where no content is given."""

    def write(name: str, content: str | bytes | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = encoded() if content is None else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


class Packed:
    """The outcome of a packing, and what is found in its shards."""

    def __init__(self, out: Path, outcome: PackOutcome) -> None:
        self.out, self.outcome = out, outcome
        self.names: list[str] = []
        self.members: dict[str, bytes] = {}
        for path in sorted(out.glob("*.tar")):
            with tarfile.open(path) as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    assert file is not None
                    self.names.append(info.name)
                    self.members[info.name] = file.read()
        self.records: list[dict[str, Any]] = [
            json.loads(data) for name, data in self.members.items() if name.endswith(".json")
        ]
        lines = (out / "rejected.jsonl").read_text("utf-8").splitlines()
        self.rejected: list[dict[str, str]] = [json.loads(line) for line in lines]

    def captions(self) -> list[list[str]]:
        """Return the captions of each sample."""
        return [record["captions"] for record in self.records]

    def sources(self) -> list[str]:
        """Return where each sample came from."""
        return [record["source"] for record in self.records]


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Packed]:
    """Return what packs a source into `tmp_path`/out and reads the shards back."""

    def pack(source: Path | str, format: str | None = None, **settings: Any) -> Packed:
        names = Options.__dataclass_fields__
        out = settings.pop("out", tmp_path / "out")
        workers = settings.pop("workers", 1)
        options = Options(**{k: v for k, v in settings.items() if k in names})
        request = Request(**{k: v for k, v in settings.items() if k not in names})
        reader = open_source(str(source), request, format)
        return Packed(out, pack_source(reader, out, options, workers))

    return pack
