"""`clic-eval --bench sugarcrepe++` from real annotations and small images to numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ANNOTATIONS = os.environ.get("CLIC_TEST_DATA")
ROWS = 30
Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    ANNOTATIONS is None, reason="CLIC_TEST_DATA does not name a folder with real annotations"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The first rows of each real annotation file, and no images."""
    folder = tmp_path / "data" / "sugarcrepe_pp"
    folder.mkdir(parents=True)
    for file in sorted((Path(str(ANNOTATIONS)) / "sugarcrepe_pp").glob("*.json")):
        (folder / file.name).write_text(json.dumps(json.loads(file.read_text())[:ROWS]))
    return tmp_path / "data"


@pytest.fixture
def clic_eval(tmp_path: Path) -> Command:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clic.cli.eval", "--model", "shapes-base", *words]
        environment = {k: v for k, v in os.environ.items() if k not in ("CLIC_DATA", "WORLD_SIZE")}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )

    return call


def make_images(data: Path) -> None:
    """Write a small JPEG, in landscape and portrait, for each image that a row names."""
    folder = data / "coco" / "val2017"
    folder.mkdir(parents=True)
    for file in (data / "sugarcrepe_pp").glob("*.json"):
        for row in json.loads(file.read_text()):
            seed = zlib.crc32(row["filename"].encode())
            shape = (48, 64, 3) if seed % 2 else (64, 48, 3)
            pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / row["filename"])


def test_with_images(clic_eval: Command, data: Path, tmp_path: Path) -> None:
    make_images(data)
    done = clic_eval("--bench", "sugarcrepe++", "--json", "out.json", "--rows", "rows.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "replace_att" in done.stdout
    form = json.loads((tmp_path / "out.json").read_text())
    numbers = form["benchmarks"]["sugarcrepe++"]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert numbers["mean"]["n"] == len(rows) == 5 * ROWS
    for name in ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj"):
        mine = [row for row in rows if row["category"] == name]
        for metric in ("itt", "tot", "p1"):
            assert numbers[name][metric] == 100 * sum(row[metric] for row in mine) / ROWS
    assert len(form["model"]["weights_sha256"]) == 64
    assert form["provenance"]["device"]


def test_without_images(clic_eval: Command, data: Path) -> None:
    done = clic_eval("--bench", "sugarcrepe++", "--data", str(data))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("clic-eval: error: sugarcrepe++: ")
    assert str(data / "coco" / "val2017") in done.stderr
    assert f"get it with: clic-data fetch sugarcrepe++ --data {data}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "score the captions alone with clic-eval --text-only" in done.stderr


def test_the_captions_alone(clic_eval: Command, data: Path, tmp_path: Path) -> None:
    done = clic_eval("--bench", "sugarcrepe++", "--text-only", "--json", "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "note: sugarcrepe++: left out, ITT and P1: text_only leaves images out" in done.stdout
    numbers = json.loads((tmp_path / "out.json").read_text())["benchmarks"]["sugarcrepe++"]
    assert set(numbers["mean"]) == {"tot", "n"}
    assert numbers["mean"]["n"] == 5 * ROWS
