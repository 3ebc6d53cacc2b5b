"""Train the shapes experiments over seeds, evaluate them, and write the table of results.

Each (experiment, seed) is one `clic-train` and one `clic-eval`, as a user would type them. What an
earlier call finished is reused only if it was made by the same code, settings, torch and number of
threads: its name carries their hash. Comments and layout do not count.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import shapes_report
import torch

from clic import provenance, runs

CHECKOUT = Path(__file__).resolve().parents[1]
EXPERIMENTS = (
    "shapes",
    "shapes_clip",
    "shapes_negclip",
    "shapes_clove",
    "shapes_paper",
    "shapes_no_hard_negative",
    "shapes_no_unimodal",
    "shapes_no_alternation",
)
BENCH = "shapes++,shapes-retrieval,shapes-zero-shot"
BASE = "base"
BASE_MODEL = "shapes-base"

# What training cannot depend on, since it imports nothing of it; a change there asks for evaluating
# again, and not for training again.
EVALUATION_ONLY = (
    "clic/cli/data/",
    "clic/cli/eval.py",
    "clic/cli/patch.py",
    "clic/config_eval.py",
    "clic/evaluation",
    "clic/patching",
    "configs/eval.yaml",
    "configs/patch.yaml",
)


class CommandError(RuntimeError):
    """One of clic's commands ended with an error; the message holds the end of its output."""


class Job(NamedTuple):
    """One model to make and to evaluate; the base model is not trained and has no seed."""

    experiment: str
    seed: int | None

    @property
    def name(self) -> str:
        return self.experiment if self.seed is None else f"{self.experiment}-seed{self.seed}"


class Sources(NamedTuple):
    """Hashes of the source: of what training depends on, and of all of it."""

    training: str
    all: str


class Result(NamedTuple):
    """What became of a job: its measures by path, and where they come from."""

    job: Job
    measures: dict[str, float]
    record: dict[str, Any]


def main() -> int:
    """Run what is missing and write the two files."""
    options = parse()
    options.runs.mkdir(parents=True, exist_ok=True)
    jobs = [Job(BASE, None)]
    # Each once: two equal jobs at a time would train into one folder.
    pairs = ((name, seed) for seed in options.seeds for name in options.experiments)
    jobs += [Job(name, seed) for name, seed in dict.fromkeys(pairs)]
    sources = Sources(hash_source(EVALUATION_ONLY), hash_source())
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(run_job, job, options, sources) for job in jobs]
        try:
            wait(futures)
        except KeyboardInterrupt:  # the running commands got it too; the waiting ones never start
            pool.shutdown(wait=False, cancel_futures=True)
            print("shapes_table: interrupted; call it again to go on", file=sys.stderr)
            return 130
    results = []
    for future in futures:
        try:
            results.append(future.result())
        except CommandError as error:
            print(f"error: {error}", file=sys.stderr)
    if len(results) < len(jobs):
        return 1
    write(results, options)
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="shapes_table", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--experiments", nargs="+", default=list(EXPERIMENTS), metavar="NAME")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    add("--split", default="test", choices=["validation", "test"], help="what is reported: test")
    add("--jobs", type=int, default=1, help="runs at a time (default 1)")
    add("--threads", type=int, default=1, help="threads of each run (default 1)")
    add("--runs", type=Path, default=CHECKOUT / "runs" / "shapes_table", help="where runs are kept")
    add("--out", type=Path, help="path of the two files, without ending (default: RUNS/table)")
    options = parser.parse_args()
    if options.jobs < 1 or options.threads < 1:
        parser.error("--jobs and --threads must be 1 or more")
    options.runs = options.runs.resolve()
    options.out = (options.out or options.runs / "table").resolve()
    return options


def hash_source(without: Sequence[str] = ()) -> str:
    """Return a hash of torch's version and of the checkout's code, settings and shipped model.

    Args:
        without: Files and folders that do not count.
    """
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(p for folder in ("clic", "configs") for p in (CHECKOUT / folder).rglob("*")):
        name = path.relative_to(CHECKOUT).as_posix()
        ignored = any(name == other or name.startswith(f"{other}/") for other in without)
        if ignored or not path.is_file() or path.suffix == ".pyc":
            continue
        content = path.read_bytes()
        if path.suffix == ".py":
            content = ast.dump(ast.parse(content)).encode()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def run_job(job: Job, options: argparse.Namespace, sources: Sources) -> Result:
    """Train and evaluate one model, or read what an equal job left."""
    started = time.monotonic()
    # Sums over several threads round differently, so the number of threads is part of the run.
    run = options.runs / f"{job.name}-{options.threads}t-{sources.training[:10]}"
    log = run.with_suffix(".log")
    report = run.with_name(f"{run.name}-{options.split}-{sources.all[:10]}.json")
    reused = report.is_file()
    if not reused:
        if job.seed is not None and not runs.is_finished(run):
            settings = [f"+experiment={job.experiment}", f"seed={job.seed}"]
            settings += [f"train.runs_dir={quote(options.runs)}", f"train.run_name={run.name}"]
            command("train", log, options, settings)
        model = BASE_MODEL if job.seed is None else str(run)
        partial = report.with_suffix(".partial")
        flags = ["--bench", BENCH, "--model", model, "--split", options.split]
        command("eval", log, options, [*flags, "--json", str(partial)])
        partial.replace(report)
    content = json.loads(report.read_text("utf-8"))
    measures = dict(numbers(content["benchmarks"]))
    seconds = time.monotonic() - started
    how = "reused" if reused else f"{seconds:.0f} s"
    att = " / ".join(f"{measures[f'shapes++/swap_att/{name}']:.1f}" for name in ("itt", "tot"))
    print(f"{job.name}: {how}, swap_att ITT / TOT {att}", flush=True)
    record = {"seed": job.seed, "run": run.name, "model": content["model"], "reused": reused}
    return Result(job, measures, record)


def quote(path: Path) -> str:
    """Return a path as Hydra's grammar wants it, whatever characters it holds."""
    text = str(path).replace("'", "\\'")
    return f"'{text}'"


def command(name: str, log: Path, options: argparse.Namespace, words: Sequence[str]) -> None:
    """Run one of clic's commands with its output in `log`.

    Raises:
        CommandError: It ended with another code than 0.
    """
    code = f"from clic.cli.{name} import main; main()"
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    with log.open("a", encoding="utf-8") as out:
        print(f"$ clic-{name}", *words, file=out, flush=True)
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        tail = "\n".join(log.read_text("utf-8").splitlines()[-5:])
        raise CommandError(f"clic-{name} ended with {done.returncode} (see {log}):\n{tail}")


def numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every percentage of clic-eval's JSON with its path, row counts left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not (name == "n" or name.startswith("n_")):
            yield f"{prefix}{name}", float(value)


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """Return mean, sample standard deviation (None for one run) and values of each measure."""
    measures = {}
    for path in results[0].measures:
        values = [result.measures[path] for result in results]
        deviation = stdev(values) if len(values) > 1 else None
        measures[path] = {"mean": mean(values), "std": deviation, "values": values}
    return {
        "n": len(results),
        "measures": measures,
        "runs": [result.record for result in results],
    }


def write(results: Sequence[Result], options: argparse.Namespace) -> None:
    """Write the table as JSON and as Markdown, and say where."""
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.job.experiment, []).append(result)
    table = {
        "about": about(options),
        "models": {name: summarise(group) for name, group in by_model.items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # Not with_suffix: a dot in the name is no ending.
    as_json = options.out.with_name(options.out.name + ".json")
    as_markdown = options.out.with_name(options.out.name + ".md")
    # Paths are given from the checkout: where that lies says nothing elsewhere.
    content = json.dumps(table, indent=2).replace(f"{CHECKOUT}/", "")
    as_json.write_text(content + "\n", "utf-8")
    as_markdown.write_text(shapes_report.markdown(table), "utf-8")
    print(f"\n{as_markdown.read_text('utf-8')}\nwritten: {as_markdown} and {as_json}")


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the numbers depend on besides the source."""
    on_gpu = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "split": options.split,
        "seeds": options.seeds,
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU ({cpu_name()})",
        "threads": options.threads,
        **provenance.code(),
    }


def cpu_name() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
