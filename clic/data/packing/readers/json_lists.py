"""Readers of JSON lists: COCO's captions, Karpathy's splits, and records with any names."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from clic.data.packing.items import Item, RejectedError, load_json, parse_json, reading, texts
from clic.data.packing.readers.base import FormatReader, captions_of, choose_columns, rejected
from clic.errors import ConfigError, DataError, did_you_mean

TRAINING_SPLITS = "train,restval"
SAMPLE = 100  # records whose keys are inspected


class _JsonList(FormatReader):
    def open(self) -> None:
        value = load_json(self.path)
        images = value.get("images") if isinstance(value, dict) else None
        if not isinstance(images, list) or not all(isinstance(i, dict) for i in images):
            raise DataError(f"{self.path} holds no list 'images' of objects; it is not {self.NAME}")
        self.value: dict[str, Any] = value
        self.images: list[dict[str, Any]] = images
        self.found = [self.find_root()]

    def item(self, name: str, captions: Iterable[str], reason: str = "") -> Item:
        """Return the item of a listed image; only a rejected item names the list as its row."""
        found = rejected(name, "", reason) if reason else self.listed(name, "", captions)
        return replace(found, row=self.path.name) if found.reason else found


class Coco(_JsonList):
    """COCO captions: `images` (id, file_name) and `annotations` (image_id, caption)."""

    NAME = "coco"
    TAKES = ("image_root",)

    def open(self) -> None:
        super().open()
        if not isinstance(self.value.get("annotations"), list):
            raise DataError(f"{self.path} has no list 'annotations'; it is not {self.NAME}")

    def default_root(self) -> Path:
        """Return the folder of images, which COCO places beside annotations/."""
        beside = self.path.parent.parent / self.path.stem.removeprefix("captions_")
        return beside if beside.is_dir() else super().default_root()

    def items(self) -> Iterator[Item]:
        captions: dict[Any, list[str]] = {_id_of(image): [] for image in self.images}
        strays = []  # captions of images that are not listed
        for note in self.value["annotations"]:
            owner = note.get("image_id") if isinstance(note, dict) else None
            found = texts(note.get("caption")) if isinstance(note, dict) else ()
            if isinstance(owner, int | str) and owner in captions:
                captions[owner] += found
            else:
                reason = f"caption of an unknown image id {owner}"
                strays.append(Item(found[0][:80] if found else "", self.path.name, reason=reason))
        seen = set()
        for image in self.images:
            number, reason = _id_of(image), ""
            if number is None:
                reason = "it has no id"
            elif number in seen:
                reason = f"image id {number} occurs twice"
            seen.add(number)
            yield self.item(str(image.get("file_name", "")), captions[number], reason)
        yield from strays


def _id_of(image: dict[str, Any]) -> int | str | None:
    found = image.get("id")
    return found if isinstance(found, int | str) else None


class Karpathy(_JsonList):
    """Karpathy's dataset_coco.json and dataset_flickr30k.json."""

    NAME = "karpathy"
    TAKES = ("image_root", "split")

    def open(self) -> None:
        super().open()
        known = sorted({str(image.get("split")) for image in self.images})
        wanted = (self.request.split or TRAINING_SPLITS).split(",")
        missing = [name for name in wanted if name not in known]
        if missing and self.request.split:
            raise ConfigError(
                f"--split {missing[0]}: there is no such split{did_you_mean(missing[0], known)} "
                f"(splits: {', '.join(known)})"
            )
        self.splits = [name for name in wanted if name in known]
        if not self.splits:
            raise DataError(
                f"{self.path} has no split {TRAINING_SPLITS}; name one with --split "
                f"({', '.join(known)})"
            )
        default = "" if self.request.split else " (the default)"
        self.found.insert(0, f"splits: {', '.join(self.splits)}{default}")

    def items(self) -> Iterator[Item]:
        for image in self.images:
            if str(image.get("split")) not in self.splits:
                continue
            parts = [str(image[key]) for key in ("filepath", "filename") if image.get(key)]
            name, sentences = "/".join(parts), image.get("sentences")
            if isinstance(sentences, list):
                raws = [s.get("raw") if isinstance(s, dict) else None for s in sentences]
                yield self.item(name, texts(raws))
            else:
                yield self.item(name, (), "it has no list 'sentences'")


class Records(FormatReader):
    """A list of objects, or JSON lines, one per image or per caption."""

    NAME = "records"
    TAKES = ("image_root", "image_column", "caption_column")

    def open(self) -> None:
        first = [value for _, value in islice(self._values(), SAMPLE) if isinstance(value, dict)]
        names = list(dict.fromkeys(name for value in first for name in value))
        if not names:
            raise DataError(f"{self.path} holds no list of objects; it is not {self.NAME}")
        self.image, self.captions, self.found = choose_columns(self.request, names, str(self.path))
        self.found.append(self.find_root())

    def _values(self) -> Iterator[tuple[int, Any]]:
        """Yield each record's number and value, or the error of a line that is not valid JSON."""
        if self.path.suffix.lower() == ".json":
            values = load_json(self.path)
            yield from enumerate(values if isinstance(values, list) else [], 1)
            return
        with reading(self.path), open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield number, parse_json(line.removeprefix(codecs.BOM_UTF8), "the line")
                    except RejectedError as error:
                        yield number, error

    def items(self) -> Iterator[Item]:
        for number, value in self._values():
            where = f"{self.path.name}:{number}"
            if not isinstance(value, dict):
                reason = str(value) if isinstance(value, RejectedError) else "no object"
                yield rejected("", where, reason)
                continue
            image = value.get(self.image)
            captions = [c for name in self.captions for c in captions_of(value.get(name))]
            yield self.listed(image if isinstance(image, str) else "", where, captions)


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
