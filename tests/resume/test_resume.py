"""Real processes that are killed or interrupted, and the same command again."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from clic import runs
from clic.training.metrics_log import read

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

STEPS = 12
WEIGHTS = Path(runs.MODEL) / runs.OPEN_CLIP_WEIGHTS


class Command:
    """`clic-train` with a tiny model, in a process of its own."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.folder = folder
        lines = [*words, f"train.max_steps={STEPS}", "train.save_every=3", "train.log_every=2"]
        self.words = lines

    def start(self, *words: str) -> forked.Forked:
        given = dict(word.split("=", 1) for word in [*self.words, *words])  # the last one holds
        command = ("clic.cli.train", list(map("=".join, given.items())))
        return forked.Forked(forked.command, command, self.folder)

    def run(self, *words: str) -> str:
        process = self.start(*words)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def signalled(self, number: signal.Signals, step: int, *words: str) -> tuple[int | None, str]:
        """Send a signal once a step was logged; return exit code and output.

        Every process of the run gets it, loader workers too, as from a terminal's Ctrl-C.
        """
        process = self.start(*words)
        for line in process.lines():
            if line.split()[:2] == ["step", f"{step}/{STEPS}"]:
                process.signal_all(number)
                break
        output, _ = process.communicate()
        return process.returncode, output


@pytest.fixture
def command(tmp_path: Path, tiny_words: list[str]) -> Command:
    return Command(tmp_path, tiny_words)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_words: list[str]) -> bytes:
    """Return the weights' file of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("unbroken")
    Command(folder, tiny_words).run("train.run_name=whole")
    return (folder / "runs" / "whole" / WEIGHTS).read_bytes()


def only_run(folder: Path) -> Path:
    (path,) = (folder / "runs").iterdir()
    return path


def assert_whole(run: Path, unbroken: bytes) -> None:
    assert (run / WEIGHTS).read_bytes() == unbroken
    assert [r["step"] for r in read(run / runs.METRICS_FILE)] == list(range(2, STEPS + 1, 2))


def test_after_kill_9_the_same_command_gives_the_same_weights(
    command: Command, unbroken: bytes
) -> None:
    code, _ = command.signalled(signal.SIGKILL, 8, "train.run_name=mine")
    assert code == -signal.SIGKILL
    run = only_run(command.folder)
    assert not runs.is_finished(run)
    assert "resuming runs/mine from step" in command.run("train.run_name=mine")
    assert_whole(run, unbroken)


def test_an_interrupted_run_keeps_its_step(command: Command, unbroken: bytes) -> None:
    code, output = command.signalled(signal.SIGINT, 4, "train.save_every=0", "data.workers=1")
    assert code == 130
    run = only_run(command.folder)
    (checkpoint,) = runs.complete_checkpoints(run)
    step = int(checkpoint.name.removeprefix("step-"))
    assert f"stopped after step {step}; the same command continues" in output
    assert f"from step {step}" in command.run("train.save_every=0", "data.workers=1")
    assert_whole(run, unbroken)


def test_a_checkpoint_that_was_cut_off_is_ignored(command: Command, unbroken: bytes) -> None:
    command.signalled(signal.SIGKILL, 10)
    run = only_run(command.folder)
    newest = runs.complete_checkpoints(run)[-1]
    (newest / runs.COMPLETE).unlink()
    (newest / runs.OPEN_CLIP_WEIGHTS).write_bytes(b"cut")
    assert f"resuming {run.relative_to(command.folder)} from step" in command.run()
    assert only_run(command.folder) == run
    assert_whole(run, unbroken)


def test_a_killed_run_with_loader_workers_is_continued_at_once(
    command: Command, unbroken: bytes
) -> None:
    """The main process alone is killed, as `kill -9 PID` does."""
    process = command.start("data.workers=2")
    for line in process.lines():
        if line.startswith("step "):
            process.kill()
            break
    assert "resuming" in command.run("data.workers=2")
    assert_whole(only_run(command.folder), unbroken)
