"""Images that lie beside their captions: in a folder, or in tars as img2dataset writes them."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clic.captions import annotation
from clic.data.naming import find_shards
from clic.data.packing.items import (
    Item,
    RejectedError,
    decode_text,
    parse_json,
    stays_inside,
    texts,
)
from clic.data.packing.readers.base import IMAGE_ENDINGS, Reader, captions_of, walk
from clic.data.record import MAX_TEXT
from clic.errors import DataError

TEXTS = (".json", ".txt")
KEPT_TEXT = ("source", "url")
KEPT_LISTS = ("negatives", "neighbours")
"""What a sample's JSON may hold beside its captions, and keeps when it is packed again."""
STATISTICS = "_stats.json"  # img2dataset's, one a shard


class Folder(Reader):
    """A folder of images, each with a .txt (a caption a line) or a .json beside it.

    So img2dataset's format `files` is one as well.
    """

    NAME = "folder"
    TAKES = ("encoding",)

    def open(self) -> None:
        self.path = Path(self.source).absolute()
        if not self.path.is_dir():
            raise DataError(f"{self.source} is no folder")
        self.found = ["captions in the .json or .txt beside each image, folders below included"]

    def files(self) -> list[Path]:
        return []  # the list made at the start stands

    def items(self) -> Iterator[Item]:
        for folder, names, left_out in walk(self.path):
            yield from self._folder(folder, names)
            for name, reason in left_out:
                yield Item(self._source(folder, name), reason=reason)

    def _source(self, folder: Path, name: str) -> str:
        return str((folder / name).relative_to(self.path))

    def _folder(self, folder: Path, names: list[str]) -> Iterator[Item]:
        beside: dict[str, dict[str, str]] = {}  # by stem, the name of each text by its ending
        images = []
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in IMAGE_ENDINGS:
                images.append((stem, name))
            elif ending.lower() in TEXTS and not name.endswith(STATISTICS):
                beside.setdefault(stem, {})[ending.lower()] = name  # a.txt behind a.TXT
            elif not os.path.exists(folder / name):
                yield Item(self._source(folder, name), reason="a link that leads to nothing")
        for stem, name in images:
            yield self._item(folder, name, beside.get(stem, {}))
        stems = {stem for stem, _ in images}
        for stem, found in beside.items():
            for name in found.values() if stem not in stems else ():
                reason = "there is no image of its name beside it"
                yield Item(self._source(folder, name), reason=reason)

    def _item(self, folder: Path, name: str, beside: dict[str, str]) -> Item:
        source = self._source(folder, name)
        try:
            contents = {ending[1:]: _small_file(folder / text) for ending, text in beside.items()}
            captions, extra = _texts(contents, source, self.request.encoding)
            extra.pop("source", None)  # the file's name says more
        except RejectedError as error:
            return Item(source, reason=str(error))
        if not captions:
            reason = "no caption in the .json or .txt beside it" if beside else "no .txt or .json"
            return Item(source, reason=reason)
        return Item(source, "", ("file", str(folder / name)), captions, extra)


class Tars(Reader):
    """WebDataset tars as img2dataset writes them: a folder, a pattern or one file."""

    NAME = "img2dataset"
    TAKES = ("encoding",)

    def open(self) -> None:
        self.tars = [path.absolute() for path in find_shards(self.source, "SOURCE")]
        self.found = [f"{len(self.tars)} tars; captions in each sample's .json or .txt"]

    def files(self) -> list[Path]:
        return self.tars

    def items(self) -> Iterator[Item]:
        for path in self.tars:
            yield from self._tar(path)

    def _tar(self, path: Path) -> Iterator[Item]:
        samples: list[_Sample] = []
        broken = ""
        try:
            with tarfile.open(path, "r:") as tar:
                for sample, ending, info in _members(tar, samples, path):
                    sample.members[ending] = (info.offset_data, info.size)
                end = tar.offset
            _check_end(path, end)
        except (tarfile.TarError, OSError) as error:
            broken = f"the tar cannot be read on: {error}"
        except RejectedError as error:
            broken = str(error)
        for sample in samples:
            yield sample.item(self.request.encoding)
        if broken:
            yield Item(path.name, reason=broken)


def _members(
    tar: tarfile.TarFile, samples: list[_Sample], path: Path
) -> Iterator[tuple[_Sample, str, tarfile.TarInfo]]:
    """Yield the files of a tar, each with its sample, and add new samples to the list.

    A sample's files need not lie side by side. A name that comes again is of a further sample.
    """
    of_key: dict[str, list[_Sample]] = {}
    met: Counter[tuple[str, str]] = Counter()
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # which tarfile collects
        key, ending = _split_name(info.name)
        if not info.isfile() or os.path.basename(info.name).startswith("."):
            continue
        same, times = of_key.setdefault(key, []), met[key, ending]
        if times == len(same):
            same.append(_Sample(path, key))
            samples.append(same[-1])
        met[key, ending] += 1
        yield same[times], ending, info


class _Sample:
    """The members of one key of a tar, by their endings: where each begins, and its length."""

    def __init__(self, tar: Path, key: str) -> None:
        self.tar, self.key = tar, key
        self.members: dict[str, tuple[int, int]] = {}

    def item(self, encoding: str | None) -> Item:
        source = f"{self.tar.name}/{self.key}"
        image = next((e for e in self.members if e in IMAGE_ENDINGS), None)
        try:
            if self.key.startswith("/") or not stays_inside(self.key):
                raise RejectedError("its name leads out of the archive")
            if image is None:
                raise RejectedError(f"no image among its files ({self._listed()})")
            contents = {e[1:]: self._read(e) for e in TEXTS if e in self.members}
            captions, extra = _texts(contents, self.key, encoding)
            if not captions:
                raise RejectedError("no caption in its .json or .txt")
        except RejectedError as error:
            return Item(source, reason=str(error))
        place = ("slice", str(self.tar), *self.members[image])
        return Item(extra.pop("source", source), "", place, captions, extra, key=self.key)

    def _listed(self) -> str:
        dotted = any(
            e not in IMAGE_ENDINGS and e.endswith(tuple(IMAGE_ENDINGS)) for e in self.members
        )
        names = ", ".join(list(self.members)[:5])
        return f"{names}; what follows a name's first dot is its type" if dotted else names

    def _read(self, ending: str) -> bytes:
        offset, length = self.members[ending]
        try:
            with open(self.tar, "rb") as file:
                file.seek(offset)
                return file.read(min(length, MAX_TEXT + 1))
        except OSError as error:
            raise RejectedError(f"{self.tar.name}: {error.strerror}") from error


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


def _texts(
    contents: dict[str, bytes], name: str, encoding: str | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the captions, of the JSON before the text, and what else of the JSON is kept."""
    captions: tuple[str, ...] = ()
    extra: dict[str, Any] = {}
    if any(len(data) > MAX_TEXT for data in contents.values()):
        raise RejectedError(f"its .json or .txt is larger than {MAX_TEXT:,} bytes")
    if "json" in contents:
        record = parse_json(contents["json"], f"{name}.json")
        captions = captions_of(record)
        extra = _kept(record) if isinstance(record, dict) else {}
    if not captions and "txt" in contents:
        captions = texts(decode_text(contents["txt"], encoding).splitlines())
    return captions, extra


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a sample's JSON that stay, where they are of the form we write."""
    kept = {n: record[n] for n in KEPT_TEXT if isinstance(record.get(n), str)}
    for name in KEPT_LISTS:
        found = record.get(name)
        if isinstance(found, list) and all(isinstance(text, str) for text in found):
            kept[name] = found
    if all(name in record for name in annotation.KEYS):
        kept |= {name: record[name] for name in annotation.KEYS}
    return kept


def _small_file(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_TEXT + 1)
    except OSError as error:
        raise RejectedError(f"{path.name}: {error.strerror}") from error
