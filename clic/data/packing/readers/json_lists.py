"""Readers of JSON lists: COCO's captions, Karpathy's splits, and records with any names."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from clic.data.packing.items import (
    Item,
    RejectedError,
    file_place,
    load_json,
    parse_json,
    reading,
    texts,
)
from clic.data.packing.readers.base import FormatReader, captions_of, choose_columns, shorten
from clic.errors import ConfigError, DataError, did_you_mean

TRAINING_SPLITS = "train,restval"
SAMPLE = 100  # records whose keys are inspected


class _JsonList(FormatReader):
    def open(self) -> None:
        self.path = Path(self.source)
        value = load_json(self.path)
        images = value.get("images") if isinstance(value, dict) else None
        if not isinstance(images, list) or not all(isinstance(i, dict) for i in images):
            raise DataError(f"{self.path} holds no list 'images' of objects; it is not {self.NAME}")
        self.value: dict[str, Any] = value
        self.images: list[dict[str, Any]] = images
        self.folder = self.root()

    def item(self, name: str, place_of: str, captions: tuple[str, ...], reason: str = "") -> Item:
        """Return the item of an image that the list names."""
        try:
            if reason:
                raise RejectedError(reason)
            return Item(name, "", file_place(place_of, self.folder), captions)
        except RejectedError as error:
            return Item(name, self.path.name, reason=str(error))


class Coco(_JsonList):
    """COCO captions: `images` (id, file_name) and `annotations` (image_id, caption)."""

    NAME = "coco"
    TAKES = ("image_root",)

    def open(self) -> None:
        super().open()
        if not isinstance(self.value.get("annotations"), list):
            raise DataError(f"{self.path} has no list 'annotations'; it is not {self.NAME}")
        self.found = [f"images below {self.folder}"]

    def root(self) -> Path:
        """Return the folder of images, which COCO places beside annotations/."""
        beside = self.path.parent.parent / self.path.stem.removeprefix("captions_")
        if self.request.image_root is None and beside.is_dir():
            return beside.absolute()
        return super().root()

    def items(self) -> Iterator[Item]:
        captions, strays = self._captions()
        seen = set()
        for image in self.images:
            name, number, reason = str(image.get("file_name", "")), _id_of(image), ""
            if number is None:
                reason = "it has no id"
            elif number in seen:
                reason = f"image id {number} occurs twice"
            seen.add(number)
            yield self.item(name, name, tuple(captions.get(number, ())), reason)
        for text, owner in strays:
            yield Item(text[:80], self.path.name, reason=f"caption of an unknown image id {owner}")

    def _captions(self) -> tuple[dict[Any, list[str]], list[tuple[str, Any]]]:
        """Return the captions by image id, and those of unlisted images."""
        captions: dict[Any, list[str]] = {_id_of(image): [] for image in self.images}
        strays = []
        for note in self.value["annotations"]:
            owner = note.get("image_id") if isinstance(note, dict) else None
            found = texts(note.get("caption")) if isinstance(note, dict) else ()
            if isinstance(owner, int | str) and owner in captions:
                captions[owner] += found
            else:
                strays.append((found[0] if found else "", owner))
        return captions, strays


def _id_of(image: dict[str, Any]) -> int | str | None:
    found = image.get("id")
    return found if isinstance(found, int | str) else None


class Karpathy(_JsonList):
    """Karpathy's dataset_coco.json and dataset_flickr30k.json."""

    NAME = "karpathy"
    TAKES = ("image_root", "split")

    def open(self) -> None:
        super().open()
        there = sorted({str(image.get("split")) for image in self.images})
        wanted = (self.request.split or TRAINING_SPLITS).split(",")
        missing = [name for name in wanted if name not in there]
        if missing and self.request.split:
            raise ConfigError(
                f"--split {missing[0]}: there is no such split{did_you_mean(missing[0], there)} "
                f"(splits: {', '.join(there)})"
            )
        self.splits = [name for name in wanted if name in there]
        if not self.splits:
            raise DataError(
                f"{self.path} has no split {TRAINING_SPLITS}; name one with --split "
                f"({', '.join(there)})"
            )
        default = "" if self.request.split else " (the default)"
        self.found = [f"splits: {', '.join(self.splits)}{default}", f"images below {self.folder}"]

    def items(self) -> Iterator[Item]:
        for image in self.images:
            if str(image.get("split")) not in self.splits:
                continue
            folder, name = str(image.get("filepath") or ""), str(image.get("filename") or "")
            path = f"{folder}/{name}" if folder else name
            sentences = image.get("sentences")
            if not isinstance(sentences, list):
                yield self.item(path, path, (), "it has no list 'sentences'")
                continue
            raws = [s.get("raw") if isinstance(s, dict) else None for s in sentences]
            yield self.item(path, path, texts(raws))


class Records(FormatReader):
    """A list of objects, or JSON lines, one per image or per caption."""

    NAME = "records"
    TAKES = ("image_root", "image_column", "caption_column")

    def open(self) -> None:
        self.path = Path(self.source)
        first = [value for _, value in islice(self._values(), SAMPLE) if isinstance(value, dict)]
        names = list(dict.fromkeys(name for value in first for name in value))
        if not names:
            raise DataError(f"{self.path} holds no list of objects; it is not {self.NAME}")
        self.image, self.captions, self.found = choose_columns(self.request, names, str(self.path))
        self.found.append(f"images below {self.root()}")

    def _values(self) -> Iterator[tuple[int, Any]]:
        """Yield the number of each record and its value, or the error that makes it none."""
        if self.path.suffix.lower() == ".json":
            values = load_json(self.path)
            yield from enumerate(values if isinstance(values, list) else [], 1)
            return
        with reading(self.path), open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parsed(line.removeprefix(codecs.BOM_UTF8))

    def items(self) -> Iterator[Item]:
        root = self.root()
        for number, value in self._values():
            where, image = f"{self.path.name}:{number}", ""
            try:
                if not isinstance(value, dict):
                    raise value if isinstance(value, RejectedError) else RejectedError("no object")
                found = value.get(self.image)
                image = found if isinstance(found, str) else ""
                place = file_place(image, root)
            except RejectedError as error:
                yield Item(shorten(image, 300), where, reason=str(error))
            else:
                captions = [c for name in self.captions for c in captions_of(value.get(name))]
                yield Item(image, where, place, tuple(captions))


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line, "the line")
    except RejectedError as error:
        return error


def detect_list(path: Path) -> type[FormatReader]:
    """Return the reader for a JSON file; raises `DataError`."""
    value = load_json(path)
    if isinstance(value, list) and any(isinstance(record, dict) for record in value):
        return Records
    images = value.get("images") if isinstance(value, dict) else None
    if isinstance(images, list) and isinstance(value.get("annotations"), list):
        return Coco
    if isinstance(images, list) and any("sentences" in i for i in images if isinstance(i, dict)):
        return Karpathy
    raise DataError(
        f"{path} is neither COCO captions ('images' and 'annotations') nor a Karpathy split "
        "('images' with 'sentences'); write a CSV with an image and a caption column"
    )
