"""Counts the words of captions in their contexts, for choosing false captions that read well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clic.captions.fluency import CaptionCounts
from clic.captions.tagging import make_tagger
from clic.data.shards.records import captions_of, parse_record, stored_tokens
from clic.data.shards.tar import NOTHING, read_span, walk
from clic.errors import DataError

TAGGER = "hanta"  # for captions without stored tags


@dataclass
class Counted:
    """The counts, and the number of samples that could not be read."""

    counts: CaptionCounts
    broken: int = 0


def count_captions(shards: Sequence[Path], progress: Callable[[int], None]) -> Counted:
    """Count every caption of shards, using its stored tags if it has some.

    Args:
        shards: The tars.
        progress: Called with the bytes processed since the last call.

    Raises:
        DataError: A tar cannot be read.
    """
    tagger, found = make_tagger(TAGGER), Counted(CaptionCounts())
    for shard in shards:
        with open(shard, "rb") as file:
            for _, members in walk(file, shard):
                progress(sum(span.length for span in members.values()))
                meta, text = members.get(".json", NOTHING), members.get(".txt", NOTHING)
                if not (meta.length or text.length):
                    continue  # not a sample: the index leaves it out too
                try:
                    record = parse_record(read_span(file, meta, shard)) if meta.length else {}
                    data = read_span(file, text, shard) if text.length else b""
                    captions = captions_of(record, data)
                    tokens = stored_tokens(record, captions)
                except DataError:
                    found.broken += 1
                    continue
                for sentence in tokens or map(tagger, captions):
                    found.counts.add(sentence)
    return found
