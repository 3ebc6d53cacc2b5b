"""Index tars made elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clic.cli.common import Parser
from clic.errors import DataError

EXAMPLES = ("clic-data index /data/laion",)


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    parser.add_argument("shards", nargs="+", help="folders, brace patterns or files")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Write the indexes."""
    from rich.progress import track

    from clic import data
    from clic.data.naming import find_shards

    shards = find_shards(flags.shards, "clic-data index")
    if not shards:
        raise DataError("no shards are named")
    for shard in track(shards, description="index", disable=not sys.stdout.isatty()):
        data.write_index(shard)
    print(f"indexed {len(shards)} shards")
