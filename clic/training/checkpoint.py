"""Checkpoints: an open_clip folder plus the training state, whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from clic import models, runs
from clic.errors import ConfigError, ModelError
from clic.io.files import file_sha256
from clic.models import ClipModel

STATE_FILE = "training_state.pt"


class DamagedError(ModelError):
    """A checkpoint does not hold any more what was written."""


@dataclass
class TrainingState:
    """What continues a run besides the weights.

    Attributes:
        step: Steps done, which is also the next step's number.
        optimizer: `state_dict` of the optimizer.
        scaler: `state_dict` of the gradient scaler, empty without fp16.
        batch_size: Images on each rank.
        world_size: Ranks; with `batch_size` it decides which images a step sees.
        samples: Number of the data's samples, 0 where it was not kept.
        tally: Counts of the data so far, over all ranks.
    """

    step: int
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    batch_size: int
    world_size: int
    samples: int = 0
    tally: dict[str, int] = field(default_factory=dict)


def save(run: Path, clip: ClipModel, state: TrainingState, keep: int) -> Path:
    """Write `RUN/checkpoints/step-NNNNNN` and remove the oldest ones.

    A kill at any moment leaves the earlier checkpoints and, at worst, a hidden folder that the
    next save removes.

    Args:
        run: The run's folder.
        clip: The model.
        state: The rest.
        keep: Newest checkpoints to keep, 0 for all.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: It cannot be written; the earlier ones stay.
    """
    folder = run / runs.CHECKPOINTS / runs.step_folder(state.step)
    for leftover in run.glob(".step-*"):
        shutil.rmtree(leftover)
    # Made beside the checkpoints' folder, so that nobody takes it for one before it is whole.
    with models.whole_folder(folder, work=run) as new:
        folder.parent.mkdir(exist_ok=True)
        models.write_files(clip, new)
        _write_state(state, new / STATE_FILE)
        _write_marker(new)
        for file in new.iterdir():
            _sync(file)  # the rename must not reach the disk before the contents
    if keep:
        for old in runs.complete_checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    return folder


def _write_marker(folder: Path) -> None:
    """Write the completeness marker, which holds the SHA-256 of every other file."""
    hashes = {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    text = json.dumps({"sha256": hashes}, indent=2) + "\n"
    (folder / runs.COMPLETE).write_text(text, encoding="utf-8")


def check(folder: Path) -> None:
    """Make sure that a checkpoint still holds what was written.

    A marker without hashes, as earlier versions wrote it, vouches for nothing: of such a
    checkpoint the files' own structure is checked, which shows a cut but not a flipped bit.

    Raises:
        ModelError: The checkpoint is incomplete or damaged.
    """
    _check_complete(folder)
    marker = folder / runs.COMPLETE
    if not marker.stat().st_size:
        _check_structure(folder)
        return
    for name, expected in _marked(marker).items():
        file = folder / Path(name).name
        try:
            found = file_sha256(file)
        except OSError as error:
            raise _damaged(folder, f"{file.name}: {error.strerror}") from error
        if found != expected:
            raise _damaged(folder, f"{file.name} is not as it was written (SHA-256)")


def _check_complete(folder: Path) -> None:
    if not (folder / runs.COMPLETE).is_file():
        raise ModelError(
            f"{folder} is no complete checkpoint (no {runs.COMPLETE} in it); name a folder of "
            f"RUN/{runs.CHECKPOINTS}, or use train.resume=never"
        )


def _marked(marker: Path) -> dict[str, str]:
    try:
        hashes = json.loads(marker.read_bytes())["sha256"]
        return {str(name): str(value) for name, value in hashes.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(marker.parent, f"{marker.name} cannot be read") from error


def _check_structure(folder: Path) -> None:
    """Read as much of the large files as shows whether they were cut; `load` misses the others."""
    if (folder / STATE_FILE).is_file():
        _read_state(folder, mmap=True)
    if (folder / runs.OPEN_CLIP_WEIGHTS).is_file():
        try:
            with safe_open(folder / runs.OPEN_CLIP_WEIGHTS, "pt"):
                pass  # its header, which tells the file's length, was right
        except (SafetensorError, OSError) as error:
            raise _damaged(folder, f"{runs.OPEN_CLIP_WEIGHTS} cannot be read: {error}") from error


def _read_state(folder: Path, mmap: bool = False) -> TrainingState:
    """Read the training state; with `mmap` its tensors stay on disk."""
    path = folder / STATE_FILE
    try:
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError) as error:
        raise _damaged(folder, f"{path.name} cannot be read") from error
    names = {f.name for f in fields(TrainingState)}
    needed = {
        f.name
        for f in fields(TrainingState)
        if f.default is MISSING and f.default_factory is MISSING
    }
    if not isinstance(record, dict) or not needed <= record.keys():
        raise _damaged(folder, f"{path.name} holds no training state")
    if unknown := sorted(record.keys() - names):
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
    # Not `asdict`, which copies every tensor of the optimizer first.
    record = {f.name: getattr(state, f.name) for f in fields(state)}
    # Into a file of Python's: of its own torch would not tell why it could not be written.
    with path.open("wb") as file:
        try:
            torch.save(record, file)
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


def load(folder: Path, clip: ClipModel) -> TrainingState:
    """Load a checkpoint's weights into `clip` and return the training state.

    Args:
        folder: A complete checkpoint.
        clip: Model of the same architecture; its weights are replaced.

    Raises:
        ModelError: The checkpoint is incomplete, cannot be read, or is of another architecture.
    """
    _check_complete(folder)
    stored = models.resolve(f"local-dir:{folder}").architecture
    if stored != clip.source.architecture:
        raise ModelError(
            f"{folder} holds another architecture than model.name={clip.source.name!r} has; "
            "start a new run with train.resume=never"
        )
    try:
        weights = load_file(folder / runs.OPEN_CLIP_WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise _damaged(folder, f"{runs.OPEN_CLIP_WEIGHTS} cannot be read: {error}") from error
    clip.model.load_state_dict(weights)
    return _read_state(folder)


def check_same_batches(
    state: TrainingState,
    batch_size: int,
    world_size: int,
    samples: int = 0,
    allow_reorder: bool = False,
) -> str:
    """Refuse to continue with other batches than the run began with.

    Args:
        state: What the run began with.
        batch_size: Images on each rank now.
        world_size: Ranks now.
        samples: Number of the data's samples now, 0 where that is not to be compared.
        allow_reorder: Continue all the same.

    Returns:
        What differs, the empty string if nothing does.

    Raises:
        ConfigError: The number of ranks or of samples, or the batch size, differs, and that is not
            allowed.
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
