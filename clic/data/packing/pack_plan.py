"""The plan of a packing, stored beside the shards so that a killed run can be continued."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clic.data.packing.items import Groups, Item, dump, load
from clic.data.packing.readers import FormatReader
from clic.errors import ConfigError, DataError
from clic.io.files import write_whole
from clic.io.locks import Lock, take_lock

WORK = ".packing"
"""Folder inside OUT for unfinished work; it is removed when everything is finished."""
LIST = "items.jsonl"
PLAN = "plan.json"
RECORD = "pack.json"
REJECTED = "rejected.jsonl"
VERSION = 1
LISTED = 1000  # items between two reports of progress


@dataclass(frozen=True)
class Options:
    """How samples are stored."""

    shard_size: int = 1000  # items of the source per shard, rejected ones included
    shard_mb: int = 256  # a shard that would exceed this many MB is split into several
    resize_short: int | None = 288  # shorter side in pixels; None keeps the images' bytes
    quality: int | None = 90  # of JPEGs; None keeps the images' bytes
    prepare_sentences: bool = False  # split dense captions into sentences
    tags: str | None = None  # tagger whose tokens are stored


@dataclass(frozen=True)
class PackPlan:
    """The parts of a source, each of which becomes a shard."""

    out: Path  # folder of the shards
    options: Options
    items: int  # number of items in the source
    offsets: Sequence[int]  # byte at which each part starts in the file of items
    grouped: int = 0  # rows of the source that were joined to an earlier row of the same image

    @property
    def work(self) -> Path:
        """Folder for unfinished work."""
        return self.out / WORK

    def numbers(self, part: int) -> range:
        """Return the numbers of a part's items."""
        first = part * self.options.shard_size
        return range(first, min(first + self.options.shard_size, self.items))

    def read(self, part: int) -> Iterator[tuple[int, Item]]:
        """Yield the number of each item of a part, and the item."""
        with open(self.work / LIST, "rb") as file:
            file.seek(self.offsets[part])
            for number in self.numbers(part):
                yield number, load(file.readline())

    def part_file(self, part: int) -> Path:
        """Return the file whose presence marks a part as done, and which holds its results."""
        return self.work / f"{part:05d}.json"


def identity(reader: FormatReader, options: Options) -> dict[str, Any]:
    """Return what must be equal for a packing to continue."""
    states = [(path.resolve(), path.stat()) for path in reader.files()]
    source = Path(reader.source)
    value = {
        "version": VERSION,
        "source": source.resolve() if source.exists() else reader.source,
        "format": reader.NAME,
        **asdict(reader.request),
        **asdict(options),
        "files": [[path, state.st_size, state.st_mtime_ns] for path, state in states],
    }
    return json.loads(json.dumps(value, default=str))  # as it will be when it is read back


def check_same(out: Path, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise `ConfigError` if a packing was begun with another source or other options."""
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
    """Lock a folder against a second packing; clean up if the packing fails before its plan.

    Raises:
        ConfigError: Another process is packing into it.
        DataError: It holds shards that were not packed here, or it cannot be written to.
    """
    work, is_new = out / WORK, not out.exists()
    if not work.is_dir() and not (out / RECORD).is_file() and any(out.glob("*.tar")):
        raise DataError(f"{out} already holds shards; name a new folder, or remove them")
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = open(work / "lock", "w")  # noqa: SIM115, held until the end
    except OSError as error:
        raise DataError(
            f"OUT {out} cannot be written to ({error.strerror}); name another folder"
        ) from error
    with file:
        if take_lock(file, work, shared=False, wait=False) is Lock.HELD:
            raise ConfigError(
                f"another process is packing into {out}; wait for it, or name another folder"
            )
        try:
            yield
        except BaseException:
            if not (work / PLAN).is_file():
                discard(work)
                if is_new and not any(out.iterdir()):
                    out.rmdir()
            raise


def make_plan(
    reader: FormatReader,
    out: Path,
    options: Options,
    wanted: dict[str, Any],
    progress: Callable[[int], None],
) -> PackPlan:
    """Return the plan of an earlier run, or list the source and make a plan.

    The items are listed once, in a file, so that workers need not read the source's lists again.

    Raises:
        ConfigError: `out` was begun with another source or other options.
        DataError: The source holds nothing.
    """
    path, listed = out / WORK / PLAN, out / WORK / LIST
    if path.is_file():
        plan = json.loads(path.read_text(encoding="utf-8"))
        check_same(out, plan["identity"], wanted)
    else:
        rows = _list_items(reader, listed, progress)
        if not rows:
            raise DataError(f"{reader.source} holds nothing to pack ({reader.NAME})")
        offsets, items, at = [], 0, 0
        with open(listed, "rb") as file:
            for items, line in enumerate(file, 1):
                if (items - 1) % options.shard_size == 0:
                    offsets.append(at)
                at += len(line)
        plan = {"identity": wanted, "items": items, "offsets": offsets, "grouped": rows - items}
        write_whole(path, json.dumps(plan), sync=True)
    return PackPlan(out, options, plan["items"], plan["offsets"], plan.get("grouped", 0))


def _list_items(reader: FormatReader, path: Path, progress: Callable[[int], None]) -> int:
    """Write the source's items to a file, one line per image; return the number of its rows."""
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


def finished(out: Path) -> dict[str, Any] | None:
    """Return the record of a finished packing, or None; raises `DataError` if shards are gone."""
    path = out / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); remove {out}") from error
    there = sum(1 for _ in out.glob("*.tar"))
    if there != record["shards"]:
        raise DataError(
            f"{out} holds {there} of the {record['shards']} shards that were packed into it; "
            "remove it, or bring the others back"
        )
    return record


discard = partial(shutil.rmtree, ignore_errors=True)
"""Removes a work folder."""
