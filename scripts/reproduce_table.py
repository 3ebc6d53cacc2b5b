"""Evaluate published checkpoints, and compare their scores with each other and the papers'."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HUB = "hf-hub:nmndeep"
"""Where the authors of CLIC share their checkpoints, in open_clip's format."""
MODELS = (
    "ViT-B-32:openai", "ViT-B-16:openai", "ViT-L-14:openai",
    f"{HUB}/CLIC-ViT-B-32-224-CogVLM", f"{HUB}/CLIC-ViT-B-32-224-PixelProse",
    f"{HUB}/CLIC-ViT-B-16-224-CogVLM", f"{HUB}/CLIC-ViT-L-14-224-CogVLM",
    f"{HUB}/CLIC-CLIPA-ViT-L-14-224-CogVLM", f"{HUB}/CLIC-CLIPS-ViT-L-14-224-CogVLM",
)  # fmt: skip
BENCH = "sugarcrepe++,sugarcrepe,coco2017-retrieval,imagenet"
REPORT, PUBLISHED = "report.json", "published.txt"


def main(words: Sequence[str]) -> int:
    """Evaluate, print and compare; return 2 if no model could be evaluated."""
    flags, extra = parse(words)
    finished, missing = [], []
    for model in flags.models or MODELS:
        name, _, source = model.rpartition("=") if "=" in model else (model, "", model)
        folder = flags.out / re.sub(r"[^A-Za-z0-9._-]", "_", name)
        scored = score(source, folder, flags, extra)
        (finished if scored else missing).append(folder if scored else model)
    if missing:
        print(f"left out, see above: {' '.join(map(str, missing))}", file=sys.stderr)
    if not finished:
        print(f"error: none of the {len(missing)} models could be evaluated", file=sys.stderr)
        return 2
    if len(finished) == 1:
        return 0
    compared = ["--compare", *map(str, finished), "--bench", flags.bench]
    return run([*compared, "--out", str(flags.out / "table")]).returncode


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags, and the words after ``--``, which go to every evaluation."""
    words, extra = list(words), []
    if "--" in words:
        at = words.index("--")
        words, extra = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(prog="reproduce_table.sh", description=__doc__)
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="*", help="as clic-eval takes it, or NAME=MODEL "
        "(default: OpenAI's and CLIC's)")  # fmt: skip
    add("--data", help="folder of the benchmarks' files (default: CLIC_DATA, then ./data)")
    add("--bench", default=BENCH, help=f"benchmarks ({BENCH})")
    add("--out", type=Path, default=Path("results/published"), help="folder of the results")
    return parser.parse_args(words), extra


def score(model: str, folder: Path, flags: argparse.Namespace, extra: Sequence[str]) -> bool:
    """Evaluate a model, unless its results exist; return False if that is not possible."""
    lines = folder / PUBLISHED
    if not (lines.is_file() and (folder / REPORT).is_file()):
        words = ["--model", model, "--bench", flags.bench, "--published", "--out", str(folder)]
        words += [] if flags.data is None else ["--data", flags.data]
        done = run([*words, *extra], stdout=subprocess.PIPE)
        if done.returncode:
            return False
        lines.write_text(done.stdout, encoding="utf-8")
    print(lines.read_text(encoding="utf-8"), end="", flush=True)
    return True


def run(words: Sequence[str], stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run `clic-eval`; its errors are shown, and the caller handles its exit code."""
    command = [sys.executable, "-m", "clic.cli.eval", *words]
    return subprocess.run(command, stdout=stdout, text=True, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
