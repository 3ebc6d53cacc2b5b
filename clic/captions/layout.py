"""Where the images of a composite lie, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from clic.captions.sentences import end_sentence
from clic.captions.word_lists import word_set
from clic.errors import ConfigError, pick

Relation = Literal["left", "right", "above", "below"]
Place = tuple[int, int]  # top and left of an image's cell, in pixels

INVERSE: dict[Relation, Relation] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}
Phrases = dict[Relation, tuple[str, ...]]
PHRASES: Phrases = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
"""How a relation is said; the synonyms of one relation mean the same."""

_INVERSE_PHRASE = {
    "left of": "right of",
    "to the left of": "to the right of",
    "on the left of": "on the right of",
    "above": "below",
    "over": "under",
}
_INVERSE_PHRASE |= {said: phrase for phrase, said in _INVERSE_PHRASE.items()} | {"beneath": "over"}
_MARKS = " \t\r\n.!?…;:,。！？"

# First words that lose the capital of a sentence's start inside another sentence. Other words may
# be names.
_LOWERED = word_set(
    "A An The This That These Those There It He She They We One Two Three Four Five Six Several "
    "Some Many Few Multiple Various Another In On At Of With Near Inside Outside"
)


class Sentence(NamedTuple):
    """The caption of an image, told as it stands."""

    image: int

    def text(self, captions: Sequence[str]) -> str:
        """Return the sentence, with its period."""
        return end_sentence(captions[self.image])

    def inverse(self) -> Sentence:
        """Return the other way to tell it, which is the same."""
        return self


class Statement(NamedTuple):
    """Where one image lies as seen from another: "t1 left of t2".

    Attributes:
        first: Number of the image that is spoken of.
        relation: Where it lies.
        second: Number of the image from which it lies there.
        phrase: Says `relation`.
        inverse_phrase: Says the inverse relation.
    """

    first: int
    relation: Relation
    second: int
    phrase: str
    inverse_phrase: str

    def segments(self, captions: Sequence[str]) -> tuple[str, str, str]:
        """Return the words before the phrase, the phrase, and the words after it."""
        return _bare(captions[self.first]), self.phrase, _lowered(_bare(captions[self.second]))

    def text(self, captions: Sequence[str]) -> str:
        """Return the sentence, with its period."""
        return end_sentence(" ".join(self.segments(captions)))

    def inverse(self) -> Statement:
        """Return the same fact as told from the second image: "t2 right of t1"."""
        inverse = INVERSE[self.relation]
        return Statement(self.second, inverse, self.first, self.inverse_phrase, self.phrase)

    def contradictions(self) -> tuple[Statement, Statement]:
        """Return the opposite in two wordings: the inverse phrase, or the images exchanged."""
        inverted = self.inverse()._replace(first=self.first, second=self.second)
        return inverted, inverted.inverse()


Part = Sentence | Statement
"""What a joined caption is made of."""


def tell(parts: Iterable[Part], captions: Sequence[str], period: bool = True) -> str:
    """Return the joined caption of some parts, in their order.

    Args:
        parts: What is said.
        captions: One caption of each image.
        period: Whether the last period stays.
    """
    text = " ".join(part.text(captions) for part in parts)
    return text if period else text.removesuffix(".")


def retold(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the same in other words: in the opposite order, each relation by its inverse."""
    return tuple(part.inverse() for part in reversed(parts))


def relation(first: Place, second: Place) -> Relation | None:
    """Return where `first` lies as seen from `second`; None where they share no row or column."""
    if first == second:
        return None
    if first[0] == second[0]:
        return "left" if first[1] < second[1] else "right"
    if first[1] == second[1]:
        return "above" if first[0] < second[0] else "below"
    return None


def may_lie(first: Place, which: Relation, second: Place) -> bool:
    """Return whether somebody may say that `first` lies so: askew counts too.

    In a grid, the upper left image is "left of" the lower right one, if one likes.
    """
    axis = 1 if which in ("left", "right") else 0
    smaller = which in ("left", "above")
    return first[axis] < second[axis] if smaller else first[axis] > second[axis]


def without(held_out: Sequence[str]) -> Phrases:
    """Return the phrases of each relation but those held out.

    Raises:
        ConfigError: One is unknown, or a relation has none left.
    """
    known = {phrase: phrase for phrases in PHRASES.values() for phrase in phrases}
    for phrase in held_out:
        pick(known, phrase, "captions.layout_held_out")
    left = {which: tuple(p for p in said if p not in held_out) for which, said in PHRASES.items()}
    for which, said in left.items():
        if not said:
            raise ConfigError(
                f"captions.layout_held_out={list(held_out)} leaves no way to say {which!r}; keep "
                f"one of {', '.join(PHRASES[which])}"
            )
    return left


def state(
    places: Sequence[Place], phrases: Phrases, rng: np.random.Generator
) -> tuple[Statement, ...]:
    """Return statements that tell where the images of a composite lie.

    The second wording of each has the inverse phrase, "over" and "under", or another one of the
    inverse relation where that is held out.

    Two images share a row or a column, and one statement tells it. Of a grid, either the rows are
    told or the columns, a statement for each.

    Args:
        places: Of each image.
        phrases: Of each relation.
        rng: Draws the phrases, and of a grid rows or columns and every order; a pair's first image
            comes first.
    """
    if len(places) < 2:
        raise ValueError(f"places={list(places)}: two images or more have a layout to tell")
    found: dict[str, list[tuple[int, int]]] = {"row": [], "column": []}
    for pair in combinations(range(len(places)), 2):
        which = relation(places[pair[0]], places[pair[1]])
        if which is not None:
            found["row" if which in ("left", "right") else "column"].append(pair)
    axes = [pairs for pairs in found.values() if pairs]
    pairs = axes[0] if len(axes) == 1 else axes[int(rng.integers(len(axes)))]
    if len(pairs) > 1:  # which of two comes first
        pairs = [pairs[i][:: int(rng.choice((1, -1)))] for i in rng.permutation(len(pairs))]
    return tuple(_statement(first, second, places, phrases, rng) for first, second in pairs)


def _statement(
    first: int, second: int, places: Sequence[Place], phrases: Phrases, rng: np.random.Generator
) -> Statement:
    which = relation(places[first], places[second])
    assert which is not None
    said, opposite = phrases[which], phrases[INVERSE[which]]
    phrase = said[int(rng.integers(len(said)))]
    inverse = _INVERSE_PHRASE[phrase]
    return Statement(first, which, second, phrase, inverse if inverse in opposite else opposite[-1])


def _bare(caption: str) -> str:
    """Return a caption without the mark that ends it."""
    return caption.strip().rstrip(_MARKS)


def _lowered(caption: str) -> str:
    """Return a caption as it goes on inside a sentence."""
    word = caption.split(maxsplit=1)[0] if caption else ""
    return caption[:1].lower() + caption[1:] if word in _LOWERED else caption
