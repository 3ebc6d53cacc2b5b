"""Multiruns: jobs that clash or cannot be right are told first, and a failed one ends no other."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from clic.cli import train
from clic.cli.common import INTERRUPTED
from clic.config.train_settings import Config
from clic.errors import DataError

Multirun = Callable[..., tuple[int, list[Config], str]]


@pytest.fixture
def multirun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Multirun:
    """Return what starts `clic-train -m` with another training, and gives what that was given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def run(*words: str, end: Callable[[Config], int] = lambda config: 0) -> Any:
        trained: list[Config] = []
        monkeypatch.setattr(
            train, "_run", lambda config, finished, given: trained.append(config) or end(config)
        )
        monkeypatch.setattr(sys, "argv", ["clic-train", "-m", *words])
        with pytest.raises(SystemExit) as ended:
            train.main()
        return int(ended.value.code or 0), trained, capsys.readouterr().err

    return run


def test_every_combination_is_trained(multirun: Multirun, tmp_path: Path) -> None:
    code, trained, err = multirun("seed=0,1", "train.batch_size=4,8")
    assert (code, err) == (0, "")
    assert [(c.seed, c.train.batch_size) for c in trained] == [(0, 4), (0, 8), (1, 4), (1, 8)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["seed=0,1", "train.run_name=X"], "X-${seed}"),
        (["seed=0,1", "optim.lr=1e-3,1e-4", "train.run_name=X"], "X-${seed}-${optim.lr}"),
        (["optim=shapes,clic", "train.run_name=X"], "X-${hydra:job.num}"),
        (["data=shards", "data.shards=/a/x,/b/x", "train.run_name=X"], "X-${hydra:job.num}"),
        (["seed=0,1", "optim.lr=1e-3,1e-4", "train.run_name=X-${seed}"], "${optim.lr}"),
    ],
    ids=str,
)
def test_one_name_for_several_runs_is_told_before_any_trains(
    multirun: Multirun, words: list[str], name: str
) -> None:
    code, trained, err = multirun(*words)
    assert code == 2 and trained == []
    assert err.startswith("clic-train: error: train.run_name=X") and err.count("\n") == 1
    assert name in err


@pytest.mark.parametrize("name", ["X-${seed}", "X-${hydra:job.num}", "A,B"])
def test_names_of_their_own_are_accepted(multirun: Multirun, name: str) -> None:
    swept = ["seed=0"] if name == "A,B" else ["seed=3,4"]
    code, trained, err = multirun(*swept, f"train.run_name={name}")
    assert (code, err) == (0, "")
    assert len({config.train.run_name for config in trained}) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lr=-1,1e-3"], "optim.lr=-1: optim.lr=-1.0 is too small"),
        (["train.batch_size=many,4"], "train.batch_size=many: train.batch_size: "),
        (["model.train=txt,text"], "did you mean 'text'"),
    ],
    ids=str,
)
def test_a_mistake_in_one_job_is_told_first_and_the_others_train(
    multirun: Multirun, words: list[str], message: str
) -> None:
    code, trained, err = multirun(*words)
    assert code == 2 and len(trained) == 1
    first, last = err.splitlines()
    assert first.startswith("clic-train: will not run: ") and message in first
    assert last.startswith("clic-train: error: 1 of 2 runs failed: ") and message in last


@pytest.mark.parametrize(
    ("error", "message", "traceback"),
    [
        (DataError("no shards there"), "no shards there", False),
        (PermissionError(13, "Permission denied", "/x"), "cannot read or write /x", False),
        (KeyError("lost"), "KeyError: 'lost'", True),
    ],
    ids=str,
)
def test_a_job_that_fails_is_reported_and_the_others_train(
    multirun: Multirun, error: Exception, message: str, traceback: bool
) -> None:
    def end(config: Config) -> int:
        if config.seed == 1:
            raise error
        return 0

    code, trained, err = multirun("seed=0,1,2", end=end)
    assert code == (1 if traceback else 2)  # a bug is no mistake of the user
    assert [config.seed for config in trained] == [0, 1, 2]
    assert f"clic-train: job 1 failed: {message}" in err
    assert err.splitlines()[-1].startswith(
        f"clic-train: error: 1 of 3 runs failed: seed=1: {message}"
    )
    assert ("Traceback" in err) == traceback


def test_ctrl_c_ends_all_of_it(multirun: Multirun) -> None:
    code, trained, err = multirun("seed=0,1,2", end=lambda config: INTERRUPTED)
    assert code == INTERRUPTED and len(trained) == 1 and err == ""


def test_the_users_folder_of_a_sweep_holds(multirun: Multirun, tmp_path: Path) -> None:
    code, trained, _ = multirun("seed=0,1", f"hydra.sweep.dir={tmp_path}/mine")
    assert code == 0 and len(trained) == 2
    assert (tmp_path / "mine" / "multirun.yaml").is_file()


class Elsewhere(Launcher):
    """Runs each job in a process of its own, which sends what the job returns."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.task, self.settings = hydra_context, task_function, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> list[JobReturn]:
        context = multiprocessing.get_context("fork")
        answers = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            queue: Any = context.SimpleQueue()
            process = context.Process(target=self.job, args=(queue, list(overrides), number))
            process.start()
            answers.append(queue.get())
            process.join()
        return answers

    def job(self, queue: Any, overrides: list[str], number: int) -> None:
        config = self.context.config_loader.load_sweep_config(self.settings, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        folders = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
        task: Any = self.task
        queue.put(run_job(hydra_context=self.context, task_function=task, config=config, **folders))


def test_a_job_that_fails_in_another_process_is_reported(
    multirun: Multirun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with `hydra/launcher=submitit_local`, where a job shares nothing with the command."""
    home = ModuleType("hydra_plugins.elsewhere")
    home.Elsewhere = Elsewhere  # type: ignore[attr-defined]
    monkeypatch.setattr(Elsewhere, "__module__", home.__name__)
    monkeypatch.setitem(sys.modules, "hydra_plugins", ModuleType("hydra_plugins"))
    monkeypatch.setitem(sys.modules, home.__name__, home)
    Plugins.instance().register(Elsewhere)
    configs = tmp_path / "configs" / "hydra" / "launcher"
    configs.mkdir(parents=True)
    (configs / "elsewhere.yaml").write_text("_target_: hydra_plugins.elsewhere.Elsewhere\n")

    def end(config: Config) -> int:
        if config.seed == 1:
            raise DataError("no shards there")
        return 0

    words = ("--config-dir", str(tmp_path / "configs"), "hydra/launcher=elsewhere")
    code, _, err = multirun(*words, "seed=0,1,2", end=end)
    assert code == 2
    assert err.splitlines()[-1] == (
        "clic-train: error: 1 of 3 runs failed: seed=1: no shards there"
    )
    assert list((tmp_path / "multirun").glob("*/*/multirun.yaml"))  # where such jobs' output lies
