"""Index tars made elsewhere.

An existing index that fits its tar is kept, unless --force is given.
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
    parser.add_argument("--force", action="store_true", help="make every index again")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Write the indexes."""
    from clic.data.shards.index import index_path, is_indexed, load_index
    from clic.data.shards.locating import find_shards
    from clic.io.processes import run_tasks, usable_cores
    from clic.io.terminal import progress_bar

    workers = usable_cores() if flags.workers is None else flags.workers
    check_least(1, workers=workers)
    shards = find_shards(flags.shards, "SHARDS")
    todo = [shard for shard in shards if flags.force or not is_indexed(shard)]
    with progress_bar("index", len(todo)) as advance:
        failed = [error for error in run_tasks(_index, todo, workers, advance) if error]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise DataError(f"{len(failed)} of {len(shards)} shards: {sorted(failed)[0]}{more}")
    samples = broken = 0
    for shard in shards:
        index = load_index(index_path(shard))
        samples, broken = samples + index.samples, broken + len(index.broken)
    kept = f", {len(shards) - len(todo)} kept" if len(todo) < len(shards) else ""
    print(f"{len(todo)} shards indexed{kept}: {samples} samples, {broken} of them broken")


def _index(shard: Path, tick: Callable[[int], None]) -> str:
    """Index one shard; return what is wrong with it, '' if nothing is."""
    from clic.data import write_index

    try:
        write_index(shard)
    except DataError as error:
        return str(error)
    finally:
        tick(1)
    return ""
