"""Run the GPU-marked tests and time ViT-B/32 training; called by gpu_check.sh."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import torch

CHECKOUT = Path(__file__).resolve().parents[1]
BATCH_SIZE = 200
STEPS = 30
WARM_UP = 10  # steps left out of the timing


def main() -> int:
    """Write the JSON file named on the command line; return 0 if all went well, else 1."""
    out = Path(sys.argv[1])
    report: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as scratch:
        report["tests"] = run_tests(Path(scratch))
        report["training"] = time_training(Path(scratch))
    report["ok"] = report["tests"]["ok"] and report["training"]["ok"]
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(json.dumps(report, indent=2))
    print(f"gpu_check: {'all well' if report['ok'] else 'FAILED'}, written to {out}")
    return 0 if report["ok"] else 1


def machine() -> dict[str, Any]:
    """Return the properties of the machine that the numbers depend on."""
    commit = subprocess.run(
        ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "gpu": torch.cuda.get_device_name(),
        "gpus": torch.cuda.device_count(),
        "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def run_tests(scratch: Path) -> dict[str, Any]:
    """Run the tests marked ``gpu``; only files that contain one are imported."""
    tests = CHECKOUT / "tests"
    files = [str(p) for p in sorted(tests.rglob("test_*.py")) if "mark.gpu" in p.read_text("utf-8")]
    junit = scratch / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--rootdir", str(CHECKOUT)]
    command += ["-c", str(CHECKOUT / "pyproject.toml"), "-p", "no:cacheprovider"]
    started = time.monotonic()
    done = subprocess.run([*command, f"--junit-xml={junit}", *files], cwd=scratch)
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if junit.is_file():
        for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
            counts = {name: int(suite.get(name, 0)) for name in counts}
    return {
        "ok": done.returncode == 0 and counts["tests"] > counts["skipped"],
        **counts,
        "exit_code": done.returncode,
        "seconds": round(time.monotonic() - started, 1),
    }


def time_training(scratch: Path) -> dict[str, Any]:
    """Train ViT-B/32 briefly with CLIC's recipe, from random weights, on the shapes world."""
    words = [
        "+experiment=vitb32",
        "data=shapes",
        "model.pretrained=null",
        "captions.tagger=stored",  # tagging inline would time the loader
        f"train.max_steps={STEPS}",
        f"train.batch_size={BATCH_SIZE}",
        "train.log_every=1",
        "train.save_every=0",
        f"data.workers={min(8, os.cpu_count() or 1)}",
        "train.run_name=timing",
    ]
    code = "from clic.cli.train import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=scratch)
    report: dict[str, Any] = {"ok": False, "command": " ".join(["clic-train", *words])}
    if done.returncode:
        return report | {"exit_code": done.returncode}
    lines = (scratch / "runs" / "timing" / "metrics.jsonl").read_text("utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if "images_per_second" in record]
    timed = steps[WARM_UP:]
    if not timed:
        return report | {"steps": len(steps)}
    return report | {
        "ok": True,
        "batch_size": BATCH_SIZE,
        "steps": len(steps),
        "images_per_second": median(record["images_per_second"] for record in timed),
        "peak_memory_gb": max(record["peak_memory_gb"] for record in timed),
    }


if __name__ == "__main__":
    sys.exit(main())
