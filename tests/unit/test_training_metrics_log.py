"""`metrics.jsonl` and the console."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clic.config import WandbConfig
from clic.training.metrics_log import MetricsLog, read


def open_log(path: Path, start: int = 0, stop: int = 20) -> MetricsLog:
    return MetricsLog(path, start, stop, WandbConfig(), "run", {})


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
    assert f"{path}: 1 of its lines cannot be read" in capsys.readouterr().out
    log.log({"step": 5, "loss": 1.0})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_bytes().splitlines()] == [1, 2, 4, 5]
