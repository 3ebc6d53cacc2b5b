"""What is to be packed, recorded beside the shards, so that a killed run is continued."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from clic.data.packing.grouping import Groups
from clic.data.packing.items import Item, dump, load
from clic.data.packing.readers import FormatReader
from clic.errors import ConfigError, DataError
from clic.io.files import write_whole
from clic.io.locks import Lock, take_lock

WORK = ".packing"
"""Folder inside OUT for what is not finished; it goes when everything is."""
LIST = "items.jsonl"
RECORD = "pack.json"
REJECTED = "rejected.jsonl"
VERSION = 1
LISTED = 1000  # items between two words of progress


@dataclass(frozen=True)
class Options:
    """How samples are stored.

    Attributes:
        shard_size: Items of the source in a shard, those that are rejected included.
        shard_mb: Where a shard would be larger than this many MB, it is written in several.
        resize_short: Shorter side in pixels; None keeps the bytes of the images.
        quality: Of the JPEGs; None keeps the bytes of the images.
        prepare_sentences: Make dense captions into sentences.
        tags: Tagger whose tokens are stored, None for no tokens.
    """

    shard_size: int = 1000
    shard_mb: int = 256
    resize_short: int | None = 288
    quality: int | None = 90
    prepare_sentences: bool = False
    tags: str | None = None


@dataclass(frozen=True)
class PackPlan:
    """The parts of a source, each of which becomes a shard.

    Attributes:
        out: The folder of the shards.
        options: How samples are stored.
        items: Number of items of the source.
        offsets: Where each part starts in the file of items.
        grouped: Rows of the source that went to an earlier row of the same image.
    """

    out: Path
    options: Options
    items: int
    offsets: tuple[int, ...]
    grouped: int = 0

    @property
    def work(self) -> Path:
        """Folder for what is not finished."""
        return self.out / WORK

    def read(self, part: int) -> Iterator[tuple[int, Item]]:
        """Yield number and item of each item of a part."""
        first = part * self.options.shard_size
        with open(self.work / LIST, "rb") as file:
            file.seek(self.offsets[part])
            for number in range(first, min(first + self.options.shard_size, self.items)):
                yield number, load(file.readline())

    def part_file(self, part: int) -> Path:
        """Return the file that says that a part is done, and what became of it."""
        return self.work / f"{part:05d}.json"


def identity(reader: FormatReader, options: Options) -> dict[str, Any]:
    """Return what must be the same for a packing to be continued."""
    request = {f.name: getattr(reader.request, f.name) for f in fields(reader.request)}
    source, files = Path(reader.source), []
    for path in reader.files():
        state = path.stat()
        files.append([str(path.resolve()), state.st_size, state.st_mtime_ns])
    value = {
        "version": VERSION,
        "source": str(source.resolve()) if source.exists() else reader.source,
        "format": reader.NAME,
        **{k: str(v) if isinstance(v, Path) else v for k, v in request.items()},
        **asdict(options),
        "files": files,
    }
    return json.loads(json.dumps(value))  # tuples become lists, as they will when read back


def check_same(out: Path, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to continue what was begun otherwise.

    Raises:
        ConfigError: Source or options differ from those recorded.
    """
    for name in wanted:
        before, now = recorded.get(name), wanted[name]
        if before == now:
            continue
        if name == "files":
            raise ConfigError(
                f"{wanted['source']} has changed since packing into {out} began; pack it into "
                f"a new folder, or remove {out}"
            )
        raise ConfigError(
            f"{out} was begun with {name.replace('_', '-')} {before}, not {now}; give the same "
            "again, name a new folder, or remove this one"
        )


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Hold a folder against a second packing into it.

    Raises:
        ConfigError: Another process packs into it.
        DataError: It holds shards that no packing here has begun, or cannot be written to.
    """
    work = out / WORK
    if not work.is_dir() and not (out / RECORD).is_file() and any(out.glob("*.tar")):
        raise DataError(f"{out} already holds shards; name a new folder, or remove them")
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = open(work / "lock", "w")  # noqa: SIM115, it is held until the end
    except OSError as error:
        raise DataError(
            f"OUT {out} cannot be written to ({error.strerror}); name another folder"
        ) from error
    with file:
        if take_lock(file, work, shared=False, wait=False) is Lock.HELD:
            raise ConfigError(
                f"another process is packing into {out}; wait for it, or name another folder"
            )
        yield


def make_plan(
    reader: FormatReader,
    out: Path,
    options: Options,
    wanted: dict[str, Any],
    progress: Callable[[int], None],
) -> tuple[PackPlan, bool]:
    """Return the plan, and whether it is that of an earlier run that is now continued.

    The items are listed once, in a file, so that workers need neither the source's lists in
    memory nor its order again.

    Args:
        reader: Of the source.
        out: Folder for the shards.
        options: How samples are stored.
        wanted: The identity of this packing.
        progress: Called with the number of items since the last call.

    Raises:
        ConfigError: `out` was begun with another source or other options.
        DataError: The source holds nothing.
    """
    path = out / WORK / "plan.json"
    if path.is_file():
        recorded = json.loads(path.read_text(encoding="utf-8"))
        check_same(out, recorded["identity"], wanted)
        grouped = recorded.get("grouped", 0)
        return PackPlan(out, options, recorded["items"], tuple(recorded["offsets"]), grouped), True
    rows = _list_items(reader, out / WORK / LIST, progress)
    if not rows:
        raise DataError(f"{reader.source} holds nothing to pack ({reader.NAME})")
    items, offsets = _parts(out / WORK / LIST, options.shard_size)
    listed = {"items": items, "offsets": offsets, "grouped": rows - items}
    write_whole(path, json.dumps({"identity": wanted, **listed}), sync=True)
    return PackPlan(out, options, items, tuple(offsets), rows - items), False


def _list_items(reader: FormatReader, path: Path, progress: Callable[[int], None]) -> int:
    """Write the items of a source to a file, a line each, and return how many there were.

    Those of one image are made into one item.
    """
    groups, at = Groups(), 0
    with open(path, "wb") as file:
        for item in reader.items():
            groups.add(item, at)
            at += file.write(dump(item))
            if len(groups) % LISTED == 0:
                progress(LISTED)
        file.flush()
        os.fsync(file.fileno())
    groups.join(path)
    return len(groups)


def _parts(path: Path, shard_size: int) -> tuple[int, list[int]]:
    """Return the number of items in a file, and where each part of them starts."""
    offsets, items, at = [], 0, 0
    with open(path, "rb") as file:
        for line in file:
            if items % shard_size == 0:
                offsets.append(at)
            at, items = at + len(line), items + 1
    return items, offsets


def finished(out: Path) -> dict[str, Any] | None:
    """Return the record of a packing that is done, None where there is none."""
    path = out / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error}); remove {out}") from error
    there = sum(1 for _ in out.glob("*.tar"))
    if there != record["shards"]:
        raise DataError(
            f"{out} holds {there} of the {record['shards']} shards that were packed into it; "
            "remove it, or bring the others back"
        )
    return record


def discard(work: Path) -> None:
    """Remove a work folder; unfinished files in it are worth nothing."""
    shutil.rmtree(work, ignore_errors=True)
