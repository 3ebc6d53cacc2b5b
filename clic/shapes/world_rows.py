"""The world's benchmarks: triplets (`shapes++`, `shapes-relations`), retrieval, classification.

Each is a pure function of its arguments. Images are rendered on access.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, overload

import numpy as np

from clic.seeding import generator
from clic.shapes import language
from clic.shapes.language import name_pair, relate
from clic.shapes.render import render_scene
from clic.shapes.scenes import (
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    relation,
    sample_diagonal,
    sample_near,
    sample_off_centre,
    sample_pair,
    sample_single,
)
from clic.types import INVERSE, INVERSE_PHRASE, RELATION_PHRASES, Relation

TEMPLATES = ("{}", "a picture of {}", "there is {}", "this is {}")
PHRASES = {"shape": "a {}", "colour": "a {} thing", "pair": "a {}"}
"""How a task's prompts phrase the name of a class inside each of `TEMPLATES`."""


@dataclass(frozen=True)
class SceneImages(Sequence[np.ndarray]):
    """The images of some scenes, each rendered on access, always with the same pixels.

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
        category: One of `CATEGORIES` or of `RELATION_GROUPS`.
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
    """Images and the rows that refer to them: `shapes++` or `shapes-relations`."""

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
        images: The images to classify.
        targets: Class index of each image.
        classes: Name of each class.
        class_prompts: Prompts of each class; their mean embedding represents the class.
    """

    images: SceneImages
    targets: tuple[int, ...]
    classes: tuple[str, ...]
    class_prompts: list[list[str]]


Texts = tuple[str, str, str]
"""Positive 1, positive 2 and the negative of a row."""
_Phrases = Mapping[Relation, tuple[str, ...]]


def _swap(field: str, a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    """Name the things; the negative exchanges their colours or their shapes."""
    own, other = getattr(a, field), getattr(b, field)
    false = name_pair(replace(a, **{field: other}), replace(b, **{field: own}))
    return name_pair(a, b), name_pair(b, a), false


def _replace(
    field: str, choices: Sequence[str], a: Thing, b: Thing, rng: np.random.Generator
) -> Texts:
    """Name the things; the negative has a colour or a shape that is not in the scene."""
    others: list[Any] = [c for c in choices if c not in (getattr(a, field), getattr(b, field))]
    wrong = replace(a, **{field: others[rng.integers(len(others))]})
    # Either thing of the caption may be the false one.
    pair, false = ((a, b), (wrong, b)) if rng.integers(2) else ((b, a), (b, wrong))
    return name_pair(*pair), name_pair(*pair[::-1]), name_pair(*false)


def _relate(swap: bool, a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    """Relate the things; the negative exchanges them, or has the inverse phrase."""
    phrase = language.relation_phrase(relation(a, b), rng)
    inverse = INVERSE_PHRASE[phrase]
    false = relate(b, a, phrase) if swap else relate(a, b, inverse)
    return relate(a, b, phrase), relate(b, a, inverse), false


def _relate_as(phrases: _Phrases, form: str, a: Thing, b: Thing, rng: np.random.Generator) -> Texts:
    """Relate the things by given phrases in a given form; the second thing's fields end in 2."""
    which = relation(a, b)
    phrase, inverse = (
        options[rng.integers(len(options))] for options in (phrases[which], phrases[INVERSE[which]])
    )
    false = (b, phrase, a) if rng.integers(2) else (a, inverse, b)
    first, second, third = (
        form.format(colour=x.colour, shape=x.shape, phrase=words, colour2=y.colour, shape2=y.shape)
        for x, words, y in ((a, phrase, b), (b, inverse, a), false)
    )
    return first, second, third


def _draw_related(
    phrases: _Phrases, draw: Callable[[np.random.Generator], Scene], rng: np.random.Generator
) -> Scene:
    """Draw scenes until one has a relation with phrases."""
    while True:
        scene = draw(rng)
        if relation(*scene.things) in phrases:
            return scene


class _Category(NamedTuple):
    """How a category draws a scene of two things and makes its captions."""

    say: Callable[[Thing, Thing, np.random.Generator], Texts]
    draw: Callable[[np.random.Generator], Scene] = sample_pair


# Swapping colours between equal shapes, or shapes between equal colours, changes no meaning.
_distinct = partial(sample_pair, distinct=True)
CATEGORIES = {
    "swap_att": _Category(partial(_swap, "colour"), _distinct),
    "swap_noun": _Category(partial(_swap, "shape"), _distinct),
    "swap_phrase": _Category(partial(_relate, True)),
    "replace_att": _Category(partial(_replace, "colour", tuple(COLOURS))),
    "replace_obj": _Category(partial(_replace, "shape", SHAPES)),
    "replace_rel": _Category(partial(_relate, False)),
}
"""The categories of `shapes++`."""

_PLAIN = "a {colour} {shape} {phrase} a {colour2} {shape2}"  # the form of `language.relate`
# The first phrase of each relation: left of, right of, above, below.
_SIMPLE: _Phrases = {which: phrases[:1] for which, phrases in RELATION_PHRASES.items()}


def _related(
    phrases: _Phrases = _SIMPLE,
    form: str = _PLAIN,
    draw: Callable[[np.random.Generator], Scene] = sample_pair,
) -> _Category:
    say = partial(_relate_as, phrases, form)
    return _Category(say, partial(_draw_related, phrases, draw))


_RELATIONS = {
    "phrases": {
        "left_of": _related({"left": ("left of",), "right": ("right of",)}),
        "to_the_left_of": _related({"left": ("to the left of",), "right": ("to the right of",)}),
        "on_the_left_of": _related({"left": ("on the left of",), "right": ("on the right of",)}),
        "above": _related({"above": ("above",), "below": ("below",)}),
        "over": _related({"above": ("over",), "below": ("under",)}),
        "beneath": _related({"above": ("above", "over"), "below": ("beneath",)}),
    },
    "forms": {
        "is": _related(form="a {colour} {shape} is {phrase} a {colour2} {shape2}"),
        "there_is": _related(form=f"there is {_PLAIN}"),
        "the_is": _related(form="the {colour} {shape} is {phrase} the {colour2} {shape2}"),
    },
    "positions": {
        "near": _related(draw=sample_near),
        "diagonal": _related(draw=sample_diagonal),
        "off_centre": _related(draw=sample_off_centre),
    },
}
RELATION_GROUPS = {group: tuple(categories) for group, categories in _RELATIONS.items()}
"""The categories of `shapes-relations`, by what they test."""


def triplets(split: str, per_category: int = 500, seed: int = 0) -> WorldTriplets:
    """Make `shapes++`.

    Positives 1 and 2 name the two things in opposite order, relations with the inverse word. The
    negative is positive 1 with one edit: colours or nouns exchanged (swap_att, swap_noun), the
    two phrases around a relation exchanged (swap_phrase), one colour or noun replaced by one that
    is not in the scene (replace_att, replace_obj), or the relation by its inverse (replace_rel).

    Args:
        split: "train", "validation" or "test".
        per_category: Rows of each category; each row has its own image.
        seed: Seed of the scenes.

    Returns:
        Images and rows, in the order of `CATEGORIES`.
    """
    return _rows_of(CATEGORIES, f"shapes/{split}/triplets", per_category, seed)


def relations(split: str, per_category: int = 300, seed: int = 0) -> WorldTriplets:
    """Make `shapes-relations`: relations by phrase, by form of sentence and by position.

    `shapes++` draws all three at random; here each category fixes two of them and tests the third.
    Positive 2 names the two things in the other order, with the inverse relation. The negative is
    positive 1 with one edit, drawn at random: the two phrases around the relation exchanged
    (`shapes++`'s swap_phrase), or the relation replaced by its inverse (its replace_rel).

    The categories of "phrases" are named after the phrase for left or above and use its inverse
    too ("on_the_left_of": on the left of, on the right of; "over": over, under), in the plain form
    "a red circle over a blue square". In "beneath" each row has beneath on one side and above or
    over on the other. The categories of "forms" use left of, right of, above and below in other
    sentences: "a red circle is above a blue square" (is), "there is a red circle left of a
    blue square" (there_is), "the red circle is left of the blue square" (the_is). The scenes of
    both are those of `shapes++`. Those of "positions" use the same words in the plain form, and
    the scenes that `clic.shapes.scenes` calls near, diagonal and off_centre.

    Args:
        split: "train", "validation" or "test".
        per_category: Rows of each category; each row has its own image.
        seed: Seed of the scenes.

    Returns:
        Images and rows, in the order of `RELATION_GROUPS`.
    """
    categories = {name: made for group in _RELATIONS.values() for name, made in group.items()}
    return _rows_of(categories, f"shapes/{split}/relations", per_category, seed)


def _rows_of(
    categories: Mapping[str, _Category], purpose: str, per_category: int, seed: int
) -> WorldTriplets:
    scenes: list[Scene] = []
    rows: list[TripletRow] = []
    for name, category in categories.items():
        rng = generator(seed, f"{purpose}/{name}")
        for _ in range(per_category):
            scene = category.draw(rng)
            a, b = (scene.things[i] for i in rng.permutation(2))
            rows.append(TripletRow(name, len(scenes), *category.say(a, b, rng)))
            scenes.append(scene)
    return WorldTriplets(SceneImages(tuple(scenes), purpose, seed), tuple(rows))


def _bag(scene: Scene) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the colours and the shapes of a scene, without which colour belongs to which shape."""
    colours = tuple(sorted(thing.colour for thing in scene.things))
    return colours, tuple(sorted(thing.shape for thing in scene.things))


def retrieval(split: str, size: int = 500, seed: int = 0) -> WorldRetrieval:
    """Make a gallery of pairs, no two with the same colours and shapes, with one caption each.

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
    """Make the tasks "shape" (10 classes), "colour" (10) and "pair" (100) on single things.

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
