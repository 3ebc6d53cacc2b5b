"""The folder of a run: whether it is new or resumed, who may write to it, and what it keeps.

It keeps the settings, and the output of its job on a cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's parser

from clic import runs
from clic.config.train_settings import Config
from clic.errors import ConfigError, ModelError, redact
from clic.io.files import write_whole
from clic.io.locks import Lock, take_lock
from clic.io.terminal import say
from clic.training import checkpoint

LOCK_FILE = ".lock"
JOB_LOGS = "logs"
PATIENCE = 10.0
"""Seconds to wait for a killed process to exit before its run counts as being trained."""
POLL = 0.1
UNFINISHED = tuple(f".{name}-*" for name in (runs.MODEL, runs.BASE, runs.BEST, "step"))
"""Folders left behind by a process killed while it wrote the model or a checkpoint."""
FREE_TO_CHANGE = (
    "train.resume", "train.run_name", "train.runs_dir", "train.device", "train.max_skipped",
    "train.micro_batch", "train.save_every", "train.keep_checkpoints", "train.log_every",
    "train.eval_every", "train.eval_bench", "train.eval_on_test",
    "train.best_metric", "train.patience",
    "data.workers", "data.timeout", "data.cache_dir", "data.cache_gb", "data.allow_reorder",
    "train.examples_every", "train.profile", "train.report",
    "wandb", "tensorboard", "trackio",
)  # fmt: skip
"""Settings that may change when a run is resumed, because they do not affect the training."""


@dataclass
class RunFolder:
    """Where a run writes, and the checkpoint to continue from; None starts from the base model.

    `continued` means that the folder exists and its run is resumed.
    """

    path: Path
    checkpoint: Path | None = None
    continued: bool = False


def choose(config: Config) -> RunFolder:
    """Find the run to resume, or the name of a new one, without creating anything.

    Raises:
        ConfigError: The named run is finished, is being trained by another process, or was
            started with other settings.
        ModelError: `train.resume` is not a complete checkpoint.
    """
    train = config.train
    root = Path(train.runs_dir).expanduser()
    if train.resume not in ("auto", "never"):
        start = Path(train.resume).expanduser().resolve()
        if not (start / runs.COMPLETE).is_file():
            raise ModelError(
                f"train.resume={train.resume} is not a complete checkpoint; name a folder such as "
                f"{root}/RUN/{runs.CHECKPOINTS}/{runs.step_folder(100)}, or auto, or never"
            )
        checkpoint.check(start)
        return _checked(RunFolder(_new(root, config), start), config)
    if train.run_name is not None:
        return _named(root / train.run_name, config)
    if train.resume == "auto":
        deadline = time.monotonic() + PATIENCE
        for path in _by_age(root, config.name):  # checked again at the end: it may finish meanwhile
            waiting = not runs.is_finished(path) and _is_same(path, config)
            if waiting and _is_free(path, deadline) and not runs.is_finished(path):
                return _continued(path)
    return _checked(RunFolder(_new(root, config)), config)


def _checked(place: RunFolder, config: Config) -> RunFolder:
    """Return a new run's place if its folder can be created there; checked before models load."""
    existing = next(parent for parent in place.path.absolute().parents if parent.exists())
    try:  # a trial, because some file systems refuse folders regardless of permissions
        os.rmdir(tempfile.mkdtemp(prefix=".clic-", dir=existing))
    except OSError as error:
        raise _unmakeable(place, config, error) from error
    return place


def _unmakeable(place: RunFolder, config: Config, error: OSError) -> ConfigError:
    return ConfigError(
        f"train.runs_dir={config.train.runs_dir}: cannot make {place.path}: "
        f"{error.strerror}; choose another folder"
    )


def _is_same(path: Path, config: Config) -> bool:
    try:
        return not differences(path, config)
    except ConfigError as error:
        say(f"WARNING: {error}; it is not resumed")
        return False


def _named(path: Path, config: Config) -> RunFolder:
    if not path.exists():
        return _checked(RunFolder(path), config)
    _check_unfinished(path, config)
    changed = differences(path, config)
    if changed:
        raise ConfigError(
            f"{path} was started with other settings ({'; '.join(changed[:3])}); "
            "restore them, or choose another train.run_name"
        )
    if not _is_free(path, time.monotonic() + PATIENCE):
        raise _taken(path)
    _check_unfinished(path, config)  # it may have finished meanwhile
    return _continued(path)


def _check_unfinished(path: Path, config: Config) -> None:
    if config.train.resume == "never" or runs.is_finished(path) or not runs.is_run(path):
        state = "is a finished run" if runs.is_finished(path) else "exists"
        raise ConfigError(
            f"train.run_name={path.name}: {path} {state}; choose another name, or remove the folder"
        )


def _new(root: Path, config: Config) -> Path:
    if config.train.run_name is not None:
        path = root / config.train.run_name
        if path.exists():
            raise ConfigError(f"train.run_name={path.name}: {path} exists; choose another name")
        return path
    stem = f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = root / stem, 2
    while path.exists():
        path, number = root / f"{stem}-{number}", number + 1
    return path


def _by_age(root: Path, name: str) -> list[Path]:
    """Return the runs of an experiment, newest first."""
    found = [path for path in root.glob(f"{name}-*") if (path / runs.CONFIG_FILE).is_file()]
    return sorted(found, key=lambda p: (p / runs.CONFIG_FILE).stat().st_mtime, reverse=True)


def _continued(path: Path) -> RunFolder:
    """Return a run with its newest intact checkpoint, and print which ones are damaged.

    Raises:
        ModelError: It has checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for folder in reversed(runs.complete_checkpoints(path)):
        try:
            checkpoint.check(folder)
        except checkpoint.DamagedError as error:
            damaged.append(str(error).partition(";")[0])
            continue
        for message in damaged:
            say(f"WARNING: {message}; going back to {folder.name}")
        return RunFolder(path, folder, continued=True)
    if damaged:  # it may have begun from another run's checkpoint, so there is no safe start
        raise ModelError(
            f"no checkpoint of {path} is intact: {'; '.join(damaged)}; remove {path}, or leave it "
            "and begin another run with train.resume=never (and another train.run_name)"
        )
    return RunFolder(path, None, continued=True)


def differences(run: Path, config: Config) -> list[str]:
    """Return the settings that differ between a run and `config`, as `name: then -> now`.

    Settings of `FREE_TO_CHANGE` are left out. A setting that is missing from the run's file was
    added to clic later, so the run had its default.

    Raises:
        ConfigError: The run's settings cannot be read.
    """
    free = (*FREE_TO_CHANGE, "train.batch_size") if config.data.allow_reorder else FREE_TO_CHANGE
    then = flat(redact(asdict(Config()))) | flat(redact(_stored(run)))
    now = flat(redact(asdict(config)))  # redacted, as the signature of a URL may change
    return [
        f"{key}: {then.get(key)} -> {now.get(key)}"
        for key in sorted(then.keys() | now.keys())
        if not key.startswith(free) and then.get(key) != now.get(key)
    ]


def _stored(run: Path) -> Any:
    path = run / runs.CONFIG_FILE
    try:
        stored = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}); fix it, or remove {run}"
        ) from error
    if not isinstance(stored, dict) or "model" not in stored:  # e.g. an empty file
        raise ConfigError(f"{path} holds no settings; fix it, or remove {run}")
    return stored


def flat(nested: Any, separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries, by their keys joined by a separator."""
    if not isinstance(nested, dict):
        return {prefix.removesuffix(separator): nested}
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, separator, f"{prefix}{key}{separator}")
    return found


def _is_free(run: Path, deadline: float) -> bool:
    """Return whether no process is training a run, waiting for that until the deadline."""
    while (lock := lock_run(run)) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    lock.close()
    return True


def _taken(run: Path) -> ConfigError:
    return ConfigError(
        f"{run} is being trained by another process; wait for it, or choose another train.run_name"
    )


def lock_run(run: Path) -> IO[str] | None:
    """Lock a run for this process, or return None if another process holds the lock.

    The kernel releases the lock when the process exits, for whatever reason. On a disk without
    locks a run counts as free.
    """
    path = run / LOCK_FILE
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115, held until the end
    if take_lock(file, path, shared=False, wait=False) is Lock.HELD:
        file.close()
        return None
    _held.add(file)
    return file


def _leave_to_parent() -> None:
    """Close the copies in a forked child, so that orphaned loader workers keep no run locked."""
    for file in list(_held):
        file.close()


_held: WeakSet[IO[str]] = WeakSet()
os.register_at_fork(after_in_child=_leave_to_parent)


def claim(place: RunFolder, config: Config) -> IO[str]:
    """Create the run's folder if it is new, lock it, and remove unfinished folders in it.

    Raises:
        ConfigError: Another process trains it, or the folder cannot be created.
    """
    while not place.continued:
        try:
            place.path.mkdir(parents=True)
            break
        except FileExistsError:  # another run started in the same second
            place.path = _new(place.path.parent, config)
        except OSError as error:
            raise _unmakeable(place, config, error) from error
    lock = lock_run(place.path)
    if lock is None:
        raise _taken(place.path)
    for pattern in UNFINISHED:
        for leftover in place.path.glob(pattern):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
    return lock


def write_config(run: Path, config: Config) -> None:
    """Write the resolved settings without secrets, atomically; remove the run if that fails."""
    try:
        kept = redact(OmegaConf.to_container(OmegaConf.structured(config)))
        write_whole(run / runs.CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(kept)))
    except OSError:
        if not (run / runs.CONFIG_FILE).is_file():
            shutil.rmtree(run)  # it could not be resumed, and would occupy its name
        raise


def keep_job_logs(run: Path) -> None:
    """Link submitit's output files of this process into `RUN/logs`, if submitit started it.

    A hard link is the same file under a second name: it grows with the output, and stays when the
    folder of the multirun is removed. On another disk a symbolic link is used instead.
    """
    submitit = sys.modules.get("submitit")
    if submitit is None:
        return
    with suppress(RuntimeError):  # imported, but this process is not one of its jobs
        paths = submitit.JobEnvironment().paths
        (run / JOB_LOGS).mkdir(exist_ok=True)
        for path in (paths.stdout, paths.stderr):
            _link(Path(path), run / JOB_LOGS / Path(path).name)


def _link(source: Path, target: Path) -> None:
    if target.exists() or not source.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source.resolve())
