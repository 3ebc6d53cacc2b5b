"""Writes shards: tars in webdataset's layout, with the same bytes for the same samples.

`members_of` makes a sample's files from an item of a source, and `ShardWriter` puts them into a
tar. `pack` writes samples that are already in memory, such as scenes of the embedded world.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from clic import images
from clic.captions.sentences import MAX_WORDS, MIN_SENTENCES, MIN_WORDS, prepare
from clic.captions.tagging import make_tagger
from clic.data.packing.image_bytes import ENDINGS, encode, fetch, kind_of
from clic.data.packing.items import Item, RejectedError
from clic.data.shards import records
from clic.data.shards.index import write_index
from clic.data.shards.records import MAX_TEXT
from clic.errors import DataError
from clic.io.files import replacing
from clic.types import Sample

NO_CAPTION = "no caption"
"""Why a row without a caption is rejected."""
_HEADERS = 4 * 512  # approximate overhead of a member in bytes
_make_tagger = lru_cache(maxsize=1)(make_tagger)


@dataclass(frozen=True)
class Options:
    """How samples are stored."""

    shard_size: int = 1000  # items of the source per shard, rejected ones included
    shard_mb: int = 256  # a shard that would exceed this many MB is split into several
    resize_short: int | None = 288  # shorter side in pixels; None keeps the images' bytes
    quality: int | None = 90  # of JPEGs; None keeps the images' bytes
    prepare_sentences: bool = False  # split dense captions into sentences
    tags: str | None = None  # tagger whose tokens are stored


def members_of(key: str, item: Item, options: Options) -> tuple[list[str], dict[str, Any]]:
    """Return the captions and members of an item's sample; raises `RejectedError`."""
    if item.reason:
        raise RejectedError(item.reason)
    captions = _captions(item, options)
    image = encode(fetch(item.place), options.resize_short, options.quality)
    source = item.source.encode("utf-8", "backslashreplace").decode()
    extra = {"source": source, **item.extra}
    if options.tags is not None:
        extra |= records.annotate(captions, _make_tagger(options.tags))
    elif extra.get("caption_hash") != records.caption_hash(captions):
        for name in records.TAG_KEYS:  # an earlier packing stored tags of other captions
            extra.pop(name, None)
    return captions, _encode_members(key, image, captions, extra)


def _captions(item: Item, options: Options) -> list[str]:
    found = list(item.captions)
    if options.prepare_sentences:
        found = [sentence for caption in found for sentence in prepare(caption)]
        if len(found) < MIN_SENTENCES:
            raise RejectedError(
                f"fewer than {MIN_SENTENCES} sentences of {MIN_WORDS} to {MAX_WORDS} words"
            )
    captions = [clean for caption in found if (clean := " ".join(caption.split()))]
    if not captions:
        raise RejectedError(NO_CAPTION)
    return captions


class ShardWriter:
    """Writes one tar, without any trace of the time, the user or the machine."""

    def __init__(self, path: Path) -> None:
        self.path, self.samples, self.bytes = path, 0, 0
        self._file = open(path, "wb")  # noqa: SIM115, closed with the writer
        self._tar = webdataset.TarWriter(self._file, mtime=0.0, encoder=False)

    def close(self) -> None:
        """Finish the tar and flush it to the disk."""
        if self._file.closed:
            return
        try:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, members: Mapping[str, Any]) -> None:
        """Add the members of a sample."""
        self._tar.write(members)
        self.samples += 1
        self.bytes += size_of(members)


def size_of(members: Mapping[str, Any]) -> int:
    """Return the approximate number of bytes of a sample in a tar."""
    return sum(len(data) + _HEADERS for name, data in members.items() if name != "__key__")


def _encode_members(
    key: str, image: tuple[str, bytes, int, int], captions: Sequence[str], extra: dict[str, Any]
) -> dict[str, Any]:
    """Return the members of a sample: image, `.json` and `.txt`; raises `RejectedError`."""
    ending, data, width, height = image
    record: dict[str, Any] = {"key": key, "caption": captions[0], "captions": captions}
    record |= {"width": width, "height": height, **extra}
    try:
        meta = json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RejectedError("its text is not UTF-8; save the source as UTF-8") from error
    if len(meta) > MAX_TEXT:
        raise RejectedError(f"its JSON would be larger than {MAX_TEXT:,} bytes")
    return {"__key__": key, ending: data, "json": meta, "txt": captions[0].encode()}


def pack(samples: Iterable[Sample], folder: Path, shard_size: int = 1000) -> list[Path]:
    """Write samples to `folder`/00000.tar, 00001.tar, ..., each with its index.

    Args:
        samples: What to write; decoded pixels are stored as PNG, encoded images as they are.
        folder: Where to write; created if it does not exist, and must not contain shards yet.
        shard_size: Samples per shard.

    Returns:
        The shards. Each appears whole or not at all.

    Raises:
        DataError: `folder` already holds shards, or a sample cannot be stored in one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.tar")):
        raise DataError(f"{folder} already holds shards; name a new folder, or remove them")
    written: list[Path] = []
    iterator = iter(samples)
    while part := list(islice(iterator, shard_size)):
        shard = folder / f"{len(written):05d}.tar"
        with replacing(shard) as temporary, closing(ShardWriter(temporary)) as writer:
            for sample in part:
                writer.write(_sample_members(sample))
        write_index(shard)
        written.append(shard)
    return written


def _sample_members(sample: Sample) -> dict[str, Any]:
    if not sample.key or "." in sample.key:  # readers take the key to end at the first dot
        raise DataError(f"key {sample.key!r} must not be empty or hold a dot; rename the sample")
    if not sample.captions:
        raise DataError(f"sample {sample.key!r} has no caption; drop it")
    extra: dict[str, Any] = {}
    try:
        size = images.dimensions(sample.image)
        if sample.tags is not None:
            extra = records.tag_record(sample.captions, sample.tags, "given", "1")
        if sample.negatives:
            extra["negatives"] = list(sample.negatives)
        image = (*_encoded(sample.image), *size)
        return _encode_members(sample.key, image, sample.captions, extra)
    except (DataError, RejectedError) as error:
        raise DataError(f"sample {sample.key!r}: {error}") from error


def _encoded(image: bytes | np.ndarray) -> tuple[str, bytes]:
    """Return file ending and bytes of a sample's image."""
    if not isinstance(image, bytes):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        return "png", buffer.getvalue()
    if (kind := kind_of(image)) not in ENDINGS:
        raise DataError(
            f"images of type {kind} are not read from shards; store it as JPEG, PNG or WebP"
        )
    return ENDINGS[kind], image
