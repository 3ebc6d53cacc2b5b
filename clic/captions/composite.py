"""A composite's true caption, and whether another one may be true of it as well."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from clic.captions.layout import Part, Phrases, Place, Sentence, may_lie, retold, state, tell
from clic.captions.words import ARTICLES

Bag = frozenset[str]
_MARKS = string.punctuation + "“”‘’«»…—–"


class Room(NamedTuple):
    """How much text a model reads.

    Attributes:
        measure: Returns the tokens of a text, start and end included.
        context: Tokens that the model reads.
    """

    measure: Callable[[str], int]
    context: int

    def holds(self, text: str) -> bool:
        """Return whether a text is read to its end."""
        return self.measure(text) <= self.context


@dataclass(frozen=True)
class Composite:
    """What is known of a composite, and what its first true caption says.

    Attributes:
        captions: t_1 to t_k, the first sentence of each image.
        places: Where each image lies.
        parts: What p1 joins; p2 tells the same in other words (`retold`).
    """

    captions: tuple[str, ...]
    places: tuple[Place, ...]
    parts: tuple[Part, ...]

    def positives(self) -> tuple[str, str]:
        """Return p1 and p2."""
        return tell(self.parts, self.captions), tell(retold(self.parts), self.captions)

    def images(self) -> list[int]:
        """Return the numbers of the images that the caption tells of."""
        return sorted({image for part in self.parts for image in _images(part)})

    def within(self, room: Room | None) -> Composite:
        """Return the composite with as many parts as the room holds, the shortest ones."""
        kept = shortest_first([part.text(self.captions) for part in self.parts], room)
        return replace(self, parts=tuple(self.parts[number] for number in kept))

    def may_be_true(self, parts: Sequence[Part], captions: Sequence[str]) -> bool:
        """Return whether parts may be true of the composite, as far as its captions tell.

        A caption is true of an image whose own caption has all of its words. A caption of another
        image may be true where the image's own has fewer words: nobody knows whether the dog of "a
        dog" is brown. Only what has words changed is taken for false there, as CLIC does. How two
        things of one image lie is unknown as well.

        Args:
            parts: What is said.
            captions: t_1 to t_k, maybe with words changed.
        """
        truth = list(map(bag, self.captions))
        matches = [
            [i for i, true in enumerate(truth) if said <= true or (said == own and true <= said)]
            for said, own in zip(map(bag, captions), truth, strict=True)
        ]
        return all(self._may_hold(part, matches) for part in parts)

    def _may_hold(self, part: Part, matches: Sequence[Sequence[int]]) -> bool:
        if isinstance(part, Sentence):
            return bool(matches[part.image])
        return any(
            one == two or may_lie(self.places[one], part.relation, self.places[two])
            for one in matches[part.first]
            for two in matches[part.second]
        )


def plain(captions: Sequence[str], places: Sequence[Place] = ()) -> Composite:
    """Return a composite whose caption joins those of its images: "t1. t2."."""
    parts = tuple(map(Sentence, range(len(captions))))
    return Composite(tuple(captions), tuple(places), parts)


def relational(
    captions: Sequence[str], places: Sequence[Place], phrases: Phrases, rng: np.random.Generator
) -> Composite:
    """Return a composite whose caption tells its layout: "t1 left of t2."."""
    return Composite(tuple(captions), tuple(places), state(places, phrases, rng))


def bag(caption: str) -> Bag:
    """Return the words of a caption in lower case, without marks and articles."""
    words = (word.strip(_MARKS) for word in caption.lower().split())
    return frozenset(word for word in words if word and word not in ARTICLES)


def shortest_first(texts: Sequence[str], room: Room | None) -> list[int]:
    """Return which texts to join, in their order.

    Args:
        texts: Sentences, at least one.
        room: How much may be joined; None for all of them.

    Returns:
        The shortest ones, as many as there is room for when joined; one at the least, whatever
        its length.
    """
    if room is None or room.holds(" ".join(texts)):
        return list(range(len(texts)))
    kept: list[int] = []
    lengths = list(map(room.measure, texts))
    for number in sorted(range(len(texts)), key=lengths.__getitem__):
        longer = sorted([*kept, number])
        if kept and not room.holds(" ".join(texts[i] for i in longer)):
            break
        kept = longer
    return kept


def _images(part: Part) -> tuple[int, ...]:
    return (part.image,) if isinstance(part, Sentence) else (part.first, part.second)
