"""`clic-data`: look at what a run is shown, write the embedded world to shards, index shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from clic.cli.common import Parser, run_cli, writing
from clic.errors import ClicError, DataError

EXAMPLES = """examples:
  clic-data preview
  clic-data preview --step 1 --out single.png
  clic-data preview +experiment=vitb32 data.shards=/data/laion model.pretrained=null
  clic-data shapes data/world --objects 1 --count 14400
  clic-data index /data/laion
"""


def main() -> None:
    """Run `clic-data`."""
    parser = _parser()
    argv = sys.argv[1:]
    flags, words = parser.parse_known_args(argv)
    if flags.command is None:
        run_cli("clic-data", parser.print_help)
    if words and flags.command != "preview":
        parser.error(f"{words[0]!r} is not understood by clic-data {flags.command}")
    commands = {
        "preview": lambda: _preview(flags, words),
        "shapes": lambda: _shapes(flags),
        "index": lambda: _index(flags),
    }
    run_cli("clic-data", commands[flags.command], flags.debug)


def _parser() -> Parser:
    parser = Parser(prog="clic-data", description=__doc__, epilog=EXAMPLES)
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of a mistake")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    preview = commands.add_parser(
        "preview",
        parents=[common],
        help="draw a batch as a run would be shown it (takes clic-train's settings)",
        epilog="Any other words are settings as clic-train takes them, e.g. +experiment=vitb32.",
    )
    preview.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write")
    preview.add_argument("--step", type=int, default=0, help="step of the run (default 0)")
    preview.add_argument("--rows", type=int, default=12, help="first rows of it (default 12)")

    shapes = commands.add_parser(
        "shapes", parents=[common], help="write scenes of the embedded world to shards"
    )
    shapes.add_argument("out", type=Path, help="folder for the shards")
    shapes.add_argument("--objects", type=int, choices=(1, 2), default=1, help="things in a scene")
    shapes.add_argument("--count", type=int, default=14400, help="number of scenes")
    shapes.add_argument("--split", default="train", help="train, validation or test")
    shapes.add_argument("--seed", type=int, default=0, help="seed of the world")
    shapes.add_argument("--shard-size", type=int, default=1000, help="scenes in a shard")

    index = commands.add_parser("index", parents=[common], help="index tars made elsewhere")
    index.add_argument("shards", nargs="+", help="folders, brace patterns or files")
    return parser


def _check_least(least: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < least:
            raise ClicError(f"--{name.replace('_', '-')} {value} must be {least} or more")


def _preview(flags: argparse.Namespace, words: Sequence[str]) -> None:
    from clic import data, models, runs
    from clic.cli.overrides import check_repeats
    from clic.cli.train import compose
    from clic.data.preview import draw_sheet
    from clic.validation import validate

    _check_least(1, rows=flags.rows)
    _check_least(0, step=flags.step)
    config = compose(words)
    check_repeats(words)
    validate(config)
    sources = data.make_sources(config)
    clip = models.create(runs.source_of(config.model.name), config.model.pretrained)
    builder = data.make_builder(config, sources, clip)
    rows = builder.preview(flags.step, flags.rows)
    with writing(flags.out):
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        draw_sheet(rows).save(flags.out, format="PNG")
    kind = builder.sampler.kind(flags.step)
    print(f"{flags.out}: {len(rows)} {kind} rows of step {flags.step} ({config.name})")
    print(f"  {asdict(config.compose if kind == 'composite' else config.captions)}")


def _shapes(flags: argparse.Namespace) -> None:
    from rich.progress import track

    from clic import data

    _check_least(1, count=flags.count, shard_size=flags.shard_size)
    _check_least(0, seed=flags.seed)
    source = data.ShapesSource(flags.split, flags.objects, flags.count, flags.seed)
    numbers = track(range(flags.count), description="scenes", disable=not sys.stdout.isatty())
    shards = data.pack((source.read(i) for i in numbers), flags.out, flags.shard_size)
    print(f"{flags.out}: {flags.count} scenes in {len(shards)} shards")


def _index(flags: argparse.Namespace) -> None:
    from rich.progress import track

    from clic import data
    from clic.data.shards import find_shards

    shards = find_shards(flags.shards, "clic-data index")
    if not shards:
        raise DataError("no shards are named")
    for shard in track(shards, description="index", disable=not sys.stdout.isatty()):
        data.write_index(shard)
    print(f"indexed {len(shards)} shards")


if __name__ == "__main__":
    main()
