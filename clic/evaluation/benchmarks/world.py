"""Benchmarks of the embedded world of shapes, which are generated.

The world is imported only when it is generated, so that listing the benchmarks stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from clic.evaluation.benchmarks import caption_retrieval, sugarcrepe, zero_shot
from clic.evaluation.benchmarks.benchmark import VALIDATION, Benchmark
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import BenchmarkTable, Interner
from clic.evaluation.tables.triplets import Triplets

if TYPE_CHECKING:
    from clic.shapes import WorldTriplets


def load_triplets(split: str, seed: int) -> Triplets:
    """Return `shapes++`: six categories of two true captions and a false one."""
    from clic import shapes

    categories = tuple(shapes.CATEGORIES)
    groups = {
        "replace": tuple(name for name in categories if name.startswith("replace")),
        "swap": tuple(name for name in categories if name.startswith("swap")),
        "mean": categories,
    }
    return _table(shapes.triplets(split, seed=seed), groups)


def load_relations(split: str, seed: int) -> Triplets:
    """Return `shapes-relations`: relations by phrase, by form of sentence and by position."""
    from clic import shapes

    categories = tuple(name for names in shapes.RELATION_GROUPS.values() for name in names)
    groups = {**shapes.RELATION_GROUPS, "mean": categories}
    return _table(shapes.relations(split, seed=seed), groups)


def _table(world: WorldTriplets, groups: dict[str, tuple[str, ...]]) -> Triplets:
    """Return the world's triplets as a table; the group "mean" contains all categories in order."""
    categories = groups["mean"]
    number = {name: index for index, name in enumerate(categories)}
    texts = Interner()
    return Triplets(
        images=tuple(world.images),
        category=np.array([number[row.category] for row in world.rows]),
        image=np.array([row.image for row in world.rows]),
        positive1=texts.add_all(row.positive1 for row in world.rows),
        positive2=texts.add_all(row.positive2 for row in world.rows),
        negative=texts.add_all(row.negative for row in world.rows),
        texts=tuple(texts.items),
        categories=categories,
        groups=groups,
    )


def load_retrieval(split: str, seed: int) -> Retrieval:
    """Return `shapes-retrieval`: scenes that differ in their bags of attributes."""
    from clic import shapes

    world = shapes.retrieval(split, seed=seed)
    texts = Interner()
    return Retrieval(
        images=tuple(world.images),
        gallery=np.arange(len(world.images)),
        caption=texts.add_all(world.captions),
        owner=np.array(world.owner),
        texts=tuple(texts.items),
    )


def load_zero_shot(split: str, seed: int) -> Classification:
    """Return `shapes-zero-shot`: the shape, the colour, and both, of a single thing."""
    from clic import shapes

    world = shapes.zero_shot(split, seed=seed)
    images = next(iter(world.values())).images
    texts = Interner()
    tasks = {
        name: ClassificationTask(
            image=np.arange(len(images)),  # the tasks share their images
            target=np.array(task.targets),
            classes=task.classes,
            prompts=tuple(texts.add_all(prompts) for prompts in task.class_prompts),
        )
        for name, task in world.items()
    }
    return Classification(images=tuple(images), texts=tuple(texts.items), tasks=tasks)


def _made(
    name: str,
    title: str,
    about: str,
    rule: str,
    load: Callable[[str, int], BenchmarkTable],
    text_metrics: bool = False,
) -> Benchmark:
    """Return a benchmark of the world, which needs no files."""
    made = Benchmark(
        name=name,
        title=title,
        about=about,
        load=lambda data_root, split, seed: load(split, seed),
        citation="made by clic.shapes",
        licence="MIT",
        rule=rule,
        text_metrics=text_metrics,
    )
    validation = replace(
        made,
        name=f"{name}{VALIDATION}",
        title=f"{title}, validation",
        load=lambda data_root, split, seed: load("validation", seed),
        split="validation",
    )
    return replace(made, validation=validation)


SHAPES = (
    _made(
        "shapes++",
        "Shapes++",
        "two true captions, a false one",
        sugarcrepe.TRIPLET_RULE,
        load_triplets,
        text_metrics=True,
    ),
    _made(
        "shapes-relations",
        "Shapes relations",
        "by phrase, form of sentence and position",
        sugarcrepe.TRIPLET_RULE,
        load_relations,
        text_metrics=True,
    ),
    _made(
        "shapes-retrieval",
        "Shapes retrieval",
        "500 scenes of distinct attributes",
        caption_retrieval.RECALL,
        load_retrieval,
    ),
    _made(
        "shapes-zero-shot",
        "Shapes zero-shot",
        "shape, colour and pair of one thing",
        zero_shot.RULE,
        load_zero_shot,
    ),
)
