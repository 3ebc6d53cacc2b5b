"""What a run reports while it trains: one line per interval to file, console and W&B."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clic import distributed
from clic.config import WandbConfig
from clic.errors import ConfigError
from clic.training.console import say
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
"""Of these, those that are shown only where there is something to show."""


class Averages:
    """Means of named scalars since the last reading, kept on their device.

    Reading them is the only moment that waits for the GPU and talks to other ranks.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in values.items():
            total = self._sums.get(name)
            self._sums[name] = value.detach() if total is None else total + value.detach()
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the means over steps and ranks."""
        names = sorted(self._sums)
        if not names:
            return {}
        means = torch.stack([self._sums[n].double() / self._counts[n] for n in names])
        means = distributed.all_reduce_sum(means) / distributed.world_size()
        return dict(zip(names, means.tolist(), strict=True))

    def clear(self) -> None:
        """Start anew."""
        self._sums.clear()
        self._counts.clear()


def missing_negatives(batch: Batch) -> dict[str, Tensor]:
    """Return the share of the rows that have no hard negative; of several kinds, of each kind.

    The names are those of the batch's kinds, so that every rank has the same.
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
    """Appends records to `metrics.jsonl` and prints them; only rank 0 does either.

    Args:
        path: The file.
        start: Step the run starts from; records of later steps, left by a start that was killed
            after its last checkpoint, are removed.
        stop: Last step, for the console.
        wandb: The group `wandb`.
        run_name: Name of the run there.
        settings: Resolved settings, kept there.
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
        self.active = distributed.is_main()
        self.stop = stop
        self._wandb: Any = None
        if not self.active:
            return
        _cut(path, start)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed in `close`
        if wandb.enabled:
            self._wandb = _start_wandb(wandb, run_name, path.parent, settings)

    def log(self, record: dict[str, Any]) -> None:
        """Keep and print one record, which names its `step`."""
        if not self.active:
            return
        self._file.write(json.dumps({**record, "time": round(time.time(), 3)}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(record, step=record["step"])
        say(self._line(record))

    def _line(self, record: Mapping[str, Any]) -> str:
        """Return what fits a terminal: the file holds every term."""
        head = f"step {record['step']:>{len(str(self.stop))}}/{self.stop}"
        shown = {key: record[key] for key in SHOWN if key in record}
        parts = [
            f"{SHOWN[key]} {value:.4g}"
            for key, value in shown.items()
            if value or key not in QUIET_AT_ZERO
        ]
        return "  ".join([head, *(parts or _scores(record))])

    def close(self) -> None:
        """Close the file and end the W&B run."""
        if self.active:
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`; a last line cut by a kill is left out."""
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
    return records


def _cut(path: Path, last: int) -> None:
    """Remove the records of later steps, so that a kill meanwhile loses none of the others."""
    lines = [json.dumps(record) + "\n" for record in read(path) if record["step"] <= last]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, path)


def _scores(record: Mapping[str, Any]) -> list[str]:
    return [f"{key} {value:.4g}" for key, value in record.items() if key != "step"]


def _start_wandb(config: WandbConfig, name: str, folder: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "wandb.enabled=true needs the package wandb; pip install wandb"
        ) from error
    return wandb.init(
        project=config.project,
        entity=config.entity,
        mode=config.mode,
        name=name,
        id=name,
        resume="allow",
        dir=str(folder),
        config=settings,
    )
