"""Two ranks with half the batch each train the weights of one rank with the whole batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clic import runs
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.training import train
from clic.training.metrics_log import read

sys.path.insert(0, str(Path(__file__).parents[1]))
import forked

WEIGHTS = Path(runs.MODEL) / runs.OPEN_CLIP_WEIGHTS
OBJECTIVES = {
    "clic": ["model.train_logit_scale=true"],
    "distilled": ["model.train=text.last:1", "train.distill_weight=2.0"],
    "softmax_negatives": ["+experiment=shapes_negclip"],
    "lora": ["model.train=lora:text"],
}


def launch(folder: Path, words: list[str], ranks: int) -> tuple[list[int | None], str]:
    """Run `clic-train` on gloo ranks, as torchrun does; return exit codes and all output."""
    given = ("clic.cli.train", words)
    return forked.finish(forked.start_ranks(forked.command, given, folder, ranks))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_ranks_train_what_one_trains(
    tmp_path: Path,
    tiny: Path,
    tiny_words: list[str],
    settings: Callable[..., Config],
    objective: str,
) -> None:
    if objective == "lora":
        pytest.importorskip("peft")
    words = [
        *OBJECTIVES[objective],
        *(word for word in tiny_words if not word.startswith("train.batch_size")),
        "train.max_steps=4",
        "train.save_every=2",
        # With Adam's usual epsilon a gradient that is zero but for rounding makes a whole step.
        "optim.eps=1e-2",
        "optim.lr=1e-2",
    ]
    both = [*words, "train.batch_size=8", "train.run_name=two"]
    codes, output = launch(tmp_path, both, ranks=2)
    assert codes == [0, 0], output
    assert output.count("finished runs/two") == 1
    train(settings(*words, "train.batch_size=16", "train.run_name=one"))
    one, two = (load_file(tmp_path / "runs" / name / WEIGHTS) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    moved = max(
        (one[name] - value).abs().max()
        for name, value in load_file(tiny / runs.OPEN_CLIP_WEIGHTS).items()
    )
    assert moved > 1e-4
    records = [read(tmp_path / "runs" / name / runs.METRICS_FILE) for name in ("one", "two")]
    for first, second in zip(*records, strict=True):
        assert first["step"] == second["step"]
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)

    if objective == "clic":  # a run of two ranks is not continued by one
        start = tmp_path / "runs" / "two" / "checkpoints" / "step-000002"
        with pytest.raises(ConfigError, match="number of ranks 2 and cannot be resumed with 1"):
            train(settings(*words, "train.batch_size=8", f"train.resume={start}"))
        # Where that is allowed, one rank with the whole batch goes on as the two would have.
        allowed = ["train.batch_size=16", "data.allow_reorder=true", "train.run_name=after"]
        after = train(settings(*words, *allowed, f"train.resume={start}"))
        for name, value in load_file(after / WEIGHTS).items():
            torch.testing.assert_close(value, one[name], rtol=1e-4, atol=1e-5, msg=name)
        assert [record["step"] for record in read(after / runs.METRICS_FILE)] == [3, 4]


FAILURE = """
import sys
from pathlib import Path
import time
import torch
from clic import distributed, heartbeat
from clic.cli.common import run_cli
from clic.errors import ConfigError

def stop_late(self, stop=heartbeat.Heartbeat.stop):
    time.sleep(float(sys.argv[3]) * (self.rank > 0))
    stop(self)

heartbeat.Heartbeat.stop = stop_late
line = " ".join(["the", "one", "line"])

def body():
    with distributed.process_group(torch.device("cpu")):
        distributed.barrier()
        if distributed.rank() == int(sys.argv[1]):
            raise (ValueError if sys.argv[2] == "bug" else ConfigError)(line)
        if sys.argv[2] == "both":
            raise ConfigError(line)
        distributed.all_reduce_sum(torch.ones(3))

run_cli("clic-train", body)
"""


@pytest.mark.parametrize(
    ("rank", "kind", "code"),
    [(0, "mistake", 2), (1, "mistake", 2), (0, "bug", 1), (1, "bug", 1), (0, "both", 2)],
)
def test_the_rank_that_fails_speaks_alone(tmp_path: Path, rank: int, kind: str, code: int) -> None:
    """The others' broken connections are no news, nor is the same mistake once more."""
    check_one_speaks(tmp_path, [str(rank), kind, "0"], code)


def test_ranks_that_take_long_to_leave_say_nothing(tmp_path: Path) -> None:
    """Rank 0, whose store they still use, waits for them, as on a machine that is busy."""
    check_one_speaks(tmp_path, ["0", "mistake", "5"], 2)


def check_one_speaks(folder: Path, words: list[str], code: int) -> None:
    """In processes that end as Python does, which forked ones do not."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FAILURE, *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for env in forked.torchrun(3)
    ]
    output = "\n".join(process.communicate(timeout=forked.HANG)[0] for process in processes)
    codes = [process.returncode for process in processes]
    assert codes == [code] * 3, output
    assert output.count("the one line") == 1, output
    if "bug" in words:
        assert output.count("Traceback") == 1
    else:
        assert [x for x in output.splitlines() if x.strip()] == ["clic-train: error: the one line"]


def test_a_mistake_that_rank_0_alone_sees_is_the_only_line(
    tmp_path: Path, tiny_words: list[str]
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    codes, output = launch(tmp_path, [*tiny_words, "train.run_name=mine"], ranks=2)
    assert codes == [2, 2], output
    (line,) = [x for x in output.splitlines() if x.strip() and not x.startswith("loading ")]
    assert line.startswith("clic-train: error: train.run_name=mine") and "exists" in line


LOST = """
import os, signal, sys
import torch
from clic import distributed, heartbeat
from clic.cli.common import run_cli

heartbeat.PERIOD = 0.5

def body():
    with distributed.process_group(torch.device("cpu"), timeout_minutes=30.0):
        distributed.barrier()
        if distributed.rank() == int(sys.argv[1]):
            os.kill(os.getpid(), int(sys.argv[2]))
        distributed.all_reduce_sum(torch.ones(3))

run_cli("clic-train", body)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_lost_rank_ends_the_others_with_one_line(
    tmp_path: Path, rank: int, number: signal.Signals
) -> None:
    """The collective itself would wait for half an hour."""
    given = (LOST, [str(rank), str(int(number))])
    processes = forked.start_ranks(forked.code, given, tmp_path, ranks=3)
    others = [process for other, process in enumerate(processes) if other != rank]
    try:
        outputs = [process.communicate()[0] for process in others]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode in (1, 2) for process in others), outputs
    lines = [line for line in "".join(outputs).splitlines() if "error: " in line]
    assert len(lines) == 1, outputs
    assert f"rank {rank}" in lines[0] and "no sign of life" in lines[0]
    if rank:  # rank 0's place is unknown where the store has gone with it
        assert f"process {processes[rank].pid})" in lines[0]
    assert "Traceback" not in "".join(outputs)


def test_ranks_that_work_for_long_are_not_lost(tmp_path: Path) -> None:
    """They show signs of life, though one waits for the other for many periods."""
    words = ("os.kill(os.getpid(), int(sys.argv[2]))", "import time; time.sleep(15)")
    given = (LOST.replace(*words), ["1", "0"])
    codes, output = forked.finish(forked.start_ranks(forked.code, given, tmp_path, ranks=2))
    assert codes == [0, 0] and not output.strip(), output
