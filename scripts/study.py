"""Train and evaluate many models, each as a user would, and keep finished results.

Each model is one `clic-train` and one `clic-eval`. Results of an earlier call are reused only if
they were made by the same code, settings, torch and number of threads: their names contain the
hash. Comments and layout of the code do not count. An interrupted study continues when it is called
again.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from clic import provenance, runs

CHECKOUT = Path(__file__).resolve().parents[1]
BASE_MODEL = "shapes-base"

# Code that training never imports; a change there requires evaluating again, but not training.
EVALUATION_ONLY = (
    "clic/cli/data",
    "clic/cli/eval.py",
    "clic/cli/patch.py",
    "clic/config/eval_settings.py",
    "clic/evaluation",
    "clic/patching",
    "configs/eval.yaml",
    "configs/patch.yaml",
)


class CommandError(RuntimeError):
    """A command failed; the message is one line that names its log."""


class Job(NamedTuple):
    """One model to make, and one evaluation of it.

    Attributes:
        name: The name of its run, without the hashes. Equal names mean equal runs.
        words: Words of `clic-train`; None if the base itself is evaluated.
        seed: Training seed; None for a base.
        split: Split of the benchmarks; "" leaves it to their names.
        base: The model to start from: `shapes-base`, or an open_clip folder.
        alpha: Alpha of `clic-patch`, which blends the trained model with its base; 1 means no
            blending.
    """

    name: str
    words: tuple[str, ...] | None
    seed: int | None
    split: str
    base: str = BASE_MODEL
    alpha: float = 1.0


class Evaluation(NamedTuple):
    """One call of `clic-eval`: the prefix of its measures' paths, and its flags."""

    prefix: str
    flags: tuple[str, ...]


class Sources(NamedTuple):
    """Hashes of the source: of the part that training depends on, and of all of it."""

    training: str
    all: str


class Setup(NamedTuple):
    """Settings that the jobs of a study share.

    Attributes:
        runs: Folder of the runs, their logs and reports.
        threads: Threads of each run.
        jobs: Runs at a time.
        evaluations: Evaluations of each model.
        sources: Hashes of the code.
        shown: Measures to show in the line printed after a job, by path.
    """

    runs: Path
    threads: int
    jobs: int
    evaluations: tuple[Evaluation, ...]
    sources: Sources
    shown: tuple[str, ...]


class Result(NamedTuple):
    """The outcome of a job: its measures by path, and their origin."""

    job: Job
    measures: dict[str, float]
    record: dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every study has."""
    add = parser.add_argument
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    add("--jobs", type=int, default=1, help="runs at a time (default 1)")
    add("--threads", type=int, default=1, help="threads of each run (default 1)")
    place = CHECKOUT / "runs" / parser.prog
    add("--runs", type=Path, default=place, help="where runs are kept (default runs/%(prog)s)")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse numbers below 1, make RUNS absolute and the seeds distinct."""
    if options.jobs < 1 or options.threads < 1:
        parser.error("--jobs and --threads must be 1 or more")
    options.runs = options.runs.resolve()
    options.seeds = list(dict.fromkeys(options.seeds))


def hash_source(without: Sequence[str] = ()) -> str:
    """Return a hash of torch's version and of the checkout's code, settings and shipped model.

    Args:
        without: Files and folders to leave out.
    """
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(p for top in ("clic", "configs") for p in (CHECKOUT / top).rglob("*")):
        name = path.relative_to(CHECKOUT).as_posix()
        ignored = any(name == other or name.startswith(f"{other}/") for other in without)
        if not ignored and path.is_file() and path.suffix != ".pyc":
            content = read_source(path)
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def read_source(path: Path) -> bytes:
    """Return a file's content; for Python, without comments and layout."""
    content = path.read_bytes()
    return ast.dump(ast.parse(content)).encode() if path.suffix == ".py" else content


def run_all(jobs: Sequence[Job], setup: Setup) -> list[Result]:
    """Run jobs, several at a time, and print each error on one line.

    Jobs of the same name are one training run, evaluated on several splits. They run one after
    another, because two at a time would train into the same folder.

    Returns:
        Results in the order of `jobs`, without failed ones.

    Raises:
        KeyboardInterrupt: The study was interrupted; no further job was started.
    """
    by_name: dict[str, list[Job]] = {}
    for job in dict.fromkeys(jobs):
        by_name.setdefault(job.name, []).append(job)
    count = sum(map(len, by_name.values()))
    found: dict[Job, Result] = {}
    taken: list[float] = []  # seconds of the jobs that were not reused

    def run_group(group: Sequence[Job]) -> None:
        for job in group:
            started = time.monotonic()
            found[job] = run_job(job, setup)
            seconds = time.monotonic() - started
            if not found[job].record["reused"]:
                taken.append(seconds)
            line = told(found[job], seconds, setup.shown)
            left = time_left(count - len(found), taken, setup.jobs)
            print(f"[{len(found)}/{count}] {line}{left}", flush=True)

    with ThreadPoolExecutor(setup.jobs) as pool:
        futures = [pool.submit(run_group, group) for group in by_name.values()]
        try:
            wait(futures)
        except KeyboardInterrupt:  # running commands received it, too; waiting ones never start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for future in futures:
        try:
            future.result()
        except CommandError as error:
            print(f"error: {error}", file=sys.stderr)
    return [found[job] for job in jobs if job in found]


def time_left(jobs: int, taken: Sequence[float], at_once: int) -> str:
    """Return at most how long the rest will take, from the mean so far; "" if nothing was run.

    Args:
        jobs: Number of jobs left; some may be reused, which takes no time.
        taken: Seconds of the jobs that were run.
        at_once: Jobs at a time.
    """
    if not jobs or not taken:
        return ""
    return f"; at most {math.ceil(jobs / at_once) * mean(taken) / 60:.0f} min left"


def run_job(job: Job, setup: Setup) -> Result:
    """Train and evaluate one model, or read the results of an equal job."""
    # Sums over several threads round differently, so the number of threads is part of the run.
    run = setup.runs / f"{job.name}-{setup.threads}t-{setup.sources.training[:10]}"
    log = run.with_name(f"{run.name}.log")
    measures: dict[str, float] = {}
    reused = True
    for evaluation in setup.evaluations:
        report = report_file(run, job, evaluation, setup)
        if not report.is_file():
            reused = False
            model = make_model(job, run, log, setup)
            partial = report.with_suffix(".partial")
            flags = [*evaluation.flags, *(["--split", job.split] if job.split else [])]
            flags += ["--model", model, "--json", str(partial)]
            rows = report.with_suffix(".jsonl")
            clic_command("eval", log, setup.threads, [*flags, "--rows", str(rows)])
            partial.replace(report)
        content = json.loads(report.read_text("utf-8"))
        measures.update(numbers(content["benchmarks"], evaluation.prefix))
    record = {"seed": job.seed, "run": run.name, "model": content["model"], "reused": reused}
    return Result(job, measures, record)


def report_file(run: Path, job: Job, evaluation: Evaluation, setup: Setup) -> Path:
    """Return the file for an evaluation's numbers; its rows are beside it."""
    digest = hashlib.sha256(repr((evaluation.flags, setup.sources.all)).encode()).hexdigest()
    alpha = "" if job.alpha == 1 else f"-alpha{job.alpha:g}"
    split = f"-{job.split}" if job.split else ""
    return run.with_name(f"{run.name}{alpha}{split}-{digest[:10]}.json")


def make_model(job: Job, run: Path, log: Path, setup: Setup) -> str:
    """Return the model for `clic-eval` to load, training and patching it if needed."""
    if job.words is None:
        return job.base
    if not runs.is_finished(run):
        clic_command("train", log, setup.threads, training_words(job, run))
    if job.alpha == 1:
        return str(run)
    clic_command("patch", log, setup.threads, ["--alpha", f"{job.alpha:g}", "--run", str(run)])
    return str(run / "patched" / f"alpha-{job.alpha:.2f}")


def told(result: Result, seconds: float, shown: Sequence[str]) -> str:
    """Return the line that reports a finished job."""
    text = "reused" if result.record["reused"] else f"{seconds:.0f} s"
    for path in shown:
        text += f", {path} {result.measures[path]:.1f}"
    alpha = "" if result.job.alpha == 1 else f" alpha {result.job.alpha:g}"
    return f"{result.job.name}{alpha}: {text}"


def training_words(job: Job, run: Path) -> list[str]:
    """Return the words of `clic-train` that make a job's run."""
    base = [] if job.base == BASE_MODEL else [f"model.name={quote(job.base)}"]
    place = [f"train.runs_dir={quote(run.parent)}", f"train.run_name={run.name}"]
    return [*(job.words or ()), f"seed={job.seed}", *base, *place]


def quote(path: Path | str) -> str:
    """Return a path quoted for Hydra's grammar, whatever characters it contains."""
    return "'" + str(path).replace("'", "\\'") + "'"


def clic_command(name: str, log: Path, threads: int, words: Sequence[str]) -> None:
    """Run one of clic's commands with its output in `log`."""
    program = ["-c", f"from clic.cli.{name} import main; main()"]
    run_command(f"clic-{name}", log, threads, program, words)


def run_command(
    name: str, log: Path, threads: int, program: Sequence[str], words: Sequence[str]
) -> None:
    """Run a Python program with its output in `log`.

    Args:
        name: Its name in the log and in messages.
        log: File to append its output to.
        threads: Number of threads it may use.
        program: Python's arguments before the program's own.
        words: The program's arguments.

    Raises:
        CommandError: The program exited with a code other than 0.
    """
    # Unbuffered, so that the last line of the log is the last one printed.
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with log.open("a", encoding="utf-8") as out:
        print(f"$ {name}", *words, file=out, flush=True)
        done = subprocess.run(
            [sys.executable, *program, *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        last = log.read_text("utf-8").rstrip().splitlines()[-1].strip()
        raise CommandError(f"{name} ended with {done.returncode}: {last} (see {log})")


def numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every percentage in clic-eval's JSON with its path, without row counts."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not (name == "n" or name.startswith("n_")):
            yield f"{prefix}{name}", float(value)


def about(seeds: Sequence[int], threads: int) -> dict[str, Any]:
    """Return what the numbers depend on besides the source."""
    on_gpu = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seeds": list(seeds),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU ({cpu_name()})",
        "threads": threads,
        **provenance.code(),
    }


def cpu_name() -> str:
    """Return the processor's name if the system provides it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def interrupted(prog: str) -> int:
    """Print that a study was interrupted, and return its exit code."""
    print(f"{prog}: interrupted; call it again to go on", file=sys.stderr)
    return 130


def with_ending(path: Path, ending: str) -> Path:
    """Return a path with a suffix added; `with_suffix` would replace anything after a dot."""
    return path.with_name(path.name + ending)
