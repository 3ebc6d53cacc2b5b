"""Packs a source from its listing to the last shard, and summarises the result."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from clic.data.packing import pack_plan
from clic.data.packing.pack_plan import RECORD, REJECTED, WORK, Options, PackPlan, discard
from clic.data.packing.readers import FormatReader
from clic.data.packing.shard_writer import COUNTS, pack_part
from clic.errors import DataError
from clic.io.files import write_whole
from clic.io.processes import run_tasks
from clic.io.terminal import progress_bar

REMEDIES = {
    "No such file": "name the folder that holds the images with --image-root",
    "UTF-8": "name the encoding of its texts, e.g. --encoding cp1252 (Western Windows)",
    "Windows": "write the paths relative to --image-root, without the drive",
}
"""What to do if nothing is left, by part of the most frequent reason."""
SHARD_NAME = re.compile(r"(\d{5,})(?:_\d+)?\.tar")


@dataclass
class PackOutcome:
    """Result of a packing."""

    samples: int = 0  # in all shards
    shards: int = 0  # number of tars
    bytes: int = 0  # size of all tars
    items: int = 0  # in the source
    reasons: Counter[str] = field(default_factory=Counter)  # number of rejections by reason
    grouped: int = 0  # rows of the source that were joined to an earlier row of the same image
    captions: int = 0  # in all samples
    cut: int = 0  # captions that certainly exceed CLIP's context
    several: int = 0  # captions of several sentences
    continued: int = 0  # parts that an earlier run had finished
    untouched: bool = False  # whether an earlier run had finished everything


def pack_source(
    reader: FormatReader, out: Path, options: Options, workers: int = 1, show: bool = False
) -> PackOutcome:
    """Pack a source into `out`, continuing where an earlier run of the same packing stopped.

    Each part of the source is a task and becomes a shard, so the shards do not depend on the
    number of workers. `show` shows the progress.

    Raises:
        ConfigError: `out` holds something else, or is in use.
        DataError: Every item was rejected, or `out` cannot be written to.
    """
    wanted = pack_plan.identity(reader, options)
    if (record := pack_plan.finished(out)) is not None:
        pack_plan.check_same(out, record["identity"], wanted)
        discard(out / WORK)
        return _outcome(record, continued=record["parts"], untouched=True)
    with pack_plan.claim(out):
        try:
            resumed = (out / WORK / pack_plan.PLAN).is_file()
            with progress_bar("listing", None, show=show) as advance:
                plan = pack_plan.make_plan(reader, out, options, wanted, advance)
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


def _remove_unfinished(plan: PackPlan, parts: set[int]) -> None:
    """Remove what a killed run left of unfinished parts."""
    for path in [*plan.out.iterdir(), *plan.work.iterdir()]:
        found = SHARD_NAME.match(path.name.lstrip("."))
        if found and int(found[1]) in parts:
            path.unlink()


def _finish(plan: PackPlan, wanted: dict[str, Any], continued: int) -> PackOutcome:
    """Merge the results of the parts, in their order, and remove the work folder."""
    parts = range(len(plan.offsets))
    results = [json.loads(plan.part_file(part).read_text(encoding="utf-8")) for part in parts]
    rejected = [line for result in results for line in result["rejected"]]
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
            f"nothing of {plan.items} was left ({shown}); {remedy}see {plan.out / REJECTED}"
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
