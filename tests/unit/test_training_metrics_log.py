"""`metrics.jsonl` and the console."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clic.training import metrics_log
from clic.training.metrics_log import MetricsLog, read


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
