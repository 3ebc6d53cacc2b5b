"""Write scenes of the embedded world to shards."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.parser import Parser, check_least

if TYPE_CHECKING:
    from clic.types import Sample

EXAMPLES = ("clic-data shapes data/world --objects 1 --count 14400",)


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    parser.add_argument("out", type=Path, help="folder for the shards")
    parser.add_argument("--objects", type=int, choices=(1, 2), default=1, help="things in a scene")
    parser.add_argument("--count", type=int, default=14400, help="number of scenes")
    parser.add_argument("--split", default="train", help="train, validation or test")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world")
    parser.add_argument("--shard-size", type=int, default=1000, help="scenes in a shard")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Write the shards."""
    from clic import data
    from clic.io.terminal import progress_bar

    check_least(1, count=flags.count, shard_size=flags.shard_size)
    check_least(0, seed=flags.seed)
    source = data.ShapesSource(flags.split, flags.objects, flags.count, flags.seed)
    with progress_bar("scenes", flags.count) as advance:

        def samples() -> Iterator[Sample]:
            for number in range(flags.count):
                yield source.read(number)
                advance(1)

        shards = data.pack(samples(), flags.out, flags.shard_size)
    print(f"{flags.out}: {flags.count} scenes in {len(shards)} shards")
