"""Writing samples as WebDataset shards with an index beside each."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import webdataset
from PIL import Image

from clic import images
from clic.data.shards import IMAGE_TYPES, write_index
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
        DataError: `folder` already holds shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.tar")):
        raise DataError(f"{folder} already holds shards; name a new folder, or remove them")
    written = []
    for number, part in enumerate(_parts(samples, shard_size)):
        shard = folder / f"{number:05d}.tar"
        temporary = folder / f".{shard.name}.{os.getpid()}.tmp"
        try:
            with open(temporary, "wb") as file, webdataset.TarWriter(file, mtime=0.0) as writer:
                for sample in part:
                    writer.write(record(sample))
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


def record(sample: Sample) -> dict[str, Any]:
    """Return the members of a sample: image, `.json` (captions, size, tagged tokens) and `.txt`.

    Raises:
        DataError: The key or the image cannot stand in a tar, or there is no caption.
    """
    if not sample.key or "." in sample.key:  # readers take what follows the first dot for the type
        raise DataError(f"key {sample.key!r} must not be empty or hold a dot; rename the sample")
    if not sample.captions:
        raise DataError(f"sample {sample.key!r} has no caption; drop it")
    width, height = images.dimensions(sample.image)
    extension, data = _encoded(sample)
    meta: dict[str, Any] = {
        "key": sample.key,
        "caption": sample.captions[0],
        "captions": list(sample.captions),
        "width": width,
        "height": height,
    }
    if sample.tags is not None:
        meta["tokens"] = [[list(token) for token in sentence] for sentence in sample.tags]
    return {"__key__": sample.key, extension: data, "json": meta, "txt": sample.captions[0]}


def _encoded(sample: Sample) -> tuple[str, bytes]:
    if isinstance(sample.image, bytes):
        kind = Image.open(io.BytesIO(sample.image)).format or ""
        # MPO is what cameras call a JPEG with a second picture behind it.
        extension = {"JPEG": "jpg", "MPO": "jpg"}.get(kind, kind.lower())
        if f".{extension}" not in IMAGE_TYPES:
            raise DataError(
                f"sample {sample.key!r}: images of type {kind} are not read from shards; "
                "store it as JPEG, PNG or WebP"
            )
        return extension, sample.image
    buffer = io.BytesIO()
    Image.fromarray(sample.image).save(buffer, format="PNG")
    return "png", buffer.getvalue()
