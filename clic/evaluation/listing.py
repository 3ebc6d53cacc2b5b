"""What `--bench list` prints: every benchmark, and what of it is on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clic.evaluation.registry import BENCHMARKS, GROUPS, Benchmark, missing, text_only

if TYPE_CHECKING:
    from rich.table import Table


def state(benchmark: Benchmark, data_root: Path) -> str:
    """Return how much of a benchmark is below the data root, in two words."""
    if benchmark.made:
        return "built in"
    lacking = missing(benchmark, data_root)
    if not lacking:
        return "installed"
    if text_only(benchmark, data_root):
        return "text only"
    return "no images" if lacking == [benchmark.images] else "missing"


def table(data_root: Path) -> Table:
    """Return the benchmarks as a rich table."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("benchmark", no_wrap=True)
    made.add_column("what, from whom, under which licence")
    made.add_column("here", no_wrap=True)
    for benchmark in BENCHMARKS.values():
        source = f"{benchmark.citation}; {benchmark.licence}; version {benchmark.version}"
        about = Text.assemble(benchmark.about, "\n", (source, "dim"))
        made.add_row(benchmark.name, about, state(benchmark, data_root))
    return made


def lines(data_root: Path) -> list[str]:
    """Return the groups, and for what is missing the command that gets it."""
    listed = [f"group {name}: {', '.join(members)}" for name, members in GROUPS.items()]
    listed.append(f"data folder: {data_root.resolve()} (--data, else $CLIC_DATA, else ./data)")
    texts = [b.name for b in BENCHMARKS.values() if text_only(b, data_root)]
    if texts:
        listed.append(f"text only: --text-only scores the captions of {', '.join(texts)} alone")
    commands: dict[str, list[str]] = {}
    for benchmark in BENCHMARKS.values():
        for item in missing(benchmark, data_root):
            names = commands.setdefault(item.get(data_root), [])
            if benchmark.name not in names:
                names.append(benchmark.name)
    for command, names in commands.items():
        listed += [f"missing for {', '.join(names)}; get it with:", f"  {command}"]
    return listed
