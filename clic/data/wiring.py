"""The sources and the sampler that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clic.config import Config, DataConfig
from clic.data.mixing import MixedSource
from clic.data.neighbours import read_neighbours
from clic.data.sampling import Sampler
from clic.data.shards import ShardSource
from clic.data.sources import ShapesSource, Source
from clic.images import images_of
from clic.types import KINDS, Kind


def make_sources(config: Config) -> dict[Kind, Source]:
    """Return the source of each kind of step.

    The world gives single-object scenes to composites and two-object scenes to single steps;
    shards serve both kinds, unless `data.single_shards` names others for the single steps.

    Raises:
        DataError: Shards are missing or broken.
    """
    data = config.data
    if data.source == "shapes":
        assert data.split is not None and data.samples is not None  # `validate` saw to that
        return {
            kind: ShapesSource(data.split, objects, data.samples, config.seed)
            for kind, objects in zip(KINDS, (1, 2), strict=True)
        }
    negatives = config.captions.single_negative == "stored"
    main = (
        _mixed(data, negatives)
        if data.mix
        else _shards(data, data.shards, "data.shards", negatives)
    )
    if data.single_shards:
        single = _shards(data, data.single_shards, "data.single_shards", negatives)
        return {"composite": main, "single": single}
    return dict.fromkeys(KINDS, main)


def _shards(data: DataConfig, shards: Any, setting: str, negatives: bool) -> ShardSource:
    return ShardSource(shards, setting, data.cache_dir, data.cache_gb, negatives)


def _mixed(data: DataConfig, negatives: bool) -> Source:
    entries: Sequence[Mapping[str, Any]] = data.mix
    sources = [
        _shards(data, entry["shards"], f"data.mix[{number}].shards", negatives)
        for number, entry in enumerate(entries)
    ]
    return MixedSource(sources, [float(entry.get("weight", 1.0)) for entry in entries])


def make_sampler(
    config: Config, sources: Mapping[Kind, Source], rank: int, world_size: int
) -> Sampler:
    """Return what plans this rank's batch of any step.

    Raises:
        DataError: There is too little data for one batch, or the neighbours are of other shards.
    """
    sampling = config.sampling
    wide: dict[int, np.ndarray] = {}  # kinds that share a source share this too
    for source in sources.values():
        if id(source) not in wide:
            wide[id(source)] = source.landscape(sampling.square, config.seed)
    neighbours = None
    if sampling.hard_images is not None:
        neighbours = read_neighbours(Path(sampling.hard_images).expanduser(), sources["single"])
    return Sampler(
        {kind: wide[id(source)] for kind, source in sources.items()},
        sampling.kinds,
        config.train.batch_size,
        config.seed,
        rank,
        world_size,
        images_of(config.compose.layout),
        partner_self=sampling.partner_self,
        parts={kind: source.parts() for kind, source in sources.items()},
        samples=config.data.samples,
        replacement=sampling.replacement,
        neighbours=neighbours,
    )
