"""One part of a source made into its shard (several, where it would be too large)."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from clic.captions import annotation
from clic.captions.preparation import MAX_WORDS, MIN_SENTENCES, MIN_WORDS, prepare
from clic.captions.tagging import Tagger, make_tagger
from clic.data.index import index_path, write_index
from clic.data.packing.encoding import encode
from clic.data.packing.fetch import fetch, release
from clic.data.packing.items import Item, RejectedError, key_of
from clic.data.packing.plan import Options, Plan, write_whole
from clic.data.packing.tars import ShardWriter, members_of, size_of
from clic.data.pool import Ticker

COUNTS = ("captions", "cut", "several")
"""What is counted of the captions that are stored; see `clic.data.packing.Outcome`."""
CONTEXT = 77  # tokens that CLIP reads, the start and the end of the text included
# What CLIP's tokenizer makes at least a token of: a word, a digit, a row of marks.
_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]+|_+")


def pack_part(plan: Plan, part: int, tick: Ticker) -> dict[str, Any]:
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
    write_whole(plan.part_file(part), json.dumps(result))
    return result


def _write(
    plan: Plan,
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
        record |= annotation.annotate(captions, _tagger(options.tags))
    elif record.get("caption_hash") != annotation.caption_hash(captions):
        for name in annotation.KEYS:  # an earlier packing's, of other captions
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
