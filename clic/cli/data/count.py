"""`clic-data count`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clic.cli.common import DataCommand, Parser
from clic.errors import DataError
from clic.io.files import check_writable, replacing, writing
from clic.io.terminal import progress_bar


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--out", metavar="FILE", type=Path, required=True, help="file of counts to write (.npy)")


def count(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Count what captions are made of, for captions.fluency.

    Stored tags are used where there are some (clic-data annotate); other captions
    are tagged with hanta. False captions are then chosen by how well they read.
    """
    check_writable(str(flags.out))
    import numpy as np

    from clic.data.shards.locating import find_shards
    from clic.data.tools.counting import count_captions

    shards = find_shards(flags.shards, "SHARDS")
    with progress_bar("count", sum(s.stat().st_size for s in shards), in_bytes=True) as advance:
        found = count_captions(shards, advance)
    if not found.counts.captions:
        raise DataError("SHARDS have no captions to count")
    table = found.counts.table()
    with writing(flags.out), replacing(flags.out) as temporary, open(temporary, "wb") as file:
        np.save(file, table, allow_pickle=False)
    note = f"; {found.broken:,} samples cannot be read" if found.broken else ""
    size = flags.out.stat().st_size / 1e6
    print(f"{flags.out}: counts of {found.counts.captions:,} captions, {size:,.1f} MB{note}")
    print(f"  clic-train ... captions.fluency={flags.out}")


COUNT = DataCommand(count, _arguments, ("clic-data count shards --out counts.npy",))
