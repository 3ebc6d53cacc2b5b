"""The line on a terminal, and the table of where the time went."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from clic.config.train_settings import Config
from clic.training import train
from clic.training.metrics_log import MetricsLog
from clic.training.profiling import MEASURED, SKIPPED, STAGES, StepProfiler
from clic.training.progress import ProgressLine, clock

RECORD = {
    "step": 120, "loss": 1.23456, "composite/hard_negative": 0.51239, "data_wait": 0.1249,
    "images_per_second": 1234.5, "peak_memory_gb": 3.21,
}  # fmt: skip


def line_of(width: int, stop: int = 300, epoch: int = 100) -> ProgressLine:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    return ProgressLine(0, stop, epoch, console)


def test_the_line_says_it_all_within_its_width() -> None:
    line = line_of(200)
    line.record(RECORD)
    line.step(120)
    said = line.line(240.0, 200).plain
    assert said == (
        "120/300  ━━━━──────  epoch 2/3  loss 1.235  hard 0.5124  1,234 images/s  data 12%  "
        "3.2 GB  6:00 left"
    )
    assert line.line(240.0).plain == (
        "120/300  epoch 2/3  loss 1.235  1,234 images/s  data 12%  3.2 GB  6:00 left"
    )
    assert line.line(240.0, 50).plain == "120/300  loss 1.235  1,234 images/s  6:00 left"
    assert line.line(240.0, 5).plain == "120/300"
    for width in range(8, 120):
        assert len(line.line(240.0, width).plain) <= max(width, 7)
    line.close()


def test_before_the_first_record() -> None:
    line = line_of(80, stop=10, epoch=10)
    assert re.fullmatch(r" 0/10  ─{10}  \d+\.\d GB", line.line(0.0).plain)
    line.close()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (47 * 3600, "47:00:00"), (176400, "2d 1h")],
)
def test_a_time(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


class Waiting:
    """Batches that take three quarters of the time."""

    def __init__(self, now: list[float]) -> None:
        self.now, self.step = now, -1

    def __iter__(self) -> Waiting:
        return self

    def __next__(self) -> Any:
        self.now[0] += 3.0
        self.step += 1
        return type("Batch", (), {"step": self.step})()


def test_the_share_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("clic.training.metrics_log.time.monotonic", lambda: now[0])
    log = MetricsLog(tmp_path / "m.jsonl", 0, 10)
    for batch in log.watch(Waiting(now)):
        now[0] += 1.0
        if batch.step in (4, 9):
            log.log({"step": batch.step + 1, "loss": 1.0, "images_per_second": 4.0})
        if batch.step == 4:
            now[0] += 50.0  # an evaluation, which is no training time
            log.pause(50.0)
        if batch.step == 9:
            break
    log.close()
    records = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    # The wait for the first batch, in which processes start, does not count.
    assert [record["data_wait"] for record in records] == [pytest.approx(12 / 17), 0.75]


@pytest.mark.slow
def test_a_run_on_a_terminal_of_80_columns(tmp_path: Path, tiny_words: list[str]) -> None:
    main, side = pty.openpty()
    words = [*tiny_words, "train.max_steps=8", f"train.runs_dir={tmp_path}", "data.workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clic.cli.train", *(w for w in words if w != "data.workers=0")],
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm", "OMP_NUM_THREADS": "1"},
    )
    os.close(side)
    output = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # the terminal has been closed
            break
        if not part:
            break
        output += part
    assert process.wait(120) == 0, output.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    lines = [piece for line in plain.split("\n") for piece in line.split("\r")]
    drawn = [line.rstrip() for line in lines if re.match(r"\d/8  ", line)]
    assert drawn and all(len(line) <= 80 for line in drawn)
    assert re.match(r"8/8  .*loss \d.*images/s  data \d+%  .*GB  0:00 left", drawn[-1])
    assert "finished" in plain


def test_without_a_terminal_there_are_plain_lines(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings("train.max_steps=2"))
    out = capsys.readouterr().out
    assert "step 2/2  loss" in out and "\x1b" not in out


# --- where the time goes -------------------------------------------------------------------------


def test_the_table_adds_up(tmp_path: Path) -> None:
    told: list[str] = []
    profiler = StepProfiler(torch.device("cpu"), tmp_path / "profile", told.append)
    scale = profiler.turning(lambda loss: loss)

    def items() -> Any:
        for number in range(SKIPPED + MEASURED + 2):
            time.sleep(0.002)
            yield number

    for _ in profiler.waiting(items()):
        with profiler.stage("forward and loss"):
            product = torch.ones(200, 200) @ torch.ones(200, 200)
            scale(product)
            time.sleep(0.002)
        profiler.end_step()
    profiler.close()
    (said,) = told
    table = (tmp_path / "profile" / "profile.txt").read_text()
    assert said.startswith(table.rstrip("\n")) and (tmp_path / "profile/trace.json.gz").is_file()
    shares = {
        name: float(re.search(rf"^{re.escape(name)} .* ([\d.]+)%$", table, re.M)[1])  # type: ignore[index]
        for name in (*STAGES, "all")
    }
    assert sum(shares[name] for name in STAGES) == pytest.approx(100, abs=0.5)
    assert shares["waiting for data"] > 10 and shares["backward"] > 10
    assert shares["update"] == 0 and shares["all"] == 100
    assert "aten::mm" in table


def test_a_run_too_short_for_a_profile_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    profiler = StepProfiler(torch.device("cpu"), tmp_path / "profile", told.append)
    profiler.end_step()
    profiler.close()
    assert told == ["train.profile=true: no table, as 1 of 13 steps were made"]
    assert not (tmp_path / "profile").exists()


def test_a_profiled_run_trains_the_same_weights(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train.max_steps=15", "train.log_every=5")
    plain = train(settings(*words, "train.run_name=plain"))
    run = train(settings(*words, "train.run_name=profiled", "train.profile=true"))
    out = capsys.readouterr().out
    assert "ms a step" in out and "backward" in out and f"{run / 'profile'} has this table" in out
    weights = [path / "model" / "open_clip_model.safetensors" for path in (plain, run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
