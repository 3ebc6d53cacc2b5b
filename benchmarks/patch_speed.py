"""Patching two models: streaming, against loading both from pickles, averaging and saving.

    python benchmarks/patch_speed.py --model ViT-B-32
    python benchmarks/patch_speed.py --model ViT-L-14 --mergekit VENV/bin/python
    python benchmarks/patch_speed.py --sweep

Each way runs in its own process, in turn with the others, on the same pair of random models:
`pickles` is torch.load of both, the formula for every tensor and torch.save; `clic` is clic.patch,
which also checks for NaN, hashes both inputs and leaves equal tensors alone; `unhashed` is the same
without the hashes, and `hashes` only reads and hashes both inputs; `mergekit` is the linear merge
of `mergekit-pytorch`, installed elsewhere, on the same safetensors files (its other command, for
Hugging Face models, does not accept a CLIPModel: version 0.1.5). The results are medians of wall
time, CPU time and peak RssAnon above that of a process with torch imported, all without the
imports. The outputs are compared with the formula, element by element. CPU time is the sum of user
and system time; system time depends on how much memory is free for the files, so user time is shown
beside it.

`--sweep` scores five alphas of a pair with equal vision towers on a handful of rows, so that little
of the time is encoding: in place, against writing and loading a model for each alpha.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

ALPHA = 0.3
WEIGHTS = "open_clip_model.safetensors"
PICKLE = "weights.pt"
POLL = 0.01  # seconds


def make_pair(model: str, folder: Path) -> None:
    """Write two random models in the formats of all ways; the second one's text tower differs."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    built = open_clip.create_model(model)
    config = {
        "model_cfg": open_clip.get_model_config(model),
        "preprocess_cfg": dict(built.visual.preprocess_cfg),
    }
    base = {name: value.contiguous() for name, value in built.state_dict().items()}
    del built
    generator = torch.Generator().manual_seed(1)
    for name in ("base", "tuned"):
        (folder / name).mkdir()
        save_file(base, folder / name / WEIGHTS)
        torch.save(base, folder / name / PICKLE)
        (folder / name / "open_clip_config.json").write_text(json.dumps(config))
        for key, value in base.items():
            if value.is_floating_point() and not value.isinf().any():
                base[key] = value + 0.01 * torch.randn(value.shape, generator=generator)


def equal_vision(folder: Path) -> None:
    """Give the second model the vision tower of the first."""
    from safetensors.torch import load_file, save_file

    base, tuned = (load_file(folder / name / WEIGHTS) for name in ("base", "tuned"))
    mixed = {name: (base if name.startswith("visual.") else tuned)[name].clone() for name in base}
    (folder / "tuned" / WEIGHTS).unlink()  # the tensors that were read are mapped from it
    save_file(mixed, folder / "tuned" / WEIGHTS)


# The ways, each of which runs in its own process


def by_pickles(folder: Path, out: Path) -> Callable[[], None]:
    """Load both, average, save."""

    def work() -> None:
        base, tuned = (
            torch.load(folder / name / PICKLE, weights_only=True) for name in ("base", "tuned")
        )
        mixed = {name: (1 - ALPHA) * base[name] + ALPHA * tuned[name] for name in base}
        torch.save(mixed, out)

    return work


def by_clic(folder: Path, out: Path) -> Callable[[], None]:
    """Return clic.patch."""
    from clic import patching

    return lambda: [None, patching.patch(folder / "base", folder / "tuned", ALPHA, out)][0]


def by_blending(folder: Path, out: Path) -> Callable[[], None]:
    """Return clic.patch without the hashes: only the file of weights."""
    from clic.patching.blending import write_blend
    from clic.patching.tensor_files import open_tensors

    def work() -> None:
        paths = ([folder / name / WEIGHTS] for name in ("base", "tuned"))
        with open_tensors(next(paths)) as base, open_tensors(next(paths)) as tuned:
            base.hashing = tuned.hashing = False
            write_blend(base, tuned, dict.fromkeys(base.layout, ALPHA), out)

    return work


def by_hashes(folder: Path, out: Path) -> Callable[[], None]:
    """Return a function that only reads and hashes both inputs."""
    from clic.io.files import file_sha256

    return lambda: [None, *(file_sha256(folder / name / WEIGHTS) for name in ("base", "tuned"))][0]


def by_mergekit(folder: Path, out: Path) -> Callable[[], None]:
    """Return mergekit's linear merge, as the command `mergekit-pytorch` does it."""
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge

    sources = (("base", 1 - ALPHA), ("tuned", ALPHA))
    models = [
        {"model": str(folder / name / WEIGHTS), "parameters": {"weight": weight}}
        for name, weight in sources
    ]
    settings = {"merge_method": "linear", "dtype": "float32", "models": models}
    config = RawPyTorchMergeConfig.model_validate(settings)
    options = MergeOptions(quiet=True)

    def work() -> None:
        tasks = plan_flat_merge(config, str(out), False, False, options)
        Executor(tasks, math_device="cpu", storage_device="cpu").execute()

    return work


def by_place(folder: Path, out: Path) -> Callable[[], None]:
    """Return a sweep of five alphas in place."""
    import clic

    _few_rows()
    pair = folder / "base", folder / "tuned"
    words = {"bench": ["shapes++"], "cache": False}
    return lambda: [None, clic.sweep(*pair, "0:1:0.25", **words)][0]


def by_folders(folder: Path, out: Path) -> Callable[[], None]:
    """Return the same sweep with a model written and loaded for each alpha."""
    from clic import evaluation, models, patching

    _few_rows()
    plan = evaluation.prepare(["shapes++"])

    def work() -> None:
        from clic.models import encoder

        for number in range(5):
            model = patching.patch(folder / "base", folder / "tuned", number / 4, out)
            evaluation.run(encoder.load(str(model)), plan)

    assert models
    return work


def _few_rows() -> None:
    from clic import shapes

    shapes.triplets = partial(shapes.triplets, per_category=1)


WAYS = {
    "pickles": by_pickles,
    "clic": by_clic,
    "unhashed": by_blending,
    "hashes": by_hashes,
    "mergekit": by_mergekit,
    "in place": by_place,
    "by folders": by_folders,
}


def child(way: str, folder: Path, out: Path) -> None:
    """Do the work of one way and print its times and when it began."""
    work = WAYS[way](folder, out)
    print("ready", flush=True)
    sys.stdin.readline()
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    times = {"wall": wall, "cpu": user + system, "user": user}
    print(json.dumps(times), flush=True)


def anonymous(process: int) -> float:
    """Return a process's RssAnon in MB, or 0 if it has exited."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    lines = [line for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def with_torch() -> float:
    """Return the RssAnon of an interpreter that has imported torch."""
    code = "import sys, torch; print('ready', flush=True); sys.stdin.readline()"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        found = anonymous(process.pid)
        process.stdin.write("go\n")
        process.stdin.close()
        return found


def measure(way: str, folder: Path, out: Path, python: str, bare: float) -> dict[str, float]:
    """Run one way in its own process, and watch its memory from here."""
    words = [python, __file__, "--child", way, str(folder), str(out)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin and process.stdout
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{way} could not start; try {' '.join(words)}")
        process.stdin.write("go\n")
        process.stdin.flush()
        peak = 0.0
        os.set_blocking(process.stdout.fileno(), False)
        while not (line := process.stdout.readline()):
            if process.poll() is not None:
                raise SystemExit(f"{way} ended with {process.returncode}; try {' '.join(words)}")
            peak = max(peak, anonymous(process.pid))
            time.sleep(POLL)
    return {**json.loads(line), "anon": peak - bare}


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def check(folder: Path, ways: list[str], out: Path) -> None:
    """Compare the results with the formula."""
    from safetensors.torch import load_file

    base, tuned = (
        torch.load(folder / name / PICKLE, weights_only=True, mmap=True)
        for name in ("base", "tuned")
    )
    found = {"clic": load_file(out / "clic" / WEIGHTS)}
    if "mergekit" in ways:
        found["mergekit"] = load_file(out / "mergekit" / "model.safetensors")
    if "pickles" in ways:
        found["pickles"] = torch.load(out / "pickles", weights_only=True, mmap=True)
    for way, state in found.items():
        largest = max(
            float((state[name] - ((1 - ALPHA) * base[name] + ALPHA * tuned[name])).abs().max())
            for name in base
            if not torch.equal(state[name], base[name])
        )
        same = (
            "equal to the formula in every bit" if largest == 0 else f"within {largest:.1e} of it"
        )
        print(f"{way}: {same}")


def main() -> None:
    """Measure the ways in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mergekit", metavar="PYTHON", help="an interpreter that has mergekit")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        child(flags.child[0], Path(flags.child[1]), Path(flags.child[2]))
        return
    ways = ["by folders", "in place"] if flags.sweep else ["pickles", "clic", "unhashed", "hashes"]
    ways += ["mergekit"] if flags.mergekit else []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder, out = Path(name), Path(name) / "out"
        out.mkdir()
        make_pair(flags.model, folder)
        if flags.sweep:
            equal_vision(folder)
        bare = with_torch()
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(flags.rounds):
            for way in ways:
                remove(out / way)  # each writes a new file and overwrites none
                python = flags.mergekit if way == "mergekit" else sys.executable
                runs[way].append(measure(way, folder, out / way, python, bare))
        if not flags.sweep:
            check(folder, ways, out)
    print(f"{flags.model}, {flags.rounds} rounds; an interpreter with torch has {bare:.0f} MB")
    middle = {
        way: {key: median(run[key] for run in runs[way]) for key in ("wall", "cpu", "user", "anon")}
        for way in ways
    }
    for way, found in middle.items():
        ratios = [f"{middle[ways[0]][key] / max(found[key], 1e-9):.2f}" for key in found]
        print(
            f"{way:>10}: wall {found['wall']:6.2f} s ({ratios[0]}x), CPU {found['cpu']:6.2f} s "
            f"({ratios[1]}x), of it user {found['user']:6.2f} s ({ratios[2]}x), "
            f"anonymous memory {found['anon']:7.1f} MB ({ratios[3]}x)"
        )


if __name__ == "__main__":
    main()
