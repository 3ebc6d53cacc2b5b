"""Images that lie beside their captions: in a folder, or in tars as img2dataset writes them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clic.data.naming import find_shards
from clic.data.packing.items import Item, RejectedError, parse_json, stays_inside, texts
from clic.data.packing.readers.base import IMAGE_ENDINGS, Reader, captions_of
from clic.data.record import MAX_TEXT
from clic.errors import DataError

STATISTICS = "_stats.json"  # img2dataset's, one a shard


class Folder(Reader):
    """A folder of images, each with a .txt (a caption a line) or a .json beside it.

    So img2dataset's format `files` is one as well.
    """

    NAME = "folder"

    def open(self) -> None:
        self.path = Path(self.source).absolute()
        if not self.path.is_dir():
            raise DataError(f"{self.source} is no folder")
        self.found = ["captions in the .json or .txt beside each image, folders below included"]

    def files(self) -> list[Path]:
        return []  # the list made at the start stands

    def items(self) -> Iterator[Item]:
        for folder, below, names in os.walk(self.path):
            below[:] = sorted(name for name in below if not name.startswith("."))
            yield from self._folder(Path(folder), sorted(n for n in names if n[0] != "."))

    def _folder(self, folder: Path, names: list[str]) -> Iterator[Item]:
        there, stems = set(names), set()
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in IMAGE_ENDINGS:
                stems.add(stem)
                beside = [text for text in (f"{stem}.json", f"{stem}.txt") if text in there]
                yield self._item(folder, name, beside)
        for name in names:
            stem, ending = os.path.splitext(name)
            text = ending in (".json", ".txt") and not name.endswith(STATISTICS)
            if text and stem not in stems:
                source = str((folder / name).relative_to(self.path))
                yield Item(source, reason="there is no image of its name beside it")

    def _item(self, folder: Path, name: str, beside: list[str]) -> Item:
        source = str((folder / name).relative_to(self.path))
        try:
            contents = {text[-4:].lstrip("."): _small_file(folder / text) for text in beside}
            captions, extra = _texts(contents, source)
        except RejectedError as error:
            return Item(source, reason=str(error))
        if not captions:
            reason = "no caption in the .json or .txt beside it" if beside else "no .txt or .json"
            return Item(source, reason=reason)
        return Item(source, "", ("file", str(folder / name)), captions, extra)


class Tars(Reader):
    """WebDataset tars as img2dataset writes them: a folder, a pattern or one file."""

    NAME = "img2dataset"

    def open(self) -> None:
        self.tars = [path.absolute() for path in find_shards(self.source, "SOURCE")]
        self.found = [f"{len(self.tars)} tars; captions in each sample's .json or .txt"]

    def files(self) -> list[Path]:
        return self.tars

    def items(self) -> Iterator[Item]:
        for path in self.tars:
            yield from self._tar(path)

    def _tar(self, path: Path) -> Iterator[Item]:
        sample: _Sample | None = None
        try:
            with tarfile.open(path, "r:") as tar:
                for info in tar:
                    if not info.isfile():
                        continue
                    key, ending = _split_name(info.name)
                    if sample is None or sample.key != key or ending in sample.members:
                        yield from sample.items() if sample else ()
                        sample = _Sample(path, key)
                    sample.add(tar, info, ending)
                    tar.members = []  # type: ignore[attr-defined]  # which tarfile collects
                end = tar.offset
            yield from sample.items() if sample else ()
            _check_end(path, end)
        except (tarfile.TarError, OSError) as error:
            yield Item(path.name, reason=f"the tar cannot be read on: {error}")
        except RejectedError as error:
            yield Item(path.name, reason=str(error))


class _Sample:
    """The members of one key of a tar."""

    def __init__(self, tar: Path, key: str) -> None:
        self.tar, self.key = tar, key
        self.members: dict[str, tuple[int, int]] = {}
        self.contents: dict[str, bytes] = {}

    def add(self, tar: tarfile.TarFile, info: tarfile.TarInfo, ending: str) -> None:
        self.members[ending] = (info.offset_data, info.size)
        file = tar.extractfile(info) if ending in (".json", ".txt") else None
        if file is not None:
            self.contents[ending[1:]] = file.read(MAX_TEXT + 1)

    def items(self) -> Iterator[Item]:
        source = f"{self.tar.name}/{self.key}"
        image = next((e for e in self.members if e in IMAGE_ENDINGS), None)
        try:
            if self.key.startswith("/") or not stays_inside(self.key):
                raise RejectedError("its name leads out of the archive")
            if image is None:
                raise RejectedError(f"no image among its files ({', '.join(self.members)})")
            captions, extra = _texts(self.contents, self.key)
            if not captions:
                raise RejectedError("no caption in its .json or .txt")
        except RejectedError as error:
            yield Item(source, reason=str(error))
        else:
            yield Item(source, "", ("slice", str(self.tar), *self.members[image]), captions, extra)


def _split_name(name: str) -> tuple[str, str]:
    """Return key and ending, which starts at the first dot of the file's name (WebDataset)."""
    folder, _, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    if name.startswith("/") and not folder:
        folder = "/"
    return (f"{folder}/{stem}" if folder else stem), (dot + ending).lower()


def _check_end(path: Path, end: int) -> None:
    """Refuse a tar that does not end with a block of zeros: tarfile takes a cut for the end."""
    with open(path, "rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise RejectedError(
                f"the tar is cut short or broken at byte {end}; what follows is lost"
            )


def _texts(contents: dict[str, bytes], name: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the captions, of the JSON before the text, and the URL where there is one."""
    captions: tuple[str, ...] = ()
    extra: dict[str, Any] = {}
    if any(len(data) > MAX_TEXT for data in contents.values()):
        raise RejectedError(f"its .json or .txt is larger than {MAX_TEXT:,} bytes")
    if "json" in contents:
        record = parse_json(contents["json"], f"{name}.json")
        captions = captions_of(record)
        if isinstance(record, dict) and isinstance(record.get("url"), str):
            extra["url"] = record["url"]
    if not captions and "txt" in contents:
        text = contents["txt"].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        captions = texts(text.splitlines())
    return captions, extra


def _small_file(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_TEXT + 1)
    except OSError as error:
        raise RejectedError(f"{path.name}: {error.strerror}") from error
