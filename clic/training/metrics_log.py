"""The metrics of a run: one record per interval, to a file, the console and W&B."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clic import distributed, provenance
from clic.config.train_settings import WandbConfig
from clic.errors import ConfigError
from clic.io.files import write_whole
from clic.io.terminal import say
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
"""Endings of the names of row counts."""


class Averages:
    """Means of named scalars over steps and ranks, accumulated on their device.

    A value that is not finite is left out, because the step it belongs to is skipped. Only reading
    them waits for the GPU and communicates with other ranks.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # of each name its sum, and how many values are in it

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
    """Appends records to `metrics.jsonl` and prints them, on rank 0 only.

    Args:
        path: The file.
        start: The step from which the run continues. Records of later steps, written by a process
            that was killed after its last checkpoint, are removed.
        stop: The last step, for the console.
        wandb: The settings of W&B.
        run_name: Name of the run on W&B.
        settings: Resolved settings, shown on W&B.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        stop: int,
        wandb: WandbConfig,
        run_name: str,
        settings: dict[str, Any],
    ) -> None:
        self.active, self.stop = distributed.is_main(), stop
        self._wandb: Any = None
        self._first = self._logged = start
        self._printed = time.monotonic()
        if not self.active:
            return
        # Later records go, by replacing the file atomically.
        records, unreadable = _records(path)
        if unreadable:
            say(f"{path}: removed {unreadable} line(s) that cannot be read")
        lines = [json.dumps(record) + "\n" for record in records if record["step"] <= start]
        write_whole(path, "".join(lines))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed in `close`
        if wandb.enabled:
            self._wandb = _start_wandb(wandb, run_name, path.parent, settings)

    def log(self, record: dict[str, Any]) -> None:
        """Write and print one record, which contains its `step`."""
        if not self.active:
            return
        self._logged = record["step"]
        self._file.write(json.dumps({**record, "time": round(time.time(), 3)}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(record, step=record["step"])
        self._printed = time.monotonic()
        say(self._line(record))

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches; print when the first step is done, and progress if steps are slow."""
        begun: float | None = None
        for batch in batches:
            if begun is None:
                begun = self._printed = time.monotonic()
                self._first = batch.step
            yield batch
            if self.active:
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

    def _line(self, record: Mapping[str, Any]) -> str:
        """Return the main entries of a record, to fit a terminal."""
        head = f"step {record['step']:>{len(str(self.stop))}}/{self.stop}"
        parts = [
            f"{label} {record[key]:.4g}"
            for key, label in SHOWN.items()
            if key in record and (record[key] or key not in QUIET_AT_ZERO)
        ]
        return "  ".join([head, *(parts or _scores(record))])

    def close(self) -> None:
        """Close the file and end the W&B run."""
        if self.active:
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


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

    A benchmark has dozens of scores, by category; the file holds them all.
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


def _start_wandb(config: WandbConfig, name: str, folder: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        message = "wandb.enabled=true needs the package wandb; pip install wandb"
        raise ConfigError(message) from error
    words, sys.argv = sys.argv, provenance.command()  # W&B stores the command line: no secrets
    own = {"project": config.project, "entity": config.entity, "mode": config.mode}
    try:
        return wandb.init(
            **own, name=name, id=name, resume="allow", dir=str(folder), config=settings
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"wandb cannot start ({error}); log in with `wandb login`, or set wandb.mode=offline "
            f"or wandb.enabled=false: the same command then continues {folder}"
        ) from error
    finally:
        sys.argv = words
