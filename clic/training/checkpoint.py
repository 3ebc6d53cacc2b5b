"""Checkpoints: an open_clip folder plus the training state, written atomically."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from clic import models, runs
from clic.errors import ConfigError, ModelError
from clic.io.files import file_sha256
from clic.models import ClipModel

STATE_FILE = "training_state.pt"


class DamagedError(ModelError):
    """The contents of a checkpoint are no longer what was written."""


@dataclass
class TrainingState:
    """What a run needs to continue, besides the weights.

    Attributes:
        step: Steps done, which is also the number of the next step.
        optimizer: `state_dict` of the optimizer.
        scaler: `state_dict` of the gradient scaler, empty without fp16.
        batch_size: Images per rank.
        world_size: Ranks; together with `batch_size` they decide which images a step sees.
        samples: Number of samples in the data, 0 in checkpoints that did not store it.
        tally: Counts of the data so far, over all ranks.
        average: The average of the weights by name, empty without `train.ema`.
        best: The best evaluation so far (`BestSoFar.state`), empty in earlier versions.
        adapters: The adapted parts of the model (`Adapters.state`), empty without any; the weights
            beside it have them merged.
    """

    step: int
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    batch_size: int
    world_size: int
    samples: int = 0
    tally: dict[str, int] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    adapters: dict[str, Tensor] = field(default_factory=dict)


def save(run: Path, clip: ClipModel, state: TrainingState, keep: int) -> Path:
    """Write `RUN/checkpoints/step-NNNNNN`, return it, and remove all but the `keep` newest.

    With `keep` 0 all are kept. If the process is killed, the earlier checkpoints stay; at worst it
    leaves a hidden folder, which the next save removes.

    Raises:
        ConfigError: It cannot be written; the earlier checkpoints stay.
    """
    folder = run / runs.CHECKPOINTS / runs.step_folder(state.step)
    for leftover in run.glob(".step-*"):
        shutil.rmtree(leftover)
    # Made outside the checkpoints' folder, so that it cannot pass for one before it is whole.
    with models.whole_folder(folder, work=run) as new:
        folder.parent.mkdir(exist_ok=True)
        models.write_files(clip, new)
        _write_state(state, new / STATE_FILE)
        # The completeness marker contains the SHA-256 of every other file.
        hashes = {file.name: file_sha256(file) for file in sorted(new.iterdir()) if file.is_file()}
        marker = json.dumps({"sha256": hashes}, indent=2) + "\n"
        (new / runs.COMPLETE).write_text(marker, encoding="utf-8")
        for file in new.iterdir():
            _sync(file)  # before the rename reaches the disk
    if keep:
        for old in runs.complete_checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    return folder


def check(folder: Path) -> None:
    """Verify that a checkpoint's contents are still what was written.

    Earlier versions wrote a marker without hashes. For such a checkpoint only the structure of
    the files is checked, which detects truncation but not a flipped bit.

    Raises:
        ModelError: The checkpoint is incomplete or damaged.
    """
    _check_complete(folder)
    marker = folder / runs.COMPLETE
    if not marker.stat().st_size:
        _check_structure(folder)
        return
    try:
        hashes = json.loads(marker.read_bytes())["sha256"]
        expected = {str(name): str(value) for name, value in hashes.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{marker.name} cannot be read") from error
    for name, value in expected.items():
        file = folder / Path(name).name
        try:
            found = file_sha256(file)
        except OSError as error:
            raise _damaged(folder, f"{file.name}: {error.strerror}") from error
        if found != value:
            raise _damaged(folder, f"{file.name} is not as it was written (SHA-256)")


def _check_complete(folder: Path) -> None:
    if not (folder / runs.COMPLETE).is_file():
        raise ModelError(
            f"{folder} is not a complete checkpoint (no {runs.COMPLETE} in it); name a folder of "
            f"RUN/{runs.CHECKPOINTS}, or use train.resume=never"
        )


def _check_structure(folder: Path) -> None:
    """Read enough of the large files to see whether they were truncated."""
    if (folder / STATE_FILE).is_file():
        _read_state(folder, mmap=True)
    if (folder / runs.OPEN_CLIP_WEIGHTS).is_file():
        with _reading_weights(folder), safe_open(folder / runs.OPEN_CLIP_WEIGHTS, "pt"):
            pass  # opening it checks the length that its header states


@contextmanager
def _reading_weights(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise _damaged(folder, f"{runs.OPEN_CLIP_WEIGHTS} cannot be read: {error}") from error


def _read_state(folder: Path, mmap: bool = False) -> TrainingState:
    """Read the training state; with `mmap`, its tensors stay on disk."""
    path = folder / STATE_FILE
    try:
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError) as error:
        raise _damaged(folder, f"{path.name} cannot be read") from error
    names = [f.name for f in fields(TrainingState)]  # the first five have no default
    if not isinstance(record, dict) or not record.keys() >= set(names[:5]):
        raise _damaged(folder, f"{path.name} holds no training state")
    if unknown := sorted(record.keys() - set(names)):
        raise ModelError(
            f"{path} holds {', '.join(unknown)}, which this version of clic does not know; "
            "continue with the version that wrote it, or use train.resume=never"
        )
    return TrainingState(**record)


def _damaged(folder: Path, reason: str) -> DamagedError:
    return DamagedError(
        f"checkpoint {folder} is damaged: {reason}; resume from an earlier one with "
        "train.resume=CHECKPOINT, or start anew with train.resume=never"
    )


def _write_state(state: TrainingState, path: Path) -> None:
    # A Python file, because torch does not say why it cannot write to a path; and `vars`,
    # because `asdict` would copy every tensor of the optimizer.
    with path.open("wb") as file:
        try:
            torch.save(dict(vars(state)), file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: Path, clip: ClipModel, adapters: models.Adapters | None = None) -> TrainingState:
    """Load a checkpoint's weights into `clip`, a model of the same architecture.

    Args:
        folder: The checkpoint.
        clip: The model.
        adapters: Its adapters, if it has any.

    Raises:
        ModelError: The checkpoint is incomplete or unreadable, or has another architecture.
    """
    _check_complete(folder)
    stored = models.resolve(f"local-dir:{folder}").architecture
    if stored != clip.source.architecture:
        raise ModelError(
            f"{folder} holds another architecture than that of model.name={clip.source.name!r}; "
            "give the model.name, model.context_length and model.image_size of its run, or start a "
            "new one with train.resume=never"
        )
    with _reading_weights(folder):
        weights = load_file(folder / runs.OPEN_CLIP_WEIGHTS)
    state = _read_state(folder)
    if adapters is None:
        clip.model.load_state_dict(weights)
    else:
        adapters.restore(weights, state.adapters)
    return state


def check_same_batches(
    state: TrainingState,
    batch_size: int,
    world_size: int,
    samples: int = 0,
    allow_reorder: bool = False,
) -> str:
    """Return how the later batches of a resumed run would differ, '' if they would not.

    The numbers are those of this run; `samples` is not compared if the checkpoint stored 0.

    Raises:
        ConfigError: The number of ranks or samples or the batch size differs, and `allow_reorder`
            is not set.
    """
    differences = []
    for setting, then, now in (
        ("number of ranks", state.world_size, world_size),
        ("train.batch_size", state.batch_size, batch_size),
        ("number of samples", state.samples, samples if state.samples else 0),
    ):
        if then != now and not allow_reorder:
            raise ConfigError(
                f"the run was trained with {setting} {then} and cannot be resumed with {now}: "
                f"every later batch would differ; use {then}, start anew with train.resume=never, "
                "or accept that with data.allow_reorder=true"
            )
        if then != now:
            differences.append(f"{setting} {then} -> {now}")
    return ", ".join(differences)
