"""Store tags with the captions of existing shards.

Each tar is replaced as a whole, together with its index. Samples that already
have the tagger's tags are left as they are, so the same command continues
where it was stopped. Train with captions.tagger=stored. Ends with 1 if a tar
could not be annotated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clic.cli.parser import Parser, check_least
from clic.errors import ConfigError, pick
from clic.io.terminal import progress_bar

if TYPE_CHECKING:
    from clic.data.tools.annotating import Annotated

EXAMPLES = ("clic-data annotate /data/laion", "clic-data annotate /data/laion --ray auto")
BROKEN = 1
SHOWN = 10


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--tagger", metavar="T", default="hanta", help="hanta or spacy (hanta)")
    add("--workers", metavar="N", type=int, help="processes (default: one for each core)")
    add("--force", action="store_true", help="also tag what already has this tagger's tags")
    add("--ray", metavar="ADDRESS", help="a Ray cluster that sees the files, or auto, or local")


def run(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Annotate the shards; return 1 if one could not be annotated."""
    if flags.workers is not None:
        check_least(1, workers=flags.workers)
        if flags.ray is not None:
            raise ConfigError(
                f"--workers {flags.workers} has no effect with --ray {flags.ray}, whose cluster "
                "decides; leave one out"
            )
    from clic.captions.tagging import TAGGERS
    from clic.data.shards.locating import find_shards
    from clic.data.tools.annotating import annotate_on_ray, annotate_shards
    from clic.io.processes import usable_cores

    pick(TAGGERS, flags.tagger, "--tagger")
    shards = find_shards(flags.shards, "SHARDS")
    sizes = {str(shard.resolve()): shard.stat().st_size for shard in shards}
    parts: list[Annotated] = []
    with progress_bar("annotate", sum(sizes.values()), in_bytes=True) as advance:
        if flags.ray is None:
            workers = flags.workers or usable_cores()
            parts += annotate_shards(shards, flags.tagger, workers, advance, flags.force)
        else:
            for part in annotate_on_ray(shards, flags.tagger, flags.ray, flags.force):
                parts.append(part)
                advance(sizes[part.shard])
    return _report(parts)


def _report(parts: Sequence[Annotated]) -> int:
    shards = "1 tar" if len(parts) == 1 else f"{len(parts):,} tars"
    tagged, kept = sum(part.tagged for part in parts), sum(part.kept for part in parts)
    print(f"{shards}: {tagged:,} samples tagged, {kept:,} were tagged already")
    if broken := sum(part.broken for part in parts):
        print(f"  {broken:,} samples cannot be read and stay as they are (see clic-data verify)")
    if foreign := sum(part.foreign for part in parts):
        from clic.captions.negatives import FOREIGN

        print(
            f"  {foreign:,} of these ({foreign / tagged:.0%}) give few or no false captions: they "
            f"are not in Latin script, and {FOREIGN}"
        )
    problems = [part.problem for part in parts if part.problem is not None]
    for problem in problems[:SHOWN]:
        print(f"  left as it was: {' '.join(problem.split())}")
    if len(problems) > SHOWN:
        print(f"  and {len(problems) - SHOWN:,} more tars")
    return BROKEN if problems else 0
