"""`clic-data pack` and `clic-data shapes`, which write shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.common import DataCommand, Parser, check_least
from clic.errors import ConfigError, pick

if TYPE_CHECKING:
    from clic.data.packing import PackOutcome
    from clic.types import Sample

SEVERAL = 0.2  # proportion of captions with several sentences above which a note is printed


def _pack_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="file, folder, brace pattern of tars, or hf:NAME")
    add("out", metavar="OUT", type=Path, help="folder for the shards")
    add = parser.add_argument_group("reading").add_argument
    add("--format", metavar="F", help="clic-csv, table, negclip, parquet, folder, img2dataset, "
        "coco, karpathy, records or datasets (default: detected)")  # fmt: skip
    add("--image-root", metavar="DIR", type=Path, help="where relative image paths start")
    add("--image-column", metavar="C", help="column with the image's path or bytes")
    add("--caption-column", metavar="C", action="append", help="column with captions; repeatable")
    add("--separator", metavar="S", help="comma, tab, semicolon, pipe or a character")
    add("--no-header", action="store_true", default=None,
        help="the table's first row is data; columns are named 1, 2, ...")  # fmt: skip
    add("--encoding", metavar="E", help="encoding of texts that are not UTF-8, e.g. cp1252")
    add("--split", metavar="S", help="split of a dataset, or several: train,restval")
    add = parser.add_argument_group("storing").add_argument
    add("--shard-size", metavar="N", type=int, default=1000, help="samples per shard (1000)")
    add("--shard-mb", metavar="N", type=int, default=256, help="largest size of a shard (256)")
    add("--resize-short", metavar="N", type=int,
        help="shorter side of larger images (288); 224 for a model of 224 pixels: smaller "
        "files, and the fastest training")  # fmt: skip
    add("--quality", metavar="N", type=int, help="quality of the JPEGs, 1 to 95 (90)")
    add("--keep-original", action="store_true", help="store the images' own bytes")
    add("--prepare-sentences", action="store_true",
        help='make sentences of dense captions: 4 to 34 words, no "The image shows"')  # fmt: skip
    add("--tags", metavar="TAGGER", help="store the tags of captions: hanta or spacy")
    add("--workers", metavar="N", type=int, help="processes (default: one for each core)")


def pack(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Pack images and captions of any form into shards.

    SOURCE is a CSV or TSV, a parquet file, COCO's, Karpathy's or any JSON list, a
    folder of images with .txt or .json beside them, tars as img2dataset writes
    them, or a Hugging Face dataset (hf:NAME). Its format is detected and printed.
    The same command continues where it was stopped. docs/data.md shows every
    format.
    """
    _check(flags)
    from clic.captions.tagging import TAGGERS
    from clic.data import packing
    from clic.io.processes import usable_cores

    if flags.tags is not None:
        pick(TAGGERS, flags.tags, "--tags")
    flags.caption_column = flags.caption_column and tuple(flags.caption_column)
    request = packing.Request(**{f.name: getattr(flags, f.name) for f in fields(packing.Request)})
    reader = packing.open_source(flags.source, request, flags.format)
    print(f"{reader.source}: {reader.NAME}")
    for line in reader.found:
        print(f"  {line}")
    given = {f.name: getattr(flags, f.name) for f in fields(packing.Options)}
    sizes = {"resize_short": None, "quality": None} if flags.keep_original else {}
    options = packing.Options(**{n: v for n, v in given.items() if v is not None} | sizes)
    workers = flags.workers or usable_cores()
    try:
        outcome = packing.pack_source(reader, flags.out, options, workers, show=True)
    except KeyboardInterrupt:
        print("whole shards are kept; the same command continues from there", file=sys.stderr)
        raise
    for line in _summary(outcome, flags.out, flags.prepare_sentences):
        print(line)


def _check(flags: argparse.Namespace) -> None:
    check_least(1, shard_size=flags.shard_size, shard_mb=flags.shard_mb)
    for name, low, high in (("resize_short", 1, 8192), ("quality", 1, 95), ("workers", 1, 1024)):
        value, flag = getattr(flags, name), f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if not low <= value <= high:
            raise ConfigError(f"{flag} {value} must lie between {low} and {high}")
        if flags.keep_original and name != "workers":
            raise ConfigError(f"{flag} {value} has no effect with --keep-original; leave one out")
    if Path(flags.source).is_dir() and flags.out.resolve() == Path(flags.source).resolve():
        raise ConfigError(f"OUT {flags.out} is SOURCE itself; name another folder for the shards")
    if flags.out.exists() and not flags.out.is_dir():
        raise ConfigError(f"OUT {flags.out} is a file; name a folder for the shards")


def _summary(outcome: PackOutcome, out: Path, prepared: bool) -> Iterator[str]:
    from clic.data.packing.packer import REJECTED

    if outcome.untouched:
        yield f"{out} had been packed already"
    shards = "1 shard" if outcome.shards == 1 else f"{outcome.shards:,} shards"
    yield f"{out}: {outcome.samples:,} samples in {shards}, {outcome.bytes / 1e6:,.1f} MB"
    if outcome.grouped:
        rows = outcome.items + outcome.grouped
        yield f"  {rows:,} rows name {outcome.items:,} images: their captions are grouped by image"
    remedy = "" if prepared else "; --prepare-sentences makes\n  captions of their sentences"
    if outcome.cut:
        yield (
            f"  {outcome.cut:,} of {outcome.captions:,} captions are longer than the 77 tokens "
            f"that CLIP reads,\n  which cuts them{remedy}"
        )
    elif outcome.several > SEVERAL * outcome.captions and not prepared:
        several = f"{outcome.several:,} of {outcome.captions:,} captions"
        yield f"  {several} hold several sentences{remedy}"
    items = outcome.items + outcome.empty
    if left_out := items - outcome.samples:
        yield f"  {left_out:,} of {items:,} were left out: {out / REJECTED}"
        for reason, count in outcome.reasons.most_common(5):
            yield f"  {count:>7,} x {reason[:66]}"


PACK = DataCommand(
    pack,
    _pack_arguments,
    (
        "clic-data pack captions.csv shards",
        "clic-data pack train.tsv shards --image-column file --caption-column text",
        "clic-data pack dense.csv shards --prepare-sentences --tags hanta",
        "clic-data pack dataset_coco.json shards --image-root coco --split train",
    ),
)


def _shapes_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="folder for the shards")
    add("--objects", metavar="N", type=int, choices=(1, 2), default=1,
        help="things in a scene, 1 or 2 (1)")  # fmt: skip
    add("--count", metavar="N", type=int, default=14400, help="number of scenes (14400)")
    add("--split", metavar="S", default="train", help="train, validation or test (train)")
    add("--seed", metavar="N", type=int, default=0, help="seed of the world (0)")
    add("--shard-size", metavar="N", type=int, default=1000, help="scenes in a shard (1000)")


def write_shapes(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Write scenes of the embedded world to shards."""
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


SHAPES = DataCommand(
    write_shapes, _shapes_arguments, ("clic-data shapes data/world --objects 1 --count 14400",)
)
