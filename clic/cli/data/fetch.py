"""`clic-data fetch`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from clic.cli.common import DataCommand, Parser
from clic.errors import DataError


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("bench", nargs="+", metavar="BENCH", help="benchmarks or groups (clic-eval --bench list)")
    add(
        "--data",
        metavar="DIR",
        type=Path,
        help="folder of their files (default: $CLIC_DATA, else ./data)",
    )
    add("--mirror", metavar="URL", help="host that serves the files under the same paths")


def fetch(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Fetch the files of benchmarks: download with resume, check, unpack.

    Existing files are left alone. Where a sign-up is needed, its steps are printed
    and the exit code is 2.
    """
    from clic.evaluation import evaluation_plan
    from clic.evaluation.benchmarks import catalogue
    from clic.evaluation.files import fetching
    from clic.io.terminal import progress_bars

    chosen = catalogue.select([name for word in flags.bench for name in word.split(",")])
    root = flags.data.expanduser() if flags.data else evaluation_plan.default_data_root()
    found = []
    with progress_bars(in_bytes=True) as bars:

        def bar(title: str) -> Callable[[int, int | None], None]:
            task = bars.add_task(title, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        def say(line: str) -> None:
            print(f"  {line}", flush=True)

        for benchmark in chosen:
            print(f"{benchmark.name}: {benchmark.licence}; {benchmark.citation}", flush=True)
            if benchmark.made:
                print("  is built in, and needs no files")
                continue
            found.append(fetching.fetch(benchmark, root, say, bar, flags.mirror))
    for line in fetching.told(found):
        print(line)
    if any(one.lost for one in found):
        print("rows whose images no longer exist can be left out: clic-eval --allow-missing")
    if steps := fetching.steps(found, root):
        raise DataError("; ".join(steps))


FETCH = DataCommand(
    fetch,
    _arguments,
    (
        "clic-data fetch sugarcrepe++",
        "clic-data fetch cola aro-relation --data /data/benchmarks",
        "clic-data fetch bivlc --mirror https://hf-mirror.com",
    ),
)
