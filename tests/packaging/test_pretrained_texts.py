"""A text tower in several packages: joined, checked, and refused by name where it is damaged."""

from __future__ import annotations

import dataclasses
import io
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from clic.errors import DataError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 50, "vocab.txt": b"a\nb"}
DIGEST = sha256(CONTENT["model.safetensors"]).hexdigest()


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.delitem(sys.modules, "pretrained_texts", raising=False)
    import pretrained_texts

    return pretrained_texts


@pytest.fixture
def install(
    texts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return what pretends that packages are installed, each with one file."""

    def pretend(**pieces: bytes) -> None:
        def files(package: str) -> list[SimpleNamespace]:
            if package not in pieces:
                raise PackageNotFoundError(package)
            path = tmp_path / f"{package}.zip.001"
            path.write_bytes(pieces[package])
            return [
                SimpleNamespace(name="__init__.py"),
                SimpleNamespace(name=path.name, locate=lambda: path),
            ]

        monkeypatch.setattr(texts, "files", files)

    return pretend


def archive(**content: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for name, value in content.items():
            opened.writestr(f"tower/{name}", value)
        opened.writestr("tower/other/file.bin", b"not wanted")
    return written.getvalue()


@pytest.fixture
def tower(texts: ModuleType) -> object:
    return texts.TextTower("org/tower", ("one", "two"), ("vocab.txt",), DIGEST)


def test_the_pieces_are_joined(texts: ModuleType, install: Callable[..., None], tower: str) -> None:
    whole = archive(**CONTENT)
    install(one=whole[:99], two=whole[99:])
    with texts.tower_folder(tower) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert not folder.exists()


def test_what_is_damaged_is_refused(
    texts: ModuleType, install: Callable[..., None], tower: object
) -> None:
    whole = archive(**CONTENT)
    lacking = archive(**{name: CONTENT[name] for name in ("config.json", "vocab.txt")})
    for pieces in ((whole[:99], whole[120:]), (lacking[:99], lacking[99:])):
        install(one=pieces[0], two=pieces[1])
        with pytest.raises(DataError, match=r"pip install --force-reinstall one two$"):
            texts.tower_folder(tower).__enter__()
    install(one=whole[:99], two=whole[99:])
    other = dataclasses.replace(tower, sha256="0" * 64)  # type: ignore[type-var]
    with pytest.raises(DataError, match=rf"org/tower are not as.*SHA-256.*{DIGEST}"):
        texts.tower_folder(other).__enter__()


def test_what_is_not_installed_is_named_whole(
    texts: ModuleType, install: Callable[..., None], tower: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(one=b"")
    with pytest.raises(DataError, match="pip install one two "):
        texts.tower_folder(tower).__enter__()
    monkeypatch.setattr(texts, "files", lambda package: [SimpleNamespace(name="__init__.py")])
    with pytest.raises(DataError, match="holds no piece"):
        texts.tower_folder(tower).__enter__()
    with pytest.raises(DataError, match="pip install no-such-package "):
        texts.package_folder("no-such-package")
