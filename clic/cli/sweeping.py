"""A multirun (`clic-train -m`), which reports mistakes in its jobs before any of them trains.

A failed job does not stop the others; the command's last line names those that failed.
"""

from __future__ import annotations

import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from clic.cli.common import INTERRUPTED, USER_ERROR, one_line
from clic.cli.seed_table import seed_table
from clic.cli.train_help import settings
from clic.config.checks import validate
from clic.config.overrides import given, reason
from clic.config.train_settings import Config
from clic.errors import ClicError, ConfigError, redact
from clic.io.files import DISK_ERRORS, disk_reason

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
HYDRAS_FOLDER = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"
"""Hydra's folder for the files of a multirun, unless the user sets another."""
BUG = 1
"""Exit code of a job that failed for a reason other than a user's mistake."""
PLAIN = re.compile(r"[\w.+-]+")
Job = Sequence[str]
"""The words of one combination of values."""


@dataclass(frozen=True)
class JobOutcome:
    """A job's exit code, its mistake, and its last numbers; remote jobs send it back."""

    code: int
    message: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def in_multirun() -> bool:
    """Return whether the current job belongs to a multirun."""
    return str(HydraConfig.get().mode).endswith("MULTIRUN")


def attempt(train: Callable[[], tuple[int, dict[str, float]]], skip: bool) -> JobOutcome:
    """Run one job of a multirun, print why it failed, if it did, and return its outcome.

    `train` returns the exit code and the run's last numbers; with `skip` nothing is run, because an
    earlier job was interrupted.
    """
    if skip:
        return JobOutcome(INTERRUPTED)
    code = USER_ERROR
    try:
        own, numbers = train()
        return JobOutcome(own, numbers=numbers)
    except (ClicError, OSError) as error:
        message = one_line(error)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            message = disk_reason(error)
    except Exception as error:  # noqa: BLE001, nothing of it is hidden, and the other jobs continue
        traceback.print_exc()
        message, code = f"{type(error).__name__}: {one_line(error)}", BUG
    print(f"clic-train: job {HydraConfig.get().job.num} failed: {message}", file=sys.stderr)
    return JobOutcome(code, message)


def install() -> None:
    """Replace Hydra's basic sweeper with ours.

    Hydra loads plugins only from its own package and from `hydra_plugins`, so ours cannot be named
    in the settings. Users can still choose the sweeper of another plugin.
    """
    Plugins.instance().class_name_to_class[BASIC_SWEEPER] = Sweeper


class Sweeper(HydraSweeper):
    """Hydra's basic sweeper, except that it continues after a job that fails."""

    # Jobs given to a launcher at a time (None for all), and the sweeps defined in the settings.
    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.settings = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run every combination of the values.

        Raises:
            ConfigError: Two jobs would write to the same folder, or some of them failed.
        """
        # Imported here because Hydra reloads its plugins when it looks for them.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        own = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides([*own, *arguments])
        batches = BasicSweeper.split_arguments(overrides, self.max_batch_size)
        jobs = [job for batch in batches for job in batch]
        names = dict(zip(map(tuple, jobs), _names(jobs), strict=True))
        mistakes = self._check(jobs)
        failed = [f"{name}: {message}" for name, message in mistakes.items()]
        if len(mistakes) < len(names):
            for line in failed:  # now, not at that job's turn
                print(f"clic-train: will not run: {line}", file=sys.stderr)
        done, worst = 0, USER_ERROR if mistakes else 0
        trained: list[Job] = []
        numbers: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as scratch:
            self._choose_folder(scratch)
            for batch in batches:
                rest = [job for job in batch if names[tuple(job)] not in mistakes]
                for job, outcome in zip(rest, self._launch(rest, done), strict=True):
                    trained.append(job)
                    numbers.append(outcome.numbers)
                    if outcome.code:
                        worst = worst or outcome.code
                        failed.append(f"{names[tuple(job)]}: {outcome.message}")
                done += len(rest)
        if table := seed_table(trained, numbers):
            print(f"\n{table}", flush=True)
        if failed:
            said = f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}"
            if worst == USER_ERROR:
                raise ConfigError(said)
            print(f"clic-train: error: {redact(said)}", file=sys.stderr)
            sys.exit(worst)

    def _choose_folder(self, scratch: str) -> None:
        """Keep what a launcher writes, such as job output; the basic launcher writes nothing."""
        sweep = OmegaConf.to_container(self.settings.hydra.sweep, resolve=False)
        assert isinstance(sweep, dict)
        basic = self.settings.hydra.launcher._target_ == BASIC_LAUNCHER
        if basic and sweep["dir"] == HYDRAS_FOLDER:
            with read_write(self.settings), open_dict(self.settings):
                self.settings.hydra.sweep.dir = scratch
                # Each job's settings are composed again from these words.
                self.settings.hydra.overrides.hydra.append(f"hydra.sweep.dir='{scratch}'")
        folder = Path(self.settings.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.settings, folder / "multirun.yaml")

    def _launch(self, jobs: Sequence[Job], first: int) -> list[JobOutcome]:
        if not jobs:
            return []
        try:
            returned = self.launcher.launch(jobs, initial_job_idx=first)
        except RuntimeError as error:  # from submitit: a job's process died without an answer
            raise ConfigError(
                f"the launcher lost a job: {one_line(error)}; the jobs' output lies in "
                f"{self.settings.hydra.sweep.dir}"
            ) from error
        outcomes = [result.return_value for result in returned]
        if any(outcome.code == INTERRUPTED for outcome in outcomes):
            sys.exit(INTERRUPTED)
        return outcomes

    def _check(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Return the mistakes in the jobs' settings, by the job's name.

        Raises:
            ConfigError: Two jobs would write to the same folder.
        """
        mistakes: dict[str, str] = {}
        folders: Counter[tuple[str, str | None]] = Counter()
        for number, (job, name) in enumerate(zip(jobs, _names(jobs), strict=True)):
            try:
                config = self._compose(job, number)
                folders[config.train.runs_dir, config.train.run_name] += 1
                validate(config, given(job))
            except ClicError as error:
                mistakes[name] = one_line(error)
            except (HydraException, OmegaConfBaseException) as error:
                mistakes[name] = reason(error)
        for (_, run), count in folders.items():
            if run is not None and count > 1:
                raise ConfigError(
                    f"train.run_name={run} is the name of {count} runs of this multirun; write "
                    f"'train.run_name={run}-{_distinction(jobs)}', which names each of them"
                )
        return mistakes

    def _compose(self, job: Job, number: int) -> Config:
        loader = self.context.config_loader
        composed: DictConfig = loader.load_sweep_config(self.settings, list(job))
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(composed)  # for settings such as ${hydra:job.num}
        try:
            with read_write(composed), open_dict(composed):
                del composed["hydra"]
            config = OmegaConf.to_object(composed)
        finally:
            HydraConfig.instance().cfg = before
        assert isinstance(config, Config)
        return config


def _varied(jobs: Sequence[Job]) -> list[int]:
    """Return the positions of the words that are not the same in every job."""
    return [place for place, words in enumerate(zip(*jobs, strict=True)) if len(set(words)) > 1]


def _names(jobs: Sequence[Job]) -> list[str]:
    """Return names that distinguish the jobs from each other."""
    places = _varied(jobs)
    return [" ".join(job[place] for place in places) or f"job {n}" for n, job in enumerate(jobs)]


def _distinction(jobs: Sequence[Job]) -> str:
    """Return an interpolation with a different value, fit for a folder's name, in each job."""
    words = [job[place].lstrip("+").partition("=") for job in jobs for place in _varied(jobs)]
    keys, known = dict.fromkeys(key for key, _, _ in words), settings()
    # A group's choice is not a value, and a path or a list is not a name.
    plain = all(PLAIN.fullmatch(value) for _, _, value in words)
    if not words or not plain or not all(key in known for key in keys):
        return "${hydra:job.num}"
    return "-".join(f"${{{key}}}" for key in keys)
