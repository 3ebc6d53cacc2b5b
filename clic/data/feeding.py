"""From the settings to what builds batches, whichever way the samples come."""

from __future__ import annotations

from collections.abc import Mapping

from clic.config.train_settings import Config
from clic.data.batches import loader
from clic.data.batches.loader import BatchBuilder
from clic.data.sampling.sample_sources import SampleSource
from clic.data.sampling.sampler import Sampler
from clic.data.streaming.stream_builder import (
    StreamSampler,
    make_stream_builder,
    make_stream_sampler,
)
from clic.models import ClipModel
from clic.types import Kind


def make_sources(config: Config) -> dict[Kind, SampleSource]:
    """Return the source of each kind of step; a stream, which has no numbered samples, has none.

    Raises:
        DataError: Shards are missing or broken.
    """
    return {} if config.data.source == "stream" else loader.make_sources(config)


def make_sampler(
    config: Config, sources: Mapping[Kind, SampleSource], rank: int, world_size: int
) -> Sampler:
    """Return what plans this rank's batch of any step.

    Raises:
        DataError: There is too little data for one batch, or the neighbours are of other shards.
    """
    if config.data.source == "stream":
        return make_stream_sampler(config, rank, world_size)
    return loader.make_sampler(config, sources, rank, world_size)


def make_builder(
    config: Config,
    sources: Mapping[Kind, SampleSource],
    clip: ClipModel,
    rank: int = 0,
    world_size: int = 1,
    sampler: Sampler | None = None,
) -> BatchBuilder:
    """Return what builds this rank's batch of any step.

    `sources` and `sampler` come from `make_sources` and `make_sampler` with the same settings;
    `clip` has the tokenizer and the preprocessing.

    Raises:
        ConfigError: The samples lack the tags or false captions that the settings need.
        DataError: There is too little data for one batch.
    """
    if config.data.source == "stream":
        own = sampler or make_stream_sampler(config, rank, world_size)
        assert isinstance(own, StreamSampler)
        return make_stream_builder(config, clip, own)
    return loader.make_builder(config, sources, clip, rank, world_size, sampler)
