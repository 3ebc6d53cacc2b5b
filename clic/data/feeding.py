"""Makes the sources, the sampler and the batch builder of a run from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clic import images
from clic.config.train_settings import Config
from clic.data.batches.captioner import Captioner, CaptionTokenizer, uses_tags
from clic.data.batches.loader import BatchBuilder
from clic.data.sampling.sample_sources import MixedSource, SampleSource, ShapesSource
from clic.data.sampling.sampler import Sampler
from clic.data.shards.shard_source import ShardSource
from clic.data.streaming.stream_builder import (
    StreamSampler,
    make_stream_builder,
    make_stream_sampler,
)
from clic.data.tools.nearest import read_neighbours
from clic.models import ClipModel
from clic.types import KINDS, Kind


def make_sources(config: Config) -> dict[Kind, SampleSource]:
    """Return the source of each kind of step; empty for a stream, whose samples have no numbers.

    The world of shapes provides single-object scenes for composites and two-object scenes for
    single steps; shards serve both kinds, unless `data.single_shards` names others for the latter.

    Raises:
        DataError: Shards are missing or broken.
    """
    data, captions = config.data, config.captions
    if data.source == "stream":
        return {}
    if data.source == "shapes":
        assert data.split is not None and data.samples is not None  # checked by `validate`
        return {
            kind: ShapesSource(data.split, objects, data.samples, config.seed)
            for kind, objects in zip(KINDS, (1, 2), strict=True)
        }
    negatives = captions.single_negative == "stored"
    # False captions are usually made from a sample's first caption, so only its tags are needed.
    tags: int | None = None if captions.single_caption == "random" else 1
    if captions.tagger != "stored" or not any(uses_tags(captions, kind) for kind in KINDS):
        tags = 0

    def shards(setting: str, value: Any) -> ShardSource:
        return ShardSource(value, setting, data.cache_dir, data.cache_gb, negatives, tags)

    main: SampleSource
    if data.mix:
        named = [(f"data.mix[{n}].shards", entry["shards"]) for n, entry in enumerate(data.mix)]
        weights = [float(entry.get("weight", 1.0)) for entry in data.mix]
        main = MixedSource([shards(*one) for one in named], weights)
    else:
        main = shards("data.shards", data.shards)
    if data.single_shards:
        return {"composite": main, "single": shards("data.single_shards", data.single_shards)}
    return dict.fromkeys(KINDS, main)


def make_sampler(
    config: Config, sources: Mapping[Kind, SampleSource], rank: int, world_size: int
) -> Sampler:
    """Return the sampler that plans this rank's batches.

    Raises:
        DataError: There is too little data for one batch, or the neighbours belong to other shards.
    """
    if config.data.source == "stream":
        return make_stream_sampler(config, rank, world_size)
    sampling = config.sampling
    landscape: dict[int, np.ndarray] = {}  # kinds that share a source share its array
    for source in sources.values():
        if id(source) not in landscape:
            landscape[id(source)] = source.landscape(sampling.square, config.seed)
    neighbours = None
    if sampling.hard_images is not None:
        neighbours = read_neighbours(Path(sampling.hard_images).expanduser(), sources["single"])
    return Sampler(
        {kind: landscape[id(source)] for kind, source in sources.items()},
        sampling.kinds,
        config.train.batch_size,
        config.seed,
        rank,
        world_size,
        images.images_of(config.compose.layout),
        partner_self=sampling.partner_self,
        parts={kind: source.parts() for kind, source in sources.items()},
        samples=config.data.samples,
        replacement=sampling.replacement,
        neighbours=neighbours,
    )


def make_builder(
    config: Config,
    sources: Mapping[Kind, SampleSource],
    clip: ClipModel,
    rank: int = 0,
    world_size: int = 1,
    sampler: Sampler | None = None,
) -> BatchBuilder:
    """Return the builder of this rank's batches.

    `sources` and `sampler` come from `make_sources` and `make_sampler` with the same settings;
    `clip` provides the tokenizer and the preprocessing.

    Raises:
        ConfigError: The samples lack the tags or false captions that the settings need.
        DataError: There is too little data for one batch.
    """
    if config.data.source == "stream":
        own = sampler or make_stream_sampler(config, rank, world_size)
        assert isinstance(own, StreamSampler)
        return make_stream_builder(config, clip, own)
    sampler = sampler or make_sampler(config, sources, rank, world_size)
    tokens = CaptionTokenizer(clip.tokenizer)
    # Captions of pairs that exceed the context are cut, as in the papers. Those of composites of
    # more images, which the papers do not have, leave images out instead.
    budget = tokens.budget() if images.images_of(config.compose.layout) > 2 else None
    captioner = Captioner(config.captions, budget)
    for kind in sampler.schedule:
        captioner.check(kind, sources[kind])
    decode, seed = config.data.decode, config.seed
    return BatchBuilder(
        sources, sampler, captioner, tokens, clip.preprocess, config.compose, seed, decode
    )
