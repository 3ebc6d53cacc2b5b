"""`shapes-relations`: relations apart by phrase, by form of sentence and by position.

`shapes++` draws all three at random; here each category holds two of them and tells the third.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from clic.seeding import generator
from clic.shapes.language import RELATION_PHRASES
from clic.shapes.scenes import (
    INVERSE,
    Relation,
    Scene,
    Thing,
    relation,
    sample_diagonal,
    sample_near,
    sample_off_centre,
    sample_pair,
)
from clic.shapes.world_rows import SceneImages, TripletRow, WorldTriplets

_PLAIN: Final = "a {colour} {shape} {phrase} a {colour2} {shape2}"  # as `language.relate` has it
_SIMPLE: Final[dict[Relation, tuple[str, ...]]] = {
    which: phrases[:1] for which, phrases in RELATION_PHRASES.items()
}
"""The first phrase of each relation: left of, right of, above, below."""


@dataclass(frozen=True)
class _Category:
    """How a category makes its scenes and its sentences.

    Attributes:
        phrases: What it may call each relation; a scene whose relation is not here is redrawn.
        form: The sentence; the second thing's fields end in 2.
        scene: Draws a pair.
    """

    phrases: Mapping[Relation, tuple[str, ...]]
    form: str = _PLAIN
    scene: Callable[[np.random.Generator], Scene] = sample_pair


def _beside(left: str, right: str) -> _Category:
    return _Category({"left": (left,), "right": (right,)})


def _stacked(above: tuple[str, ...], below: str) -> _Category:
    return _Category({"above": above, "below": (below,)})


_BY_GROUP: Final[dict[str, dict[str, _Category]]] = {
    "phrases": {
        "left_of": _beside("left of", "right of"),
        "to_the_left_of": _beside("to the left of", "to the right of"),
        "on_the_left_of": _beside("on the left of", "on the right of"),
        "above": _stacked(("above",), "below"),
        "over": _stacked(("over",), "under"),
        "beneath": _stacked(("above", "over"), "beneath"),
    },
    "forms": {
        "is": _Category(_SIMPLE, "a {colour} {shape} is {phrase} a {colour2} {shape2}"),
        "there_is": _Category(_SIMPLE, f"there is {_PLAIN}"),
        "the_is": _Category(_SIMPLE, "the {colour} {shape} is {phrase} the {colour2} {shape2}"),
    },
    "positions": {
        "near": _Category(_SIMPLE, scene=sample_near),
        "diagonal": _Category(_SIMPLE, scene=sample_diagonal),
        "off_centre": _Category(_SIMPLE, scene=sample_off_centre),
    },
}
RELATION_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    group: tuple(categories) for group, categories in _BY_GROUP.items()
}
"""The categories of `shapes-relations` by what they tell apart."""


def _say(form: str, first: Thing, phrase: str, second: Thing) -> str:
    return form.format(
        colour=first.colour,
        shape=first.shape,
        phrase=phrase,
        colour2=second.colour,
        shape2=second.shape,
    )


def _row(category: _Category, scene: Scene, rng: np.random.Generator) -> tuple[str, str, str]:
    """Return two true captions of a scene and a false one."""
    a, b = (scene.things[i] for i in rng.permutation(2))
    which = relation(a, b)
    phrase, inverse = (
        phrases[rng.integers(len(phrases))]
        for phrases in (category.phrases[which], category.phrases[INVERSE[which]])
    )
    swapped, replaced = (b, phrase, a), (a, inverse, b)
    false = swapped if rng.integers(2) else replaced
    first, second, third = (
        _say(category.form, *words) for words in ((a, phrase, b), (b, inverse, a), false)
    )
    return first, second, third


def _scene(category: _Category, rng: np.random.Generator) -> Scene:
    """Draw a scene whose relation the category has phrases for."""
    while True:
        scene = category.scene(rng)
        if relation(*scene.things) in category.phrases:
            return scene


def relations(split: str, per_category: int = 300, seed: int = 0) -> WorldTriplets:
    """Make `shapes-relations`.

    Positive 2 names the two things in the other order, with the inverse relation. The negative is
    positive 1 with one edit, drawn at random: the two phrases around the relation exchanged
    (`shapes++`'s swap_phrase), or the relation replaced by its inverse (its replace_rel).

    The categories of "phrases" are named after the phrase for left or above and hold its inverse
    too ("on_the_left_of": on the left of, on the right of; "over": over, under), in the plain form
    "a red circle over a blue square". In "beneath" each row has beneath on the one side and above
    or over on the other. Those of "forms" have the words left of, right of, above and below in
    other sentences: "a red circle is above a blue square" (is), "there is a red circle left of a
    blue square" (there_is), "the red circle is left of the blue square" (the_is). The scenes of
    both are those of `shapes++`. Those of "positions" have the same words in the plain form, and
    scenes of `clic.shapes.scenes`: near, diagonal and off_centre.

    Args:
        split: "train", "validation" or "test".
        per_category: Rows of each category; each row has an image of its own.
        seed: Seed of the scenes.

    Returns:
        Images and rows, in the order of `RELATION_GROUPS`.
    """
    purpose = f"shapes/{split}/relations"
    scenes: list[Scene] = []
    rows: list[TripletRow] = []
    for categories in _BY_GROUP.values():
        for name, category in categories.items():
            rng = generator(seed, f"{purpose}/{name}")
            for _ in range(per_category):
                scene = _scene(category, rng)
                rows.append(TripletRow(name, len(scenes), *_row(category, scene, rng)))
                scenes.append(scene)
    return WorldTriplets(SceneImages(tuple(scenes), purpose, seed), tuple(rows))
