"""The benchmark of large indexes, on a small one."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "index_scale.py"


def test_what_the_benchmark_makes_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.data.shards.merged_index.IN_MEMORY", 0)
    script = runpy.run_path(str(SCRIPT))
    (tmp_path / "shards").mkdir()
    script["make"](tmp_path / "shards", 4, 100)
    source, sampler, wall, cpu = script["opened"](tmp_path / "shards", tmp_path / "cache")
    assert len(source) == 400 and sampler.steps_per_epoch() == 2
    assert source.index.locate(205).key == "000020005"
    assert 0 < cpu < 60 and wall > 0
    resident, shared = script["memory"](os.getpid())
    assert resident >= shared > 10
