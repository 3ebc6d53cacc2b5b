"""Reads the rows of a user's own benchmark from a WebDataset shard: a plain tar of samples.

Members whose names agree up to their first dot form a sample: an image, and a `.json` with the row
as in JSON lines, or a `.txt` with one caption. Images stay in the tar and are read by position.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clic.errors import DataError
from clic.evaluation.benchmarks.reading import Record
from clic.evaluation.encode.image_sources import TarImage

ENDING = ".tar"
IMAGES = ("jpg", "jpeg", "png", "webp")
LARGEST_TEXT = 1 << 24  # bytes of a row
REMEDY = "correct the sample"


def read_shard(path: Path) -> Iterator[Record]:
    """Yield the rows of a shard, each with its image, if the sample has one.

    Raises:
        DataError: It is not a plain tar, or a sample is broken.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            key, members = None, dict[str, tarfile.TarInfo]()
            finished: set[str] = set()
            for member in archive:
                if not member.isfile():
                    continue
                own, _, ending = _split(member.name)
                if own != key and members:
                    yield _row(archive, path, str(key), members)
                    members = {}
                    finished.add(str(key))
                if own in finished or ending in members:
                    # Images are identified by their names, so each name must occur once.
                    raise Record(None, path, repr(own), REMEDY).error(
                        f"has a .{ending} that comes twice, or apart from its other members"
                    )
                key = own
                members[ending] = member
            if members:
                yield _row(archive, path, str(key), members)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a shard ({error}); write a plain tar, not compressed"
        ) from error


def _split(name: str) -> tuple[str, str, str]:
    """Return a member's key and ending: the folder and name up to the first dot, and the rest."""
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return f"{folder}{slash}{stem}", dot, ending.lower()


def _row(
    archive: tarfile.TarFile, path: Path, key: str, members: dict[str, tarfile.TarInfo]
) -> Record:
    row = Record(None, path, repr(key), REMEDY)
    value = _value(archive, row, members)
    if "image" in value:
        raise row.error("names an 'image', and a shard's images are its samples' own; leave it out")
    images = [member for ending, member in members.items() if ending in IMAGES]
    if len(images) > 1:
        raise row.error(f"has {len(images)} images; give it one")
    if images:
        (one,) = images
        value["image"] = TarImage(path, one.name, one.offset_data, one.size)
    return Record(value, path, repr(key), REMEDY)


def _value(
    archive: tarfile.TarFile, row: Record, members: dict[str, tarfile.TarInfo]
) -> dict[str, Any]:
    """Return a sample's row: its JSON object, or its text as the one caption."""
    for ending in ("json", "txt"):
        if ending not in members:
            continue
        member = members[ending]
        file = archive.extractfile(member)
        if file is None or member.size > LARGEST_TEXT:
            raise row.error(f"has a .{ending} of {member.size:,} bytes")
        try:
            text = file.read().decode("utf-8")
            value = json.loads(text) if ending == "json" else {"captions": [text.strip()]}
        except (ValueError, RecursionError) as error:
            raise row.error(f"has a .{ending} that cannot be read ({error})") from error
        if not isinstance(value, dict):
            raise row.error("has a .json that is no object; write the row in braces")
        return value
    raise row.error("has neither .json nor .txt; give each sample its row")
