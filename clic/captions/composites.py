"""A composite's true caption, and whether another one may be true of it as well.

True captions of a composite image.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from clic.captions.characters import fold
from clic.captions.layout import (
    Part,
    Phrases,
    Place,
    Sentence,
    Statement,
    may_lie,
    retold,
    state,
    tell,
)
from clic.captions.sentences import end_sentence, has_words, join
from clic.captions.word_lists import ARTICLES
from clic.errors import DataError

Bag = frozenset[str]
_MARKS = string.punctuation + "“”‘’«»…—–"


class Room(NamedTuple):
    """How long a caption may be, for a model to read it to its end.

    Attributes:
        measure: Returns the tokens of a text, start and end included.
        context: Tokens that the model reads.
    """

    measure: Callable[[str], int]
    context: int

    def holds(self, *texts: str) -> bool:
        """Return whether each of some texts is read to its end."""
        return all(self.measure(text) <= self.context for text in texts)


@dataclass(frozen=True)
class Composite:
    """What is known of a composite, and what its first true caption says.

    Attributes:
        sentences: Of each image, its true sentences, t_i the first of them.
        places: Where each image lies.
        parts: What p1 joins; p2 tells the same in other words (`retold`).
        period: Whether its captions, true and false, end with a period.

    Raises:
        DataError: An image has no sentence.
    """

    sentences: tuple[tuple[str, ...], ...]
    places: tuple[Place, ...]
    parts: tuple[Part, ...]
    period: bool = True

    def __post_init__(self) -> None:
        for image, sentences in enumerate(self.sentences):
            if not sentences:
                raise DataError(
                    f"image {image} of a composite has no caption; drop it from the data"
                )

    @property
    def captions(self) -> tuple[str, ...]:
        """t_1 to t_k, the first sentence of each image."""
        return tuple(sentences[0] for sentences in self.sentences)

    @cached_property
    def _truth(self) -> list[list[Bag]]:
        """Words of each image's sentences, the first one's first."""
        return [list(map(bag, sentences)) for sentences in self.sentences]

    def positives(self) -> tuple[str, str]:
        """Return p1 and p2."""
        return self.tell(self.parts, self.captions), self.tell(retold(self.parts), self.captions)

    def tell(self, parts: Sequence[Part], captions: Sequence[str]) -> str:
        """Return the joined caption of some parts, of t_1 to t_k or of others in their place."""
        return tell(parts, captions, self.period)

    def images(self) -> list[int]:
        """Return the numbers of the images that the caption tells of."""
        return sorted({image for part in self.parts for image in _images(part)})

    def within(self, room: Room | None) -> Composite:
        """Return the composite with as many parts as the room holds, the shortest ones.

        Where it does not hold a single statement, sentences are joined instead.
        """
        if room is None or room.holds(*self.positives()):
            return self
        wordings = ((part, part.inverse()) for part in self.parts)
        longer = [
            max((part.text(self.captions) for part in pair), key=room.measure) for pair in wordings
        ]
        kept = shortest_first(longer, room)
        shorter = replace(self, parts=tuple(self.parts[number] for number in kept))
        told = isinstance(shorter.parts[0], Statement)
        if told and not room.holds(*shorter.positives()):
            return plain(self.sentences, self.places).within(room)
        return shorter

    def may_be_true(self, parts: Sequence[Part], captions: Sequence[str]) -> bool:
        """Return whether parts may be true of the composite, as far as its sentences tell.

        A caption is true of an image one of whose sentences has all of its words. A caption of
        another image may be true where a sentence of this one has fewer words: nobody knows whether
        the dog of "a dog" is brown. Only what has words changed is taken for false there, as CLIC
        does. How two things of one image lie is unknown as well.

        Args:
            parts: What is said.
            captions: t_1 to t_k, maybe with words changed.
        """
        matches = []
        for caption, (own, *_) in zip(captions, self._truth, strict=True):
            said = bag(caption)
            matches.append(
                [
                    image
                    for image, truth in enumerate(self._truth)
                    if any(said <= true or (said == own and true <= said) for true in truth)
                ]
            )
        return all(self._may_hold(part, matches) for part in parts)

    def _may_hold(self, part: Part, matches: Sequence[Sequence[int]]) -> bool:
        if isinstance(part, Sentence):
            return bool(matches[part.image])
        return any(
            one == two or may_lie(self.places[one], part.relation, self.places[two])
            for one in matches[part.first]
            for two in matches[part.second]
        )


def plain(sentences: Sequence[Sequence[str]], places: Sequence[Place] = ()) -> Composite:
    """Return a composite whose caption joins those of its images: "t1. t2.".

    Args:
        sentences: Of each image, at least one.
        places: Where each image lies; no matter where no layout is told.
    """
    parts = tuple(map(Sentence, range(len(sentences))))
    return Composite(tuple(map(tuple, sentences)), tuple(places), parts)


def relational(
    sentences: Sequence[Sequence[str]],
    places: Sequence[Place],
    phrases: Phrases,
    rng: np.random.Generator,
    period: bool = True,
) -> Composite:
    """Return a composite whose caption tells its layout: "t1 left of t2.".

    Args:
        sentences: Of each image, at least one.
        places: Where each image lies.
        phrases: Of each relation.
        rng: Draws what is told, and how.
        period: Whether the composite's captions end with a period.
    """
    parts = state(places, phrases, rng)
    return Composite(tuple(map(tuple, sentences)), tuple(places), parts, period)


def bag(caption: str) -> Bag:
    """Return the words of a caption in lower case, without marks and articles."""
    words = (word.strip(_MARKS) for word in fold(caption).text.lower().split())
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


class Positives(NamedTuple):
    """The true captions of a composite.

    Attributes:
        texts: P captions.
        shortened: How many of them leave images out, for want of room.
    """

    texts: tuple[str, ...]
    shortened: int = 0


def composite_positives(
    composite: Composite,
    count: int,
    rng: np.random.Generator,
    room: Room | None = None,
) -> Positives:
    """Return true captions of one composite (CLIC, arXiv 2505.24424, section 3).

    p1 and p2 tell its parts: with t_i the first sentence of image i, "t1. t2. ... tk." and "tk. ...
    t2. t1.", or where the images lie. Each further one joins one other sentence of each image, in
    random order.

    Args:
        composite: What is known of it.
        count: Number of captions P wanted, at least 1.
        rng: Draws the other sentences and their order.
        room: How long the further ones may be: the longest sentences are left out. None for any
            length.

    Returns:
        `count` texts. An image's other sentences are drawn without repetition until each was
        used; an image that has one sentence alone gives that one every time.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    texts = list(composite.positives()[:count])
    left_out = len(composite.images()) < len(composite.sentences)
    shortened = len(texts) * left_out
    further = count - len(texts)
    if further:
        others = (list(filter(has_words, sentences[1:])) for sentences in composite.sentences)
        drawn = [
            _draw(other or own[:1], further, rng)
            for other, own in zip(others, composite.sentences, strict=True)
        ]
        for row in zip(*drawn, strict=True):
            said = [end_sentence(row[i]) for i in rng.permutation(len(row))]
            kept = shortest_first(said, room)
            texts.append(join([said[i] for i in kept]))
            shortened += len(kept) < len(said)
    return Positives(tuple(texts), shortened)


def _draw(sentences: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` sentences, none twice before all were drawn once."""
    drawn: list[str] = []
    while len(drawn) < count:
        order = rng.permutation(len(sentences))
        drawn += [sentences[i] for i in order[: count - len(drawn)]]
    return drawn
