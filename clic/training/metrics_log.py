"""What a run records while it trains: numbers, and pictures of its batches.

A `MetricsLog` writes one record of numbers per interval to a file, the console and the trackers; it
passes every batch to `ExampleSheets`, which draws some of them with all their captions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clic import distributed
from clic.captions.composites import TokenBudget
from clic.data.tools.contact_sheet import Section, draw_sheet
from clic.io.files import replacing, write_whole
from clic.io.terminal import say
from clic.training.progress import ProgressLine, make_line
from clic.training.trackers import Tracker
from clic.types import Batch

SHOWN = {
    "loss": "loss",
    "composite/hard_negative": "hard",
    "lr": "lr",
    "images_per_second": "images/s",
    "peak_memory_gb": "GB",
    "skipped_steps": "skipped",
    "data/broken": "broken",
}
"""Entries of a record that the console shows, with their labels."""
QUIET_AT_ZERO = ("skipped_steps", "data/broken")
"""Entries that the console shows only if they are above 0."""

PATIENCE = 60.0
"""Seconds without a line after which the next finished step is printed."""
MAIN = 4
"""Scores that the console shows of a benchmark without a mean."""
COUNTS = ("n", "/n")
"""Suffixes of the names of row counts."""
EXAMPLES = "examples"
"""The folder of a run for the pictures."""


class Averages:
    """Means of named scalars over steps and ranks, accumulated on their device.

    A value that is not finite is left out, because the step it belongs to is skipped. Only reading
    the means waits for the GPU and communicates with other ranks.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # by name: the sum, and the number of values in it

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in values.items():
            value, finite = value.detach().float(), value.detach().isfinite()
            entry = torch.stack([value.masked_fill(~finite, 0.0), finite.float()])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def means(self) -> dict[str, float]:
        """Return the means over steps and ranks; a name without a finite value is absent."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name].double() for name in names])
        sums, counts = distributed.all_reduce_sum(sums).unbind(1)
        means = zip(names, (sums / counts).tolist(), counts.tolist(), strict=True)
        return {name: mean for name, mean, count in means if count}

    def clear(self) -> None:
        """Forget all scalars."""
        self._sums.clear()


def missing_negatives(batch: Batch) -> dict[str, Tensor]:
    """Return the fraction of rows without a hard negative, for each kind if there are several.

    The kinds are those of the batch's slots, so all ranks report the same names.
    """
    if batch.negative_mask is None:
        return {}
    name, kinds = f"{batch.kind}/no_negative", batch.negative_kinds
    if len(kinds) < 2:
        return {name: 1 - batch.negative_mask.any(1).float().mean()}
    slots = list(zip(kinds, batch.negative_mask.unbind(1), strict=True))
    return {
        f"{name}/{kind}": 1 - torch.stack([m for k, m in slots if k == kind]).any(0).float().mean()
        for kind in dict.fromkeys(kinds)
    }


class MetricsLog:
    """Appends records to `metrics.jsonl` and shows them, on rank 0 only.

    On a terminal it shows a progress line and prints only scores; elsewhere each record is a line.

    Args:
        path: The file.
        start: The step from which the run continues. Records of later steps, written by a process
            that was killed after its last checkpoint, are removed.
        stop: The last step, for the console.
        trackers: Where numbers and pictures also go.
        epoch: Steps of an epoch, for the console; 0 if that is unknown.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        stop: int,
        trackers: Sequence[Tracker] = (),
        epoch: int = 0,
    ) -> None:
        self.active, self.stop, self.epoch = distributed.is_main(), stop, epoch
        self.trackers = list(trackers)
        self.seen: Callable[[Batch], None] = lambda batch: None
        self._line: ProgressLine | None = None
        self._first = self._logged = start
        self._printed = self._since = time.monotonic()
        self._waited = 0.0  # seconds for data since the last record
        if not self.active:
            return
        # Later records are dropped by replacing the file atomically.
        records, unreadable = _records(path)
        if unreadable:
            say(f"{path}: removed {unreadable} line(s) that cannot be read")
        lines = [json.dumps(record) + "\n" for record in records if record["step"] <= start]
        write_whole(path, "".join(lines))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed in `close`

    def log(self, record: dict[str, Any]) -> None:
        """Write and show one record, which contains its `step`."""
        if not self.active:
            return
        self._logged = record["step"]
        now = time.monotonic()
        if "images_per_second" in record:
            spent = max(now - self._since, 1e-9)
            record = {**record, "data_wait": min(self._waited / spent, 1.0)}
            self._waited, self._since = 0.0, now
        self._file.write(json.dumps({**record, "time": round(time.time(), 3)}) + "\n")
        self._file.flush()
        for tracker in self.trackers:
            tracker.log(record["step"], {k: v for k, v in record.items() if k != "step"})
        self._printed = now
        if self._line is not None:
            self._line.record(record)
        if self._line is None or "loss" not in record:
            say(self._words(record))

    def pause(self, seconds: float) -> None:
        """Exclude seconds spent on evaluating or saving from the share of waiting."""
        self._since += seconds

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Show a picture in all trackers."""
        for tracker in self.trackers:
            tracker.picture(step, name, image)

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches; print when the first step is done, and progress if steps are slow.

        Rank 0 first passes each of its batches to `seen`.
        """
        begun: float | None = None
        items = iter(batches)
        while True:
            asked = time.monotonic()
            batch = next(items, None)
            if batch is None:
                return
            if begun is None:  # only now, when the loader's processes have been forked
                begun = self._printed = self._since = time.monotonic()
                self._first = batch.step
                if self.active:
                    self._line = make_line(batch.step, self.stop, self.epoch)
            else:
                self._waited += time.monotonic() - asked
            if self.active:
                self.seen(batch)
            yield batch
            if self._line is not None:
                self._line.step(batch.step + 1)
            elif self.active:
                self._print_progress(batch.step + 1, time.monotonic() - begun)

    def _print_progress(self, finished: int, seconds: float) -> None:
        """Print how many steps are finished, if no record has for a while."""
        done = finished - self._first
        if done == 1 and finished != self._logged:
            say(f"the first step took {seconds:.1f} s")
        elif time.monotonic() - self._printed > PATIENCE:
            say(f"done {finished}/{self.stop} steps, {seconds / done:.3g} s each")
        else:
            return
        self._printed = time.monotonic()

    def _words(self, record: Mapping[str, Any]) -> str:
        """Return the main entries of a record, short enough for a terminal."""
        head = f"step {record['step']:>{len(str(self.stop))}}/{self.stop}"
        parts = [
            f"{label} {record[key]:.4g}"
            for key, label in SHOWN.items()
            if key in record and (record[key] or key not in QUIET_AT_ZERO)
        ]
        return "  ".join([head, *(parts or _scores(record))])

    def close(self) -> None:
        """Close the file and the trackers."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self.active:
            self._file.close()
        for tracker in self.trackers:
            tracker.close()


class ExampleSheets:
    """Draws the first batch of each kind, and then one of each kind every `every` steps.

    Args:
        folder: The run's folder; pictures go into its `examples/`.
        every: Steps between pictures; 0 draws only the first ones.
        budget: How much of a caption the model reads, None if that is unknown.
        show: Called with step, name and picture.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        budget: TokenBudget | None,
        show: Callable[[int, str, Image.Image], None],
    ) -> None:
        self.folder, self.every, self.budget, self.show = folder / EXAMPLES, every, budget, show
        self._drawn: dict[str, int] = {}
        for path in sorted(self.folder.glob("step-*.png")):
            step, kind = path.stem.removeprefix("step-").split("-", 1)
            if step.isdecimal():
                self._drawn[kind] = int(step) - 1

    def __call__(self, batch: Batch) -> None:
        """Draw a batch if it is due."""
        last = self._drawn.get(batch.kind)
        due = last is None or (self.every and batch.step // self.every > last // self.every)
        if not due or not batch.examples:
            return
        self._drawn[batch.kind] = batch.step
        shown = batch.images[: len(batch.examples)].numpy()
        rows = list(zip(shown, batch.examples, strict=True))
        title = f"step {batch.step + 1}, {batch.kind}"
        picture = draw_sheet([Section(title, rows)], budget=self.budget)
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / f"step-{batch.step + 1:06d}-{batch.kind}.png") as file:
            picture.save(file, "PNG")
        self.show(batch.step + 1, f"examples/{batch.kind}", picture)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`, without the lines that a crash left unreadable."""
    return _records(path)[0]


def _records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records and the number of unreadable lines."""
    records, lines = [], path.read_bytes().splitlines() if path.is_file() else []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # bytes that are not text raise it, too
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records, len(lines) - len(records)


def _scores(record: Mapping[str, Any]) -> list[str]:
    """Return each benchmark's main scores: its means, else its recall at 1, else its first few.

    A benchmark has dozens of scores, by category; the file contains them all.
    """
    found: dict[str, dict[str, float]] = {}
    for key, value in record.items():
        bench, _, name = key.partition("/")
        if key != "step" and not name.split("/")[-1].startswith("n_") and name[-2:] not in COUNTS:
            found.setdefault(bench, {})[name] = value
    parts = []
    for bench, numbers in found.items():
        means = {k.removeprefix("mean/"): v for k, v in numbers.items() if k.startswith("mean/")}
        recalls = {k: v for k, v in numbers.items() if k.endswith("@1")}
        shown = means or recalls or dict(list(numbers.items())[:MAIN])
        parts.append(" ".join([bench, *(f"{k} {v:.4g}".strip() for k, v in shown.items())]))
    return parts
