"""A synthetic world of one or two coloured shapes, generated on the fly.

In: a split, an index and a seed. Out: samples with exact captions and tags, and benchmarks. Read
`scenes` (what is drawn and where), `render` (pixels), `language` (sentences and tags), then
`world_rows` (the benchmarks).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from clic.errors import pick
from clic.seeding import generator
from clic.shapes.language import captions, tag
from clic.shapes.render import render_scene
from clic.shapes.scenes import Scene, Thing, sample_pair, sample_single
from clic.shapes.world_rows import (
    CATEGORIES,
    RELATION_GROUPS,
    SceneImages,
    TripletRow,
    WorldClassification,
    WorldRetrieval,
    WorldTriplets,
    relations,
    retrieval,
    triplets,
    zero_shot,
)
from clic.types import Sample

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_SAMPLERS = {1: sample_single, 2: sample_pair}

__all__ = [
    "CATEGORIES",
    "RELATION_GROUPS",
    "SPLITS",
    "Scene",
    "SceneImages",
    "Split",
    "Thing",
    "TripletRow",
    "WorldClassification",
    "WorldRetrieval",
    "WorldTriplets",
    "base_folder",
    "relations",
    "retrieval",
    "sample",
    "sample_scene",
    "triplets",
    "zero_shot",
]


def sample_scene(split: str, index: int, objects: int, seed: int = 0) -> tuple[Scene, Sample]:
    """Return what `sample` returns, and the scene it shows."""
    pick({name: name for name in SPLITS}, split, "split")
    make = pick({str(k): v for k, v in _SAMPLERS.items()}, str(objects), "objects")
    rng = generator(seed, f"shapes/{split}/{objects}", step=index)
    scene = make(rng)
    sentences = captions(scene, rng)
    key = f"{split}-{objects}-{seed}-{index:08d}"
    return scene, Sample(key, render_scene(scene, rng), sentences, tuple(map(tag, sentences)))


def sample(split: str, index: int, objects: int, seed: int = 0) -> Sample:
    """Return one image of the world with four true captions and their exact tags.

    A pure function of its arguments; splits, numbers of objects and seeds share no random numbers.

    Args:
        split: "train", "validation" or "test".
        index: Position in the split's endless sequence of samples, from 0.
        objects: 1 or 2 things in the scene.
        seed: Seed of the world.

    Returns:
        The image as uint8 [64, 64, 3]; the first caption names colour and shape of each thing,
        without sizes and relations.

    Raises:
        ConfigError: `split` or `objects` is not one of these.
    """
    return sample_scene(split, index, objects, seed)[1]


def base_folder() -> Path:
    """Return the folder of the base model that ships with the package (open_clip's format)."""
    return Path(__file__).parent / "base"
