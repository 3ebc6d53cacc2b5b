"""`metrics.jsonl` and the console."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clic.training import metrics_log
from clic.training.metrics_log import Averages, MetricsLog, read


def open_log(path: Path, start: int = 0, stop: int = 20) -> MetricsLog:
    return MetricsLog(path, start, stop)


def lines_of(*steps: int) -> bytes:
    return b"".join(json.dumps({"step": n, "loss": n / 2}).encode() + b"\n" for n in steps)


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"step": 3, "lo',
        b"\x00\x00\x00\x00\n",
        b"\xff\xfe garbage \x80\n",
        b"[1, 2]\n",
        b"17\n",
        b'{"loss": 1.0}\n',
        b'{"step": null}\n',
    ],
)
def test_garbage_in_the_metrics_is_left_out_and_said(
    tmp_path: Path, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines_of(1, 2) + garbage.rstrip(b"\n") + b"\n" + lines_of(4, 6))
    assert [record["step"] for record in read(path)] == [1, 2, 4, 6]
    log = open_log(path, start=4)
    assert f"{path}: removed 1 line(s) that cannot be read" in capsys.readouterr().out
    log.log({"step": 5, "loss": 1.0})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_bytes().splitlines()] == [1, 2, 4, 5]


# --- the console ---------------------------------------------------------------------------------


def scores(*benches: str) -> dict[str, float]:
    names = ("itt", "tot", "p1", "n")
    groups = ("swap_att", "swap_obj", "replace_att", "replace_obj", "replace_rel", "mean")
    return {f"{b}/{g}/{n}": 12.345678 for b in benches for g in groups for n in names}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (scores("shapes++"), "step  4/20  shapes++ itt 12.35 tot 12.35 p1 12.35"),
        (
            {f"r/{way}@{k}": 1.0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
            | {"r/n_images": 500},
            "step  4/20  r image_to_text@1 1 text_to_image@1 1",
        ),
        ({f"z/{name}": 9.0 for name in "abcdef"} | {"z/n": 3}, "step  4/20  z a 9 b 9 c 9 d 9"),
        ({"score": 1.0}, "step  4/20  score 1"),
    ],
    ids=["triplets", "retrieval", "classes", "one"],
)
def test_an_evaluation_is_a_short_line(
    tmp_path: Path, record: dict[str, float], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path / "metrics.jsonl")
    log.log({"step": 4, **record})
    log.close()
    assert capsys.readouterr().out == f"{line}\n"
    (kept,) = read(tmp_path / "metrics.jsonl")
    assert record.items() <= kept.items()


def batch(step: int) -> Any:
    return SimpleNamespace(step=step)


def test_the_first_step_and_long_steps_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now[0])
    log = open_log(tmp_path / "metrics.jsonl", start=5)
    for _ in log.watch(batch(step) for step in range(5, 13)):
        now[0] += 25
    log.close()
    assert capsys.readouterr().out.splitlines() == [
        "the first step took 25.0 s",
        "done 9/20 steps, 25 s each",
        "done 12/20 steps, 25 s each",
    ]


def test_steps_with_records_of_their_own_are_not_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now[0])
    log = open_log(tmp_path / "metrics.jsonl")
    for given in log.watch(map(batch, range(3))):
        now[0] += 100
        log.log({"step": given.step + 1, "loss": 1.0})
    log.close()
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["step", f"{step}/20"] for step in (1, 2, 3)
    ]


def test_averages() -> None:
    averages = Averages()
    assert averages.means() == {}
    averages.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    averages.add({"a": torch.tensor(2.0)})
    assert averages.means() == {"a": 1.5, "b": 5.0} == averages.means()
    averages.clear()
    assert averages.means() == {}


def test_averages_leave_out_what_is_not_finite() -> None:
    averages = Averages()
    for value in (1.0, math.nan, math.inf, 2.0, -math.inf):
        averages.add({"a": torch.tensor(value), "never": torch.tensor(math.nan)})
    assert averages.means() == {"a": 1.5}


def test_records_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.1 * step}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(lines) + '\n{"step": 5, "lo')  # a kill in the middle of a line
    log = MetricsLog(path, 2, 9)
    assert [r["step"] for r in read(path)] == [1, 2]
    log.log({"step": 3, "loss": 0.5})
    log.close()
    assert [(r["step"], r["loss"]) for r in read(path)] == [(1, 0.1), (2, 0.2), (3, 0.5)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_console_line_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", 0, 300)
    log.log({"step": 10, "loss": 1.23456, "lr": 1e-6, "composite/unimodal": 3.0})
    log.log({"step": 10, "shapes++/mean/itt": 51.0})
    log.close()
    assert capsys.readouterr().out.splitlines() == [
        "step  10/300  loss 1.235  lr 1e-06",
        "step  10/300  shapes++ itt 51",
    ]
