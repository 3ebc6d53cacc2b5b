"""Draw a batch as a run would be shown it.

Any other words are settings as clic-train takes them, e.g. +experiment=vitb32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from clic.cli.common import Parser, check_least, writing

EXAMPLES = (
    "clic-data preview",
    "clic-data preview --step 1 --out single.png",
    "clic-data preview +experiment=vitb32 data.shards=/data/laion model.pretrained=null",
)
TAKES_SETTINGS = True


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write")
    parser.add_argument("--step", type=int, default=0, help="step of the run (default 0)")
    parser.add_argument("--rows", type=int, default=12, help="first rows of it (default 12)")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Draw the batch."""
    from clic import data, models, runs
    from clic.cli.overrides import check_repeats
    from clic.cli.train import compose
    from clic.data.preview import draw_sheet
    from clic.validation import validate

    check_least(1, rows=flags.rows)
    check_least(0, step=flags.step)
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
