"""One part of a source made into its shard (several, where it would be too large).

Writing shards: members in webdataset's layout, the same bytes for the same samples.

Writing samples that are at hand, such as scenes of the embedded world.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import webdataset
from PIL import Image

from clic import images
from clic.captions import tagging
from clic.captions.sentences import MAX_WORDS, MIN_SENTENCES, MIN_WORDS, prepare
from clic.captions.tagging import Tagger, make_tagger
from clic.data.packing.image_bytes import ENDINGS, encode, fetch, kind_of, release
from clic.data.packing.items import Item, RejectedError, key_of
from clic.data.packing.pack_plan import Options, PackPlan
from clic.data.shards.index import index_path, write_index
from clic.data.shards.tar import MAX_TEXT
from clic.errors import DataError
from clic.io.files import replacing, write_whole
from clic.io.processes import Ticker
from clic.types import Sample

COUNTS = ("captions", "cut", "several")
"""What is counted of the captions that are stored; see `clic.data.packing.Outcome`."""
CONTEXT = 77  # tokens that CLIP reads, the start and the end of the text included
# What CLIP's tokenizer makes at least a token of: a word, a digit, a row of marks.
_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]+|_+")


def pack_part(plan: PackPlan, part: int, tick: Ticker) -> dict[str, Any]:
    """Write the shards of a part, then the file that says it is done.

    Shards are made in the work folder and moved, the index before the tar, so that a tar in its
    place is whole and indexed. What an earlier run left unfinished is written over.

    Args:
        plan: All of it.
        part: Number of the part.
        tick: Called for each item.

    Returns:
        What became of it: `shards`, `samples`, `bytes`, `rejected` and `counts`.
    """
    rejected: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    shards, samples, size = [], 0, 0
    for path, count in _write(plan, part, rejected, counts, tick):
        target = plan.out / path.name
        write_index(path)
        size += path.stat().st_size
        os.replace(index_path(path), index_path(target))
        os.replace(path, target)
        shards.append(target.name)
        samples += count
    release()
    result = {"shards": shards, "samples": samples, "bytes": size, "rejected": rejected}
    result["counts"] = counts
    write_whole(plan.part_file(part), json.dumps(result), sync=True)
    return result


def _write(
    plan: PackPlan,
    part: int,
    rejected: list[dict[str, str]],
    counts: Counter[str],
    tick: Ticker,
) -> Iterator[tuple[Path, int]]:
    """Yield each tar that is full, still in the work folder, with its number of samples."""
    limit, overflow = plan.options.shard_mb << 20, 0
    writer: ShardWriter | None = None
    try:
        for number, item in plan.read(part):
            tick()
            try:
                captions, members = _members(key_of(number), item, plan.options)
            except RejectedError as error:
                rejected.append(_line(item, str(error)))
                continue
            if writer is not None and writer.bytes + size_of(members) > limit:
                writer.close()
                yield writer.path, writer.samples
                writer, overflow = None, overflow + 1
            if writer is None:
                writer = ShardWriter(plan.work / shard_name(part, overflow))
            writer.write(members)
            counts.update(_counted(captions))
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        yield writer.path, writer.samples


def shard_name(part: int, overflow: int = 0) -> str:
    """Return the name of a part's shard; those of one that is too large are 00000_1.tar, ..."""
    return f"{part:05d}_{overflow}.tar" if overflow else f"{part:05d}.tar"


def _line(item: Item, reason: str) -> dict[str, str]:
    where = {"row": item.row} if item.row else {}
    return {"source": item.source, **where, "reason": reason}


def _members(key: str, item: Item, options: Options) -> tuple[list[str], dict[str, Any]]:
    """Return captions and members of an item's sample; raises `RejectedError`."""
    if item.reason:
        raise RejectedError(item.reason)
    captions = _captions(item, options)
    ending, image, width, height = encode(fetch(item.place), options.resize_short, options.quality)
    record: dict[str, Any] = {
        "caption": captions[0],
        "captions": captions,
        "width": width,
        "height": height,
        "source": item.source.encode("utf-8", "backslashreplace").decode(),
        **item.extra,
    }
    if options.tags is not None:
        record |= tagging.annotate(captions, _tagger(options.tags))
    elif record.get("caption_hash") != tagging.caption_hash(captions):
        for name in tagging.KEYS:  # an earlier packing's, of other captions
            record.pop(name, None)
    return captions, members_of(key, ending, image, record)


def _counted(captions: Sequence[str]) -> dict[str, int]:
    cut = sum(len(_PIECE.findall(caption)) + 2 > CONTEXT for caption in captions)
    several = sum(len(prepare(caption)) > 1 for caption in captions)
    return {"captions": len(captions), "cut": cut, "several": several}


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
        raise RejectedError("no caption")
    return captions


@lru_cache(maxsize=1)
def _tagger(name: str) -> Tagger:
    return make_tagger(name)


_HEADERS = 4 * 512  # about what a member costs beside its bytes


class ShardWriter:
    """Writes one tar; nothing of the time, the user or the machine goes into it.

    Args:
        path: The tar, written in place.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.samples, self.bytes = path, 0, 0
        self._file = open(path, "wb")  # noqa: SIM115, closed with the writer
        self._tar = webdataset.TarWriter(self._file, mtime=0.0, encoder=False)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the tar; it is on the disk when this returns."""
        if self._file.closed:
            return
        try:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, members: Mapping[str, Any]) -> None:
        """Add the members of a sample, as `members_of` gives them."""
        self._tar.write(members)
        self.samples += 1
        self.bytes += size_of(members)


def size_of(members: Mapping[str, Any]) -> int:
    """Return about how many bytes a sample takes in a tar."""
    return sum(len(data) + _HEADERS for name, data in members.items() if name != "__key__")


def members_of(key: str, ending: str, image: bytes, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a sample: image, `.json` and `.txt`.

    Args:
        key: Name of the sample.
        ending: Of the image.
        image: Its bytes.
        record: The JSON, with `caption`.

    Raises:
        RejectedError: The JSON is larger than is read, or a text is not UTF-8.
    """
    try:
        meta = json.dumps({"key": key, **record}, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RejectedError("its text is not UTF-8; save the source as UTF-8") from error
    if len(meta) > MAX_TEXT:
        raise RejectedError(f"its JSON would be larger than {MAX_TEXT:,} bytes")
    return {"__key__": key, ending: image, "json": meta, "txt": record["caption"].encode()}


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
        with replacing(shard) as temporary, ShardWriter(temporary) as writer:
            for sample in part:
                writer.write(_members_samples(sample))
        write_index(shard)
        written.append(shard)
    return written


def _parts(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while part := list(islice(iterator, size)):
        yield part


def _members_samples(sample: Sample) -> dict[str, Any]:
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
        record |= tagging.record(sample.captions, sample.tags, "given", "1")
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
