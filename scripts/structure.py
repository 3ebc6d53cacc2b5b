"""Measure how large the package is and how many files its main paths pass, for comparison.

    python scripts/structure.py            # of this checkout
    python scripts/structure.py --files    # also name the files of each walk

Static counts come from the source: files, lines, and class and file names that occur more than
once. The walks are measured by running them and recording every file in which a function runs: a
batch of composites from the shards to its loss, and the captions of a benchmark to their score.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "clic"
COMMANDS = PACKAGE / "cli"


def main() -> None:
    """Print the counts, and the files of each walk if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="name the files of each walk")
    parser.add_argument("--static", action="store_true", help="leave out the walks")
    flags = parser.parse_args()
    for name, value in static_counts().items():
        print(f"{name:<44} {value}")
    if flags.static:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        for name, walk in (
            ("files a composite passes, shard to loss", composite_walk),
            ("files a caption passes in evaluation", caption_walk),
        ):
            files = walk(Path(folder))
            print(f"{name:<44} {len(files)}")
            if flags.files:
                print("".join(f"    {file}\n" for file in sorted(files)), end="")


def static_counts() -> dict[str, Any]:
    """Return the counts that need nothing to run."""
    sources = {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    lines = sum(len(text.splitlines()) for text in sources.values())
    classes = Counter(
        node.name
        for text in sources.values()
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    names = Counter(
        path.name
        for path in sources
        if not path.name.startswith("__") and COMMANDS not in path.parents
    )
    return {
        "files": len(sources),
        "lines": lines,
        "lines a file": round(lines / len(sources)),
        "class names that stand more than once": _repeated(classes),
        "file names that stand more than once": _repeated(names),
    }


def _repeated(counts: Counter[str]) -> str:
    several = sorted(name for name, count in counts.items() if count > 1)
    return f"{len(several)}{' (' + ', '.join(several) + ')' if several else ''}"


def composite_walk(folder: Path) -> set[str]:
    """Return the files that run from one optimizer step on composites to the next loss."""
    import torch

    from clic.cli.data import main as data_main
    from clic.cli.train import main as train_main

    run(data_main, "shapes", str(folder / "shards"), "--objects", "1", "--count", "64")
    recorder = Recorder()
    steps = 0
    step, backward = torch.optim.AdamW.step, torch.Tensor.backward

    def stopping(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        recorder.on = False
        backward(self, *args, **kwargs)

    def counted(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        recorder.on = steps == 2  # from the third batch on, after one-time work
        return step(self, *args, **kwargs)

    torch.optim.AdamW.step = counted  # type: ignore[method-assign]
    torch.Tensor.backward = stopping  # type: ignore[assignment,method-assign]
    try:
        with recorder.watching():
            run(
                train_main,
                "+experiment=shapes",
                "data=shards",
                f"data.shards={folder / 'shards'}",
                "data.workers=0",
                "sampling.kinds=composite",
                "loss.single=clip",
                "train.batch_size=8",
                "train.max_steps=3",
                f"train.runs_dir={folder / 'runs'}",
            )
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    return recorder.files


def caption_walk(folder: Path) -> set[str]:
    """Return the files that run while SugarCrepe++ is scored on captions alone."""
    import clic

    rows = [
        {
            "filename": f"{number:012d}.jpg",
            "caption": f"a red cat number {number} beside a blue dog",
            "caption2": f"a blue dog beside the red cat number {number}",
            "negative_caption": f"a blue cat number {number} beside a red dog",
        }
        for number in range(4)
    ]
    place = folder / "data" / "sugarcrepe_pp"
    place.mkdir(parents=True)
    for name in ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj"):
        (place / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    model = TextOnly(clic.load("shapes-base"))
    recorder = Recorder()
    with recorder.watching(), quiet():
        for recorder.on in (False, True):  # off at first, to leave out what runs on import
            clic.evaluate(model, ["sugarcrepe++"], data_root=str(folder / "data"))
    return recorder.files


class TextOnly:
    """A model that exposes only its text tower."""

    def __init__(self, model: Any) -> None:
        self.encode_text: Callable[..., Any] = model.encode_text


class Recorder:
    """Records every file of the package in which a function is called while `on` is set."""

    def __init__(self) -> None:
        self.on = False
        self.files: set[str] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this thread, and those that start in the meantime."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if self.on and event == "call":
            file = frame.f_code.co_filename
            if file.startswith(str(PACKAGE)):
                self.files.add(str(Path(file).relative_to(ROOT)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress terminal output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def run(command: Callable[..., Any], *words: str) -> None:
    """Run one of the commands in this process, quietly."""
    before = sys.argv
    sys.argv = ["clic", *words]
    try:
        with quiet(), contextlib.suppress(SystemExit):
            command()
    finally:
        sys.argv = before


if __name__ == "__main__":
    main()
