"""A source packed from its detection to the last shard."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from clic.data.packing.pack_plan import (
    RECORD,
    REJECTED,
    WORK,
    Options,
    PackPlan,
    check_same,
    claim,
    discard,
    finished,
    identity,
    make_plan,
)
from clic.data.packing.readers import FormatReader
from clic.data.packing.shard_writer import COUNTS, pack_part
from clic.errors import DataError
from clic.io.files import write_whole
from clic.io.processes import run_tasks

SHARD_NAME = re.compile(r"(\d{5,})(?:_\d+)?\.tar")


@dataclass
class PackOutcome:
    """What a packing came to.

    Attributes:
        samples: In all shards.
        shards: Number of tars.
        bytes: Of all tars.
        items: Of the source.
        reasons: How often each reason led to a rejection.
        continued: Parts that an earlier run had finished.
        untouched: Whether an earlier run had finished everything.
        grouped: Rows of the source that went to an earlier row of the same image.
        captions: In all samples.
        cut: Of these, those that are surely longer than CLIP's context.
        several: Of these, those of several sentences.
    """

    samples: int = 0
    shards: int = 0
    bytes: int = 0
    items: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    continued: int = 0
    untouched: bool = False
    grouped: int = 0
    captions: int = 0
    cut: int = 0
    several: int = 0


class Progress(Protocol):
    """Is told how far a packing is."""

    def listing(self) -> Callable[[int], None]:
        """Return what is called with the number of items that were listed since the last call."""

    def packing(self, total: int, done: int) -> Callable[[int], None]:
        """Return what is called with the number of items that were packed since the last call.

        Args:
            total: Items of the source.
            done: Those of them that an earlier run has packed.
        """


class Silent:
    """A `Progress` that tells nobody."""

    def listing(self) -> Callable[[int], None]:
        """Return what ignores a number of items."""
        return lambda items: None

    def packing(self, total: int, done: int) -> Callable[[int], None]:
        """Return what ignores a number of items."""
        return lambda items: None


SILENT = Silent()


def pack_source(
    reader: FormatReader, out: Path, options: Options, workers: int = 1, progress: Progress = SILENT
) -> PackOutcome:
    """Pack a source into `out`, from where an earlier run of the same was stopped.

    A part of the source is a task and becomes a shard, so the shards are the same whatever the
    number of workers.

    Args:
        reader: Of the source.
        out: Folder for the shards.
        options: How samples are stored.
        workers: Processes.
        progress: Told how far it is.

    Raises:
        ConfigError: `out` holds something else, or is in use.
        DataError: Nothing of the source was left.
    """
    wanted = identity(reader, options)
    if (record := finished(out)) is not None:
        check_same(out, record["identity"], wanted)
        discard(out / WORK)
        return _outcome(record, continued=record["parts"], untouched=True)
    with _claimed(out), _writing(out):
        plan, resumed = make_plan(reader, out, options, wanted, progress.listing())
        todo = [p for p in range(len(plan.offsets)) if not plan.part_file(p).is_file()]
        if resumed:
            _remove_unfinished(plan, set(todo))
        packed = plan.items - sum(_size(plan, part) for part in todo)
        tick = progress.packing(plan.items, packed)
        deque(run_tasks(partial(pack_part, plan), todo, workers, tick, pack_part.__module__), 0)
        continued = len(plan.offsets) - len(todo)
        return _finish(plan, wanted, continued)


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Claim the folder; where nothing was planned, what was made for it goes again."""
    new = not out.exists()
    with claim(out):
        try:
            yield
        except BaseException:
            if not (out / WORK / "plan.json").is_file():
                discard(out / WORK)
                if new and not any(out.iterdir()):
                    out.rmdir()
            raise


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Say where the disk refused: what a full one raises does not."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{out} cannot be written to ({error.strerror}); mend that or make space, and the same "
            "command goes on from there"
        ) from error


def _size(plan: PackPlan, part: int) -> int:
    size = plan.options.shard_size
    return min(size, plan.items - part * size)


def _remove_unfinished(plan: PackPlan, parts: set[int]) -> None:
    """Remove what a killed run has left of parts that are not done."""
    for path in [*plan.out.iterdir(), *plan.work.iterdir()]:
        found = SHARD_NAME.match(path.name.lstrip("."))
        if found and int(found[1]) in parts:
            path.unlink()


def _finish(plan: PackPlan, wanted: dict[str, Any], continued: int) -> PackOutcome:
    """Merge what became of the parts, in their order, and remove the work folder."""
    reasons: Counter[str] = Counter()
    samples = shards = size = 0
    counts: Counter[str] = Counter()
    lines = []
    for part in range(len(plan.offsets)):
        result = json.loads(plan.part_file(part).read_text(encoding="utf-8"))
        samples += result["samples"]
        shards += len(result["shards"])
        size += result["bytes"]
        counts.update(result.get("counts", {}))
        lines += [_readable(line) for line in result["rejected"]]
        reasons.update(_kind(line["reason"]) for line in result["rejected"])
    write_whole(plan.out / REJECTED, "".join(f"{line}\n" for line in lines), sync=True)
    if not samples:
        discard(plan.work)
        raise DataError(
            f"nothing of {plan.items} was left ({_shown(reasons)}); {_remedy(reasons)}"
            f"see {plan.out / REJECTED}"
        )
    record = {
        "identity": wanted,
        "samples": samples,
        "parts": len(plan.offsets),
        "shards": shards,
        "bytes": size,
        "items": plan.items,
        "reasons": dict(reasons.most_common()),
        "grouped": plan.grouped,
        **{name: counts[name] for name in COUNTS},
    }
    write_whole(plan.out / RECORD, json.dumps(record, indent=1), sync=True)
    discard(plan.work)
    return _outcome(record, continued)


def _readable(line: dict[str, str]) -> str:
    """Return a line of JSON in plain UTF-8; bytes of a name that are none stay escapes."""
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _outcome(record: dict[str, Any], continued: int, untouched: bool = False) -> PackOutcome:
    return PackOutcome(
        samples=record["samples"],
        shards=record["shards"],
        bytes=record["bytes"],
        items=record["items"],
        reasons=Counter(record["reasons"]),
        continued=continued,
        untouched=untouched,
        **{name: record.get(name, 0) for name in ("grouped", *COUNTS)},
    )


def _kind(reason: str) -> str:
    """Return a reason without what is particular to one sample."""
    general = re.sub(r" ?\([^)]*\)", "", reason).split(";")[0].rsplit(": ", 1)[-1]
    return re.sub(r"\d{3,}", "N", re.sub(r" of \d+ bytes", "", general))


def _remedy(reasons: Counter[str]) -> str:
    """Return what to do about the most frequent reason, where that is known."""
    (worst, _), *_ = reasons.most_common(1)
    if "No such file" in worst:
        return "name the folder that holds the images with --image-root; "
    if "UTF-8" in worst:
        return "say what its texts are in, e.g. with --encoding cp1252 (Western Windows); "
    if "Windows" in worst:
        return "write the paths relative to --image-root, without the drive; "
    return ""


def _shown(reasons: Counter[str], count: int = 3) -> str:
    return ", ".join(f"{number} x {reason}" for reason, number in reasons.most_common(count))
