"""Get the files of benchmarks: downloaded with resume, checked, unpacked.

What is there is left alone. What needs a sign-up is told, step by step, and
ends with exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clic.cli.parser import Parser
from clic.errors import DataError

EXAMPLES = (
    "clic-data fetch sugarcrepe++",
    "clic-data fetch cola aro-relation --data /data/benchmarks",
    "clic-data fetch bivlc --mirror https://hf-mirror.com",
)
Advance = Callable[[int, "int | None"], None]


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("bench", nargs="+", metavar="BENCH", help="benchmarks or groups (clic-eval --bench list)")
    add("--data", metavar="DIR", type=Path, help="where to (default: $CLIC_DATA, then ./data)")
    add("--mirror", metavar="URL", help="host that has the files under the same paths")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Get the files; what is left for a person to do is an error at the end."""
    from clic.evaluation import fetch, plan, registry

    chosen = registry.select([name for word in flags.bench for name in word.split(",")])
    root = flags.data.expanduser() if flags.data is not None else plan.default_data_root()
    found = []
    with _bars() as bar:
        for benchmark in chosen:
            print(f"{benchmark.name}: {benchmark.licence}; {benchmark.citation}", flush=True)
            if benchmark.made:
                print("  is built in, and needs no files")
                continue
            found.append(
                fetch.fetch(
                    benchmark, root, lambda line: print(f"  {line}", flush=True), bar, flags.mirror
                )
            )
    for line in fetch.told(found):
        print(line)
    if any(one.lost for one in found):
        print("rows of images that are gone can be left out: clic-eval --allow-missing")
    steps = fetch.steps(found, root)
    if steps:
        raise DataError("; ".join(steps))


@contextmanager
def _bars() -> Iterator[Callable[[str], Advance]]:
    """Show a bar for each title on stderr while the block runs, where stderr is a terminal."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TransferSpeedColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as bars:  # fmt: skip

        def begin(title: str) -> Advance:
            task = bars.add_task(title, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield begin
