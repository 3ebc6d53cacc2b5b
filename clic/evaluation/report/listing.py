"""The output of `clic-eval --bench list`: all benchmarks, and which of their files are here."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.benchmarks.catalogue import BENCHMARKS, GROUPS, missing, select, text_only
from clic.evaluation.files.file_sources import ByHand, how_to_get, origin, present

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
PAGE = "list:"
"""Prefix of `--bench list:NAME`, which prints everything about one benchmark."""


def wanted(names: list[str]) -> list[str] | None:
    """Return the benchmarks whose pages are requested, [] for the list itself, None for neither."""
    lower = [name.lower() for name in names]
    if lower == ["list"]:
        return []
    pages = [name[len(PAGE) :] for name in names if name.lower().startswith(PAGE)]
    return pages if pages and len(pages) == len(names) else None


def state(benchmark: Benchmark, data_root: Path) -> str:
    """Return in two words how much of a benchmark is below the data root."""
    if benchmark.made:
        return "built in"
    if not missing(benchmark, data_root):
        return "installed"
    if text_only(benchmark, data_root):
        return "text only"
    return "missing" if missing(benchmark, data_root, with_images=False) else "no images"


def table(data_root: Path) -> Table:
    """Return the benchmarks as a rich table."""
    from rich import box
    from rich.table import Table as RichTable

    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("benchmark", no_wrap=True)
    made.add_column("what")
    made.add_column("here", no_wrap=True)
    for benchmark in BENCHMARKS.values():
        made.add_row(benchmark.name, benchmark.about, state(benchmark, data_root))
    return made


def lines(data_root: Path) -> list[str]:
    """Return the groups and how to get missing files; each command is on its own line."""
    members = {name: ", ".join(of) for name, of in GROUPS.items() if name != "all"}
    listed = [line for name, of in members.items() for line in _wrapped(f"group {name}: {of}")]
    listed.append("group all: all of them")
    listed += ["data folder (--data, else $CLIC_DATA, else ./data):", f"  {data_root.resolve()}"]
    listed.append("--bench list:NAME shows one in full: paper, licence, files, rows, rule")
    splits = [b.name for b in BENCHMARKS.values() if b.validation]
    listed += _wrapped(
        f"NAME@val is the validation split, for choosing settings: of {', '.join(splits)}"
    )
    texts = [b.name for b in BENCHMARKS.values() if text_only(b, data_root)]
    if texts:
        listed.append(f"text only: --text-only scores the captions of {', '.join(texts)} alone")
    lacking = {b.name: m for b in BENCHMARKS.values() if (m := missing(b, data_root))}
    fetched = [name for name, m in lacking.items() if not all(isinstance(s, ByHand) for s in m)]
    if fetched:
        listed += _wrapped(f"can be fetched: {', '.join(fetched)}; one with:")
        listed.append(f"  clic-data fetch NAME --data {shlex.quote(str(data_root))}")
    by_hand: dict[ByHand, list[str]] = {}
    for name, sources in lacking.items():
        for source in sources:
            if isinstance(source, ByHand):
                by_hand.setdefault(replace(source, gives=""), []).append(name)
    for source, names in by_hand.items():
        listed += _wrapped(f"for {', '.join(dict.fromkeys(names))} ({source.why}):")
        listed.append(f"  {source.steps.format(data=shlex.quote(str(data_root)))}")
    return listed


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, width=WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def page(name: str, data_root: Path) -> list[str]:
    """Return everything about a benchmark, or about each benchmark of a group.

    Raises:
        ConfigError: The name is unknown.
    """
    return [line for benchmark in select([name]) for line in _page(benchmark, data_root)]


def _page(benchmark: Benchmark, data_root: Path) -> list[str]:
    rows = "not established" if benchmark.rows is None else f"{benchmark.rows:,}"
    listed = [
        f"{benchmark.name}: {benchmark.title}, {benchmark.about}",
        f"  here     {state(benchmark, data_root)}",
        f"  paper    {benchmark.citation}",
        f"  licence  {benchmark.licence}",
        f"  version  {benchmark.version}",
        f"  rows     {'made' if benchmark.made else rows}",
        f"  rule     {benchmark.rule}",
    ]
    if benchmark.differs:
        listed.append(f"  differs  {benchmark.differs}")
    for source in (*benchmark.annotations, *benchmark.images):
        where = "there" if present(source, data_root) else "missing"
        listed.append(f"  file     {data_root / source.gives} ({where}), from {origin(source)}")
    commands = how_to_get({benchmark.name: missing(benchmark, data_root)}, data_root)
    return [*listed, *(f"  get it   {command}" for command in commands)]
