"""`clic-data preview`."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clic.cli.common import DataCommand, Parser, check_least
from clic.errors import ConfigError
from clic.io.files import writing

if TYPE_CHECKING:
    from clic.config.train_settings import Config
    from clic.data import SampleSource
    from clic.types import Kind

# The recipe for shards without an experiment; drawing needs no weights.
RECIPE = {"+experiment": "vitb32", "model.pretrained": "null"}


def _arguments(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [SHARDS ...] [SETTING=VALUE ...] [options]"
    add = parser.add_argument
    add("--out", metavar="FILE", type=Path, default=Path("preview.png"), help="picture to write")
    add("--step", metavar="N", type=int, help="step of the run (default: one of each kind)")
    add("--rows", metavar="N", type=int, default=8, help="rows of each step, from the first (8)")


def preview(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Draw a contact sheet of batches as a run would see them.

    Name SHARDS (folders, patterns or .tar files) to see your data in CLIC's recipe
    for ViT-B/32, or give the arguments of a clic-train command, e.g.
    +experiment=vitb32 data.shards=/data/laion, to see that run's own batches.
    Without --step the first batch of each kind is drawn.
    """
    from PIL import Image

    from clic import data, models, runs
    from clic.config.checks import validate
    from clic.config.overrides import given
    from clic.data.tools.contact_sheet import Section, draw_sheet

    check_least(1, rows=flags.rows)
    check_least(0, step=flags.step or 0)
    config = _settings(words)
    validate(config, given(words))
    sources = data.make_sources(config)
    notes = _fit_small_data(config, sources) if sources else []
    source, model = runs.source_of(config.model.name), config.model
    clip = models.create(source, model.pretrained, quick_gelu=model.quick_gelu)
    builder = data.make_builder(config, sources, clip)
    kinds = builder.sampler.schedule
    sections, drawn = [], []
    for step in range(len(kinds)) if flags.step is None else [flags.step]:
        kind, rows = builder.sampler.kind(step), builder.preview(step, flags.rows)
        sections.append(Section(f"step {step}, {kind}", rows))
        drawn.append(f"{len(rows)} {kind} rows of step {step}")
    with writing(flags.out):
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        form = Image.registered_extensions().get(flags.out.suffix.lower())
        sheet = draw_sheet(sections, budget=builder.token_budget())
        sheet.save(flags.out, format=form if form in Image.SAVE else "PNG")
    print(f"{flags.out}: {', '.join(drawn)} ({config.name})")
    for name, values in _shown(config).items():
        shown = " ".join(f"{k}={v}" for k, v in values.items())
        print(textwrap.fill(f"{name}: {shown}", 80, initial_indent="  ", subsequent_indent="    "))
    for note in notes:
        print(f"  {note}")


def _shown(config: Config) -> dict[str, dict[str, Any]]:
    """Return by group the settings that decide what is drawn, leaving out those without effect."""
    captions = asdict(config.captions)
    if not config.captions.layout_share:
        captions = {k: v for k, v in captions.items() if not k.startswith("layout_")}
    compose = {} if config.sampling.kinds == "single" else {"compose": asdict(config.compose)}
    return {**compose, "captions": captions}


def _settings(words: Sequence[str]) -> Config:
    """Compose the settings from the words; words without "=" are shards.

    Raises:
        ConfigError: A word is not understood, or shards are named twice.
    """
    from clic.cli.train import compose
    from clic.config.overrides import check_repeats

    shards = [word for word in words if "=" not in word and not word.startswith(("-", "~"))]
    settings = [word for word in words if word not in shards]
    if not shards:
        check_repeats(words)
        return compose(words)
    if any(word.startswith("data.shards=") for word in settings):
        raise ConfigError(f"shards are given twice, as {shards[0]} and data.shards=; keep one")
    given = {word.split("=", 1)[0] for word in settings}
    if "+experiment" not in given:
        settings += [f"{key}={value}" for key, value in RECIPE.items() if key not in given]
    settings.append("data=shards")
    check_repeats(settings)
    config = compose(settings)
    config.data.shards = shards
    return config


def _fit_small_data(config: Config, sources: dict[Kind, SampleSource]) -> list[str]:
    """Adapt the settings to a data set too small to train on, and return what was changed."""
    notes = []
    count, size = min(map(len, sources.values())), config.train.batch_size
    if count < size:
        notes.append(f"train.batch_size={count}, the whole data, instead of {size}")
        config.train.batch_size = count
    landscape = sources["composite"].landscape(config.sampling.square, config.seed)
    lonely = 1 in (int(landscape.sum()), int((~landscape).sum()))
    joins = config.sampling.kinds != "single" and config.compose.layout != "alone"
    if lonely and joins and not config.sampling.partner_self:
        notes.append("sampling.partner_self=true, since an orientation has only one image")
        config.sampling.partner_self = True
    return notes


PREVIEW = DataCommand(
    preview,
    _arguments,
    (
        "clic-data preview",
        "clic-data preview /data/laion --out laion.png",
        "clic-data preview --step 1 --out single.png",
        "clic-data preview +experiment=vitb32 data.shards=laion model.pretrained=null",
    ),
    takes_settings=True,
)
