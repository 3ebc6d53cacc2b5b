"""Index tars made elsewhere.

An index that is there is kept where it fits its tar, unless --force.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from clic.cli.parser import Parser, check_least
from clic.errors import DataError

EXAMPLES = ("clic-data index /data/laion", "clic-data index --force '/data/{00000..00099}.tar'")


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    parser.add_argument("shards", nargs="+", help="folders, brace patterns or files")
    parser.add_argument("--force", action="store_true", help="make every index anew")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Write the indexes."""
    from clic.data.shards.index import index_path, is_indexed, load_index
    from clic.data.shards.locating import find_shards
    from clic.io.processes import run_tasks, usable_cores
    from clic.io.terminal import progress_bar

    check_least(1, **({} if flags.workers is None else {"workers": flags.workers}))
    shards = find_shards(flags.shards, "SHARDS")
    todo = [shard for shard in shards if flags.force or not is_indexed(shard)]
    failed = []
    workers = flags.workers or usable_cores()
    with progress_bar("index", len(todo)) as advance:
        for mistake in run_tasks(_index, todo, workers, lambda done: None, __name__):
            advance(1)
            if mistake:
                failed.append(mistake)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise DataError(f"{len(failed)} of {len(shards)} shards: {sorted(failed)[0]}{more}")
    samples = broken = 0
    for shard in shards:
        index = load_index(index_path(shard))
        samples, broken = samples + index.samples, broken + len(index.broken)
    kept = f", {len(shards) - len(todo)} had been" if len(todo) < len(shards) else ""
    print(f"{len(todo)} shards indexed{kept}: {samples} samples, {broken} of them broken")


def _index(shard: Path, tick: Callable[[int], None]) -> str:
    """Index one shard; return what is wrong with it."""
    from clic.data import write_index

    try:
        write_index(shard)
    except DataError as error:
        return str(error)
    tick(1)
    return ""
