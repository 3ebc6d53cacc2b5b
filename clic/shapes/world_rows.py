"""The world's benchmarks: triplets (`shapes++`), retrieval and zero-shot classification.

Each is a pure function of its arguments. Images are rendered when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from clic.seeding import generator
from clic.shapes import language
from clic.shapes.render import render_scene
from clic.shapes.scenes import COLOURS, SHAPES, Scene, Thing, relation, sample_pair, sample_single

TEMPLATES = ("{}", "a picture of {}", "there is {}", "this is {}")
PHRASES = {"shape": "a {}", "colour": "a {} thing", "pair": "a {}"}
"""How the zero-shot prompts put a class's name into each of `TEMPLATES`."""


@dataclass(frozen=True)
class SceneImages(Sequence[np.ndarray]):
    """The images of some scenes, each rendered anew, and always alike, when it is asked for.

    Attributes:
        scenes: What the images show.
        purpose: Name of the random stream of their noise.
        seed: Seed of that stream.
    """

    scenes: tuple[Scene, ...]
    purpose: str
    seed: int

    def __len__(self) -> int:
        return len(self.scenes)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        """Return image `index`, uint8 [64, 64, 3], or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        rng = generator(self.seed, f"{self.purpose}/pixels", step=index)
        return render_scene(self.scenes[index], rng)


@dataclass(frozen=True)
class TripletRow:
    """Two true captions and a false one of an image.

    Attributes:
        category: One of `CATEGORIES`, or of `shapes-relations`' categories.
        image: Index into the benchmark's images.
        positive1: True caption, which the negative differs from by one edit.
        positive2: Another true caption.
        negative: False caption.
    """

    category: str
    image: int
    positive1: str
    positive2: str
    negative: str


@dataclass(frozen=True)
class WorldTriplets:
    """Images and the rows that speak of them: `shapes++` or `shapes-relations`."""

    images: SceneImages
    rows: tuple[TripletRow, ...]


@dataclass(frozen=True)
class WorldRetrieval:
    """A gallery: `captions[j]` is the caption of image `owner[j]`."""

    images: SceneImages
    captions: tuple[str, ...]
    owner: tuple[int, ...]


@dataclass(frozen=True)
class WorldClassification:
    """One task: image i is of class `targets[i]`; class c is named `classes[c]`.

    Attributes:
        images: What is classified.
        targets: Class index of each image.
        classes: Name of each class.
        class_prompts: For each class its prompts, whose mean embedding stands for the class.
    """

    images: SceneImages
    targets: tuple[int, ...]
    classes: tuple[str, ...]
    class_prompts: list[list[str]]


Texts = tuple[str, str, str]


def _swap_att(a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    false = language.name_pair(replace(a, colour=b.colour), replace(b, colour=a.colour))
    return language.name_pair(a, b), language.name_pair(b, a), false


def _swap_noun(a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    false = language.name_pair(replace(a, shape=b.shape), replace(b, shape=a.shape))
    return language.name_pair(a, b), language.name_pair(b, a), false


def _replace_att(a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    others = [c for c in COLOURS if c not in (a.colour, b.colour)]
    wrong = replace(a, colour=others[rng.integers(len(others))])
    # Either place of the caption may be the one that is false.
    pair, false = ((a, b), (wrong, b)) if rng.integers(2) else ((b, a), (b, wrong))
    return language.name_pair(*pair), language.name_pair(*pair[::-1]), language.name_pair(*false)


def _replace_obj(a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    others = [s for s in SHAPES if s not in (a.shape, b.shape)]
    wrong = replace(a, shape=others[rng.integers(len(others))])
    pair, false = ((a, b), (wrong, b)) if rng.integers(2) else ((b, a), (b, wrong))
    return language.name_pair(*pair), language.name_pair(*pair[::-1]), language.name_pair(*false)


def _swap_phrase(a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    phrase = language.relation_phrase(relation(a, b), rng)
    inverse = language.inverse_phrase(phrase)
    return (
        language.relate(a, b, phrase),
        language.relate(b, a, inverse),
        language.relate(b, a, phrase),
    )


def _replace_rel(a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    phrase = language.relation_phrase(relation(a, b), rng)
    inverse = language.inverse_phrase(phrase)
    return (
        language.relate(a, b, phrase),
        language.relate(b, a, inverse),
        language.relate(a, b, inverse),
    )


CATEGORIES: dict[str, Callable[[Thing, Thing, np.random.Generator], Texts]] = {
    "swap_att": _swap_att,
    "swap_noun": _swap_noun,
    "swap_phrase": _swap_phrase,
    "replace_att": _replace_att,
    "replace_obj": _replace_obj,
    "replace_rel": _replace_rel,
}
"""How each category makes its two true captions and its false one of two things."""

# A swap of colours between things of one shape, or of shapes between things of one colour, is true.
_DISTINCT = ("swap_att", "swap_noun")


def triplets(split: str, per_category: int = 500, seed: int = 0) -> WorldTriplets:
    """Make `shapes++`.

    Positives 1 and 2 name the two things in opposite order, relations with the inverse word. The
    negative is positive 1 with one edit: colours or nouns exchanged (swap_att, swap_noun), the
    two phrases around a relation exchanged (swap_phrase), one colour or noun replaced by one that
    is not in the scene (replace_att, replace_obj), or the relation by its inverse (replace_rel).

    Args:
        split: "train", "validation" or "test".
        per_category: Rows of each category; each row has an image of its own.
        seed: Seed of the scenes.

    Returns:
        Images and rows, in the order of `CATEGORIES`.
    """
    purpose = f"shapes/{split}/triplets"
    scenes: list[Scene] = []
    rows: list[TripletRow] = []
    for category, make in CATEGORIES.items():
        rng = generator(seed, f"{purpose}/{category}")
        for _ in range(per_category):
            scene = sample_pair(rng, distinct=category in _DISTINCT)
            a, b = (scene.things[i] for i in rng.permutation(2))
            rows.append(TripletRow(category, len(scenes), *make(a, b, rng)))
            scenes.append(scene)
    return WorldTriplets(SceneImages(tuple(scenes), purpose, seed), tuple(rows))


def _bag(scene: Scene) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the colours and the shapes of a scene, without what belongs to what."""
    colours = tuple(sorted(thing.colour for thing in scene.things))
    return colours, tuple(sorted(thing.shape for thing in scene.things))


def retrieval(split: str, size: int = 500, seed: int = 0) -> WorldRetrieval:
    """Make a gallery of pairs, no two with the same colours and shapes, a caption each.

    Args:
        split: "train", "validation" or "test".
        size: Number of images and of captions.
        seed: Seed of the scenes.
    """
    purpose = f"shapes/{split}/retrieval"
    rng = generator(seed, purpose)
    scenes: dict[tuple[tuple[str, ...], tuple[str, ...]], Scene] = {}
    while len(scenes) < size:
        scene = sample_pair(rng)
        scenes.setdefault(_bag(scene), scene)
    captions = tuple(language.captions(scene, rng, count=1)[0] for scene in scenes.values())
    images = SceneImages(tuple(scenes.values()), purpose, seed)
    return WorldRetrieval(images, captions, tuple(range(size)))


def zero_shot(split: str, size: int = 1000, seed: int = 0) -> dict[str, WorldClassification]:
    """Make the tasks "shape" (10 classes), "colour" (10) and "pair" (100) on lone things.

    Args:
        split: "train", "validation" or "test".
        size: Number of images, which the three tasks share.
        seed: Seed of the scenes.
    """
    purpose = f"shapes/{split}/zero-shot"
    rng = generator(seed, purpose)
    scenes = tuple(sample_single(rng) for _ in range(size))
    images = SceneImages(scenes, purpose, seed)
    things = [scene.things[0] for scene in scenes]
    labels = {
        "shape": [thing.shape for thing in things],
        "colour": [thing.colour for thing in things],
        "pair": [f"{thing.colour} {thing.shape}" for thing in things],
    }
    names = {
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "pair": tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
    }
    return {
        task: WorldClassification(
            images,
            tuple(names[task].index(label) for label in labels[task]),
            names[task],
            [[t.format(phrase.format(name)) for t in TEMPLATES] for name in names[task]],
        )
        for task, phrase in PHRASES.items()
    }
