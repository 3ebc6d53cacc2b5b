"""Packs a source into shards: its plan, its parts, and the record of what was packed.

The plan is stored beside the shards, so that a killed run can be continued.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from clic.captions.sentences import prepare
from clic.data.packing.image_bytes import release
from clic.data.packing.items import Groups, Item, RejectedError, dump, key_of, load
from clic.data.packing.readers import FormatReader
from clic.data.packing.shard_writer import NO_CAPTION, Options, ShardWriter, members_of, size_of
from clic.data.shards.index import index_path, write_index
from clic.errors import ConfigError, DataError
from clic.io.files import write_whole
from clic.io.locks import Lock, take_lock
from clic.io.processes import Ticker, run_tasks
from clic.io.terminal import progress_bar

WORK = ".packing"
"""Folder inside OUT for unfinished work; it is removed when everything is finished."""
LIST = "items.jsonl"
PLAN = "plan.json"
RECORD = "pack.json"
REJECTED = "rejected.jsonl"
VERSION = 1
LISTED = 1000  # items between two reports of progress
SHARD_NAME = re.compile(r"(\d{5,})(?:_\d+)?\.tar")
COUNTS = ("captions", "cut", "several")  # fields of `PackOutcome` that each part counts
CONTEXT = 77  # tokens that CLIP reads, including the start and the end token
# CLIP's tokenizer makes at least one token of each of these: a word, a digit, a run of marks.
_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]+|_+")
REMEDIES = {
    "No such file": "name the folder that holds the images with --image-root",
    "UTF-8": "name the encoding of its texts, e.g. --encoding cp1252 (Western Windows)",
    "Windows": "write the paths relative to --image-root, without the drive",
}
"""What to do if everything was rejected, keyed by a part of the most frequent reason."""
discard = partial(shutil.rmtree, ignore_errors=True)
"""Removes a work folder."""


@dataclass
class PackOutcome:
    """Result of a packing."""

    samples: int = 0  # in all shards
    shards: int = 0  # number of tars
    bytes: int = 0  # size of all tars
    items: int = 0  # in the source
    reasons: Counter[str] = field(default_factory=Counter)  # number of rejections by reason
    grouped: int = 0  # rows of the source that were joined to an earlier row of the same image
    empty: int = 0  # rows without a caption whose image has other rows; in `reasons` too
    captions: int = 0  # in all samples
    cut: int = 0  # captions that certainly exceed CLIP's context
    several: int = 0  # captions of several sentences
    continued: int = 0  # parts that an earlier run had finished
    untouched: bool = False  # whether an earlier run had finished everything


@dataclass(frozen=True)
class PackPlan:
    """The parts of a source, each of which becomes a shard."""

    out: Path  # folder of the shards
    options: Options
    items: int  # number of items in the source
    offsets: Sequence[int]  # byte at which each part starts in the file of items
    grouped: int = 0  # rows of the source that were joined to an earlier row of the same image
    empty: Sequence[dict[str, str]] = ()  # the lines of `REJECTED` for those without a caption

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
        """Return the file that contains a part's results; its presence marks the part as done."""
        return self.work / f"{part:05d}.json"


def pack_source(
    reader: FormatReader, out: Path, options: Options, workers: int = 1, show: bool = False
) -> PackOutcome:
    """Pack a source into `out`, continuing where an earlier run of the same packing stopped.

    Each part of the source is a task and becomes a shard, so the shards do not depend on the
    number of workers. `show` shows the progress.

    Raises:
        ConfigError: `out` contains something else, or is in use.
        DataError: Every item was rejected, or `out` cannot be written to.
    """
    wanted = identity(reader, options)
    if (record := finished(out)) is not None:
        check_same(out, record["identity"], wanted)
        discard(out / WORK)
        return _outcome(record, continued=record["parts"], untouched=True)
    with claim(out):
        try:
            resumed = (out / WORK / PLAN).is_file()
            with progress_bar("listing", None, show=show) as advance:
                plan = make_plan(reader, out, options, wanted, advance)
            todo = [p for p in range(len(plan.offsets)) if not plan.part_file(p).is_file()]
            if resumed:
                _remove_unfinished(plan, set(todo))
            packed = plan.items - sum(len(plan.numbers(part)) for part in todo)
            if packed and show:
                print(f"continuing: {packed:,} of {plan.items:,} are already packed")
            with progress_bar("packing", plan.items, done=packed, show=show) as advance:
                deque(run_tasks(partial(pack_part, plan), todo, workers, advance), 0)
            return _finish(plan, wanted, continued=len(plan.offsets) - len(todo))
        except OSError as error:
            raise DataError(
                f"{out} cannot be written to ({error.strerror}); fix that or make space, and the "
                "same command continues from there"
            ) from error


def identity(reader: FormatReader, options: Options) -> dict[str, Any]:
    """Return everything that must stay the same for a packing to be continued."""
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


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Lock a folder against a second packing; clean up if this one fails before its plan exists.

    Raises:
        ConfigError: Another process is packing into it.
        DataError: It contains shards that were not packed here, or it cannot be written to.
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

    The items are written to a file, so that workers need not read the source's lists again.

    Raises:
        ConfigError: `out` was begun with another source or other options.
        DataError: The source is empty.
    """
    path, listed = out / WORK / PLAN, out / WORK / LIST
    if path.is_file():
        plan = json.loads(path.read_text(encoding="utf-8"))
        check_same(out, plan["identity"], wanted)
    else:
        rows, empty = _list_items(reader, listed, progress)
        if not rows:
            raise DataError(f"{reader.source} holds nothing to pack ({reader.NAME})")
        offsets, items, at = [], 0, 0
        with open(listed, "rb") as file:
            for items, line in enumerate(file, 1):
                if (items - 1) % options.shard_size == 0:
                    offsets.append(at)
                at += len(line)
        plan = {"identity": wanted, "items": items, "offsets": offsets, "grouped": rows - items}
        plan["empty"] = [_rejection(item, NO_CAPTION) for item in empty]
        write_whole(path, json.dumps(plan), sync=True)
    grouped, empty_rows = plan.get("grouped", 0), plan.get("empty", ())
    return PackPlan(out, options, plan["items"], plan["offsets"], grouped, empty_rows)


def _list_items(
    reader: FormatReader, path: Path, progress: Callable[[int], None]
) -> tuple[int, list[Item]]:
    """Write the source's items to a file, one line per image.

    Returns:
        The number of rows in the source, and the rows without a caption whose image has others.
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
    return len(groups), groups.join(path)


def _rejection(item: Item, reason: str) -> dict[str, str]:
    """Return the line of `REJECTED` for an item."""
    where = {"row": item.row} if item.row else {}
    return {"source": item.source, **where, "reason": reason}


def pack_part(plan: PackPlan, part: int, tick: Ticker) -> None:
    """Write the shards of a part, then the file that marks it as done.

    Shards are written in the work folder and then moved, the index before the tar, so that a tar
    in its final place is whole and indexed. Unfinished files of an earlier run are overwritten.
    """
    result: dict[str, Any] = {"shards": [], "samples": 0, "bytes": 0, "rejected": []}
    counts: Counter[str] = Counter()
    limit = plan.options.shard_mb << 20
    writer: ShardWriter | None = None

    def finish(shard: ShardWriter) -> None:
        shard.close()
        write_index(shard.path)
        target = plan.out / shard.path.name
        result["bytes"] += shard.path.stat().st_size
        os.replace(index_path(shard.path), index_path(target))
        os.replace(shard.path, target)
        result["shards"].append(target.name)
        result["samples"] += shard.samples

    try:
        for number, item in plan.read(part):
            tick()
            try:
                captions, members = members_of(key_of(number), item, plan.options)
            except RejectedError as error:
                result["rejected"].append(_rejection(item, str(error)))
                continue
            if writer is not None and writer.bytes + size_of(members) > limit:
                finish(writer)
                writer = None
            if writer is None:
                overflow = f"_{len(result['shards'])}" if result["shards"] else ""
                writer = ShardWriter(plan.work / f"{part:05d}{overflow}.tar")
            writer.write(members)
            counts["captions"] += len(captions)
            counts["cut"] += sum(len(_PIECE.findall(text)) + 2 > CONTEXT for text in captions)
            counts["several"] += sum(len(prepare(text)) > 1 for text in captions)
        if writer is not None:
            finish(writer)
    finally:
        if writer is not None:
            writer.close()
    release()
    write_whole(plan.part_file(part), json.dumps({**result, "counts": counts}), sync=True)


def _remove_unfinished(plan: PackPlan, parts: set[int]) -> None:
    """Remove the unfinished parts that a killed run left."""
    for path in [*plan.out.iterdir(), *plan.work.iterdir()]:
        found = SHARD_NAME.match(path.name.lstrip("."))
        if found and int(found[1]) in parts:
            path.unlink()


def _finish(plan: PackPlan, wanted: dict[str, Any], continued: int) -> PackOutcome:
    """Merge the results of the parts, in their order, and remove the work folder."""
    parts = range(len(plan.offsets))
    results = [json.loads(plan.part_file(part).read_text(encoding="utf-8")) for part in parts]
    rejected = [*plan.empty, *(line for result in results for line in result["rejected"])]
    reasons = Counter(_kind(line["reason"]) for line in rejected)
    # Bytes of a name that are not UTF-8 stay escaped.
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rejected)
    write_whole(plan.out / REJECTED, lines.encode("utf-8", "backslashreplace"), sync=True)
    samples = sum(result["samples"] for result in results)
    if not samples:
        discard(plan.work)
        shown = ", ".join(f"{number} x {reason}" for reason, number in reasons.most_common(3))
        worst = reasons.most_common(1)[0][0]
        remedy = next((f"{REMEDIES[mark]}; " for mark in REMEDIES if mark in worst), "")
        raise DataError(
            f"none of {plan.items} could be packed ({shown}); {remedy}see {plan.out / REJECTED}"
        )
    record = {
        "identity": wanted,
        "samples": samples,
        "parts": len(parts),
        "shards": sum(len(result["shards"]) for result in results),
        "bytes": sum(result["bytes"] for result in results),
        "items": plan.items,
        "reasons": dict(reasons.most_common()),
        "grouped": plan.grouped,
        "empty": len(plan.empty),
        **{name: sum(r.get("counts", {}).get(name, 0) for r in results) for name in COUNTS},
    }
    write_whole(plan.out / RECORD, json.dumps(record, indent=1), sync=True)
    discard(plan.work)
    return _outcome(record, continued)


def _outcome(record: dict[str, Any], continued: int, untouched: bool = False) -> PackOutcome:
    known = {f.name: record[f.name] for f in fields(PackOutcome) if f.name in record}
    known["reasons"] = Counter(record["reasons"])
    return PackOutcome(**known, continued=continued, untouched=untouched)


def _kind(reason: str) -> str:
    """Return a reason without the details of one sample."""
    general = re.sub(r" ?\([^)]*\)", "", reason).split(";")[0].rsplit(": ", 1)[-1]
    return re.sub(r"\d{3,}", "N", re.sub(r" of \d+ bytes", "", general))
