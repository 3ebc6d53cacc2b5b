"""Writing samples that are at hand, such as scenes of the embedded world."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from clic import images
from clic.captions import annotation
from clic.data.index import write_index
from clic.data.packing.encoding import ENDINGS, kind_of
from clic.data.packing.items import RejectedError
from clic.data.packing.tars import ShardWriter, members_of
from clic.errors import DataError
from clic.types import Sample


def pack(samples: Iterable[Sample], folder: Path, shard_size: int = 1000) -> list[Path]:
    """Write samples to `folder`/00000.tar, 00001.tar, ..., each with its index.

    Args:
        samples: What to write; decoded pixels are stored as PNG, encoded images as they are.
        folder: Where to; made where it does not exist, and must hold no shards yet.
        shard_size: Samples in a shard.

    Returns:
        The shards. Each appears whole or not at all.

    Raises:
        DataError: `folder` already holds shards, or a sample cannot stand in one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.tar")):
        raise DataError(f"{folder} already holds shards; name a new folder, or remove them")
    written = []
    for number, part in enumerate(_parts(samples, shard_size)):
        shard = folder / f"{number:05d}.tar"
        temporary = folder / f".{shard.name}.{os.getpid()}.tmp"
        try:
            with ShardWriter(temporary) as writer:
                for sample in part:
                    writer.write(_members(sample))
            os.replace(temporary, shard)
        finally:
            temporary.unlink(missing_ok=True)
        write_index(shard)
        written.append(shard)
    return written


def _parts(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while part := list(islice(iterator, size)):
        yield part


def _members(sample: Sample) -> dict[str, Any]:
    if not sample.key or "." in sample.key:  # readers take what follows the first dot for the type
        raise DataError(f"key {sample.key!r} must not be empty or hold a dot; rename the sample")
    if not sample.captions:
        raise DataError(f"sample {sample.key!r} has no caption; drop it")
    try:
        width, height = images.dimensions(sample.image)
    except DataError as error:
        raise DataError(f"sample {sample.key!r}: {error}") from error
    ending, data = _encoded(sample)
    record: dict[str, Any] = {
        "caption": sample.captions[0],
        "captions": list(sample.captions),
        "width": width,
        "height": height,
    }
    if sample.tags is not None:
        record |= annotation.record(sample.captions, sample.tags, "given", "1")
    if sample.negatives:
        record["negatives"] = list(sample.negatives)
    try:
        return members_of(sample.key, ending, data, record)
    except RejectedError as error:
        raise DataError(f"sample {sample.key!r}: {error}") from error


def _encoded(sample: Sample) -> tuple[str, bytes]:
    if isinstance(sample.image, bytes):
        kind = kind_of(sample.image)
        if kind not in ENDINGS:
            raise DataError(
                f"sample {sample.key!r}: images of type {kind} are not read from shards; "
                "store it as JPEG, PNG or WebP"
            )
        return ENDINGS[kind], sample.image
    buffer = io.BytesIO()
    Image.fromarray(sample.image).save(buffer, format="PNG")
    return "png", buffer.getvalue()
