"""Readers of images that are stored beside their captions: in a folder, or in WebDataset tars."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from clic.data.packing.items import Item, RejectedError, decode_text, parse_json, texts
from clic.data.packing.readers.base import IMAGE_ENDINGS, FormatReader, captions_of, walk
from clic.data.shards import tar as index_tar
from clic.data.shards.locating import find_shards
from clic.data.shards.records import MAX_TEXT, TAG_KEYS
from clic.data.shards.tar import TEXT_TYPES, Members, Span
from clic.errors import DataError

KEPT_TEXT = ("source", "url")
KEPT_LISTS = ("negatives", "neighbours")
"""Entries of a sample's JSON, besides its captions, that are kept when it is packed again."""
STATISTICS = "_stats.json"  # written by img2dataset, one per shard


class Folder(FormatReader):
    """A folder of images, each with a .txt (one caption per line) or a .json beside it.

    This includes img2dataset's format `files`.
    """

    NAME = "folder"
    TAKES = ("encoding",)

    def open(self) -> None:
        self.path = self.path.absolute()
        if not self.path.is_dir():
            raise DataError(f"{self.source} is not a folder")
        self.found = ["captions in the .json or .txt beside each image, subfolders included"]

    def files(self) -> list[Path]:
        return []  # the list made at the start remains valid

    def items(self) -> Iterator[Item]:
        for folder, names, left_out in walk(self.path):
            yield from self._folder(folder, names)
            for name, reason in left_out:
                yield Item(self._source(folder, name), reason=reason)

    def _source(self, folder: Path, name: str) -> str:
        return str((folder / name).relative_to(self.path))

    def _folder(self, folder: Path, names: list[str]) -> Iterator[Item]:
        beside: dict[str, dict[str, str]] = {}  # text files by stem, then by ending
        images = []
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in IMAGE_ENDINGS:
                images.append((stem, name))
            elif ending.lower() in TEXT_TYPES and not name.endswith(STATISTICS):
                beside.setdefault(stem, {})[ending.lower()] = name  # a.txt replaces a.TXT
            elif not os.path.exists(folder / name):
                yield Item(self._source(folder, name), reason="a broken link")
        for stem, name in images:
            try:
                yield self._item(folder, name, beside.get(stem, {}))
            except RejectedError as error:
                yield Item(self._source(folder, name), reason=str(error))
        stems = {stem for stem, _ in images}
        alone = [found for stem, found in beside.items() if stem not in stems]
        for name in chain.from_iterable(found.values() for found in alone):
            yield Item(self._source(folder, name), reason="there is no image of its name beside it")

    def _item(self, folder: Path, name: str, beside: dict[str, str]) -> Item:
        source = self._source(folder, name)
        contents = {ending[1:]: _small_file(folder / text) for ending, text in beside.items()}
        captions, extra = _texts(contents, source, self.request.encoding)
        extra.pop("source", None)  # the file's own name is more useful
        if not captions:
            raise RejectedError(
                "no caption in the .json or .txt beside it" if beside else "no .txt or .json"
            )
        return Item(source, "", ("file", str(folder / name)), captions, extra)


class Tars(FormatReader):
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
        notes: list[str] = []
        incomplete = "not all of the tar is packed, which"
        try:
            with open(path, "rb") as file:
                for key, members in index_tar.walk(file, path, notes):
                    try:
                        yield self._item(file, path, key, members)
                    except (RejectedError, DataError) as error:
                        yield Item(f"{path.name}/{key}", reason=str(error))
        except DataError as error:
            yield Item(path.name, reason=f"{incomplete} {str(error).removeprefix(f'{path} ')}")
        except OSError as error:
            yield Item(path.name, reason=f"{incomplete} cannot be read ({error.strerror})")
        for note in notes:
            print(f"{path}: {note}", file=sys.stderr)

    def _item(self, file: BinaryIO, tar: Path, key: str, members: Members) -> Item:
        image = next((ending for ending in IMAGE_ENDINGS if ending in members), None)
        dots = index_tar.dots(key, members)
        hint = dots and f"; {dots}"
        if image is None:
            listed = ", ".join(list(members)[:5])
            raise RejectedError(f"no image among its files ({listed}){hint}")
        contents = {
            ending[1:]: index_tar.read_span(file, Span(offset, min(length, MAX_TEXT + 1)), tar)
            for ending, (offset, length) in members.items()
            if ending in TEXT_TYPES
        }
        captions, extra = _texts(contents, key, self.request.encoding)
        if not captions:
            raise RejectedError(f"no caption in its .json or .txt{hint}")
        source = extra.pop("source", f"{tar.name}/{key}")
        place = ("slice", str(tar), *members[image])
        return Item(source, "", place, captions, extra, key=key)


def _texts(
    contents: dict[str, bytes], name: str, encoding: str | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the captions, from the JSON if it has some, and the other entries that are kept."""
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
    """Return the entries of a sample's JSON that are kept, if they have the form that we write."""
    kept = {n: record[n] for n in KEPT_TEXT if isinstance(record.get(n), str)}
    for name in KEPT_LISTS:
        found = record.get(name)
        if isinstance(found, list) and all(isinstance(text, str) for text in found):
            kept[name] = found
    if all(name in record for name in TAG_KEYS):
        kept |= {name: record[name] for name in TAG_KEYS}
    return kept


def _small_file(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_TEXT + 1)
    except OSError as error:
        raise RejectedError(f"{path.name}: {error.strerror}") from error
