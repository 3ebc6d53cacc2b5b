"""True captions of a composite: its images' sentences joined, or the layout of its images.

A composite's caption p1 joins parts, each of which is the sentence of one image ("t1. t2.") or a
statement of where one image lies relative to another ("t1 left of t2."). p2 says the same in other
words: in the opposite order, each relation by its inverse ("t2 right of t1.").
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from clic.captions.lexicon import ARTICLES, WORDS
from clic.captions.text import end_sentence, fold, has_words, join
from clic.errors import ConfigError, DataError, pick
from clic.types import INVERSE, INVERSE_PHRASE, RELATION_PHRASES, Relation

Place = tuple[int, int]  # top and left of an image's cell, in pixels
Phrases = dict[Relation, tuple[str, ...]]

_FINAL_MARKS = " \t\r\n.!?…;:,。！？"
_PUNCTUATION = string.punctuation + "“”‘’«»…—–"
_NO_WORDS = frozenset(ARTICLES) | {""}


class Sentence(NamedTuple):
    """A part of a joined caption: the caption of one image, unchanged."""

    image: int

    @property
    def images(self) -> tuple[int, ...]:
        """The images that the part is about."""
        return (self.image,)

    def text(self, captions: Sequence[str]) -> str:
        """Return the sentence with its period."""
        return end_sentence(captions[self.image])

    def inverse(self) -> Sentence:
        """Return the sentence itself: it has only one wording."""
        return self


class Statement(NamedTuple):
    """A part of a joined caption: where one image lies relative to another ("t1 left of t2").

    Attributes:
        first: Number of the image whose place is stated.
        relation: Where it lies.
        second: Number of the image that it is related to.
        phrase: Expresses `relation`.
        inverse_phrase: Expresses the inverse relation.
    """

    first: int
    relation: Relation
    second: int
    phrase: str
    inverse_phrase: str

    @property
    def images(self) -> tuple[int, ...]:
        """The images that the part is about."""
        return self.first, self.second

    def segments(self, captions: Sequence[str]) -> tuple[str, str, str]:
        """Return the words before the phrase, the phrase, and the words after it."""
        first, second = (captions[i].strip().rstrip(_FINAL_MARKS) for i in self.images)
        if second and second.split(maxsplit=1)[0] in WORDS["lowered"]:
            second = second[:1].lower() + second[1:]
        return first, self.phrase, second

    def text(self, captions: Sequence[str]) -> str:
        """Return the sentence with its period."""
        return end_sentence(" ".join(self.segments(captions)))

    def inverse(self) -> Statement:
        """Return the same fact with the second image first: "t2 right of t1"."""
        inverse = INVERSE[self.relation]
        return Statement(self.second, inverse, self.first, self.inverse_phrase, self.phrase)

    def contradictions(self) -> tuple[Statement, Statement]:
        """Return the opposite in two wordings: with the inverse phrase, or the images exchanged."""
        inverted = self.inverse()._replace(first=self.first, second=self.second)
        return inverted, inverted.inverse()


Part = Sentence | Statement


class TokenBudget(NamedTuple):
    """How long a caption may be for a model to read it to its end.

    Attributes:
        count_tokens: Returns the number of tokens of a text, start and end included.
        context: Number of tokens that the model reads.
    """

    count_tokens: Callable[[str], int]
    context: int

    def fits(self, *texts: str) -> bool:
        """Return whether the model reads every text to its end."""
        return all(self.count_tokens(text) <= self.context for text in texts)


@dataclass(frozen=True)
class Composite:
    """A composite's sentences and layout, and the parts of its first caption.

    Attributes:
        sentences: The true sentences of each image; t_i is the first one of image i.
        places: Where each image lies.
        parts: The parts that p1 joins; p2 joins them `reworded`.
        period: Whether the composite's captions, true and false, end with a period.

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
    def _texts(self) -> list[list[str]]:
        """Each image's sentences in the form used for comparison."""
        return [list(map(_compared, sentences)) for sentences in self.sentences]

    def positives(self) -> tuple[str, str]:
        """Return p1 and p2."""
        return self.text(self.parts, self.captions), self.text(reworded(self.parts), self.captions)

    def text(self, parts: Sequence[Part], captions: Sequence[str]) -> str:
        """Return the joined caption of some parts, with t_1 to t_k or other captions."""
        return join_parts(parts, captions, self.period)

    def images(self) -> list[int]:
        """Return the numbers of the images that the caption mentions."""
        return sorted({image for part in self.parts for image in part.images})

    def within(self, budget: TokenBudget | None) -> Composite:
        """Return the composite with as many of its shortest parts as fit the budget.

        If not even one statement fits, sentences are joined instead.
        """
        if budget is None or budget.fits(*self.positives()):
            return self
        wordings = ([p.text(self.captions) for p in (part, part.inverse())] for part in self.parts)
        kept = shortest_first([max(pair, key=budget.count_tokens) for pair in wordings], budget)
        shorter = replace(self, parts=tuple(self.parts[number] for number in kept))
        if isinstance(shorter.parts[0], Statement) and not budget.fits(*shorter.positives()):
            return sentence_composite(self.sentences, self.places).within(budget)
        return shorter

    def may_be_true(self, parts: Sequence[Part], captions: Sequence[str]) -> bool:
        """Return whether parts may be true of the composite, judged by its sentences.

        A caption is true of an image if one of the image's sentences contains all of its words.
        The unchanged caption of another image may be true if a sentence of this image has fewer
        words: the dog of "a dog" may be brown. A caption with changed words counts as false there,
        as in CLIC. The places of things within one image are unknown, too.

        Args:
            parts: The parts of a caption.
            captions: t_1 to t_k, possibly with changed words.
        """
        matches = []
        for caption, (own, *_) in zip(captions, self._texts, strict=True):
            words = bag_of_words(caption)
            unchanged = _has_all(own, words) and words == _bag(own)
            matches.append(
                [
                    image
                    for image, texts in enumerate(self._texts)
                    if any(
                        _has_all(text, words) or (unchanged and _bag(text) <= words)
                        for text in texts
                    )
                ]
            )
        return all(self._part_may_be_true(part, matches) for part in parts)

    def _part_may_be_true(self, part: Part, matches: Sequence[Sequence[int]]) -> bool:
        if isinstance(part, Sentence):
            return bool(matches[part.image])
        return any(
            one == two or may_hold(self.places[one], part.relation, self.places[two])
            for one in matches[part.first]
            for two in matches[part.second]
        )


def sentence_composite(
    sentences: Sequence[Sequence[str]], places: Sequence[Place] = ()
) -> Composite:
    """Return a composite whose caption joins those of its images: "t1. t2.".

    Args:
        sentences: The sentences of each image, at least one.
        places: Where each image lies; not needed unless the caption states the layout.
    """
    parts = tuple(map(Sentence, range(len(sentences))))
    return Composite(tuple(map(tuple, sentences)), tuple(places), parts)


def layout_composite(
    sentences: Sequence[Sequence[str]],
    places: Sequence[Place],
    phrases: Phrases,
    rng: np.random.Generator,
    period: bool = True,
) -> Composite:
    """Return a composite whose caption states its layout: "t1 left of t2.".

    Args:
        sentences: The sentences of each image, at least one.
        places: Where each image lies.
        phrases: The phrases of each relation.
        rng: Draws the statements and their wording.
        period: Whether the composite's captions end with a period.
    """
    parts = layout_statements(places, phrases, rng)
    return Composite(tuple(map(tuple, sentences)), tuple(places), parts, period)


def layout_statements(
    places: Sequence[Place], phrases: Phrases, rng: np.random.Generator
) -> tuple[Statement, ...]:
    """Return statements that say where the images of a composite lie.

    Two images that share a row or a column give one statement. A grid gives a statement for each
    of its rows, or for each of its columns. The inverse of a statement has the inverse phrase
    ("over" and "under"), or another phrase of the inverse relation if that one is held out.

    Args:
        places: Where each image lies.
        phrases: The phrases of each relation.
        rng: Draws the phrases and, for a grid, rows or columns and every order. With two
            images, the first comes first.
    """
    if len(places) < 2:
        raise ValueError(f"places={list(places)}: two images or more have a layout to state")
    found: dict[str, list[tuple[int, int]]] = {"row": [], "column": []}
    for pair in combinations(range(len(places)), 2):
        which = relation(places[pair[0]], places[pair[1]])
        if which is not None:
            found["row" if which in ("left", "right") else "column"].append(pair)
    axes = [pairs for pairs in found.values() if pairs]
    pairs = axes[0] if len(axes) == 1 else axes[int(rng.integers(len(axes)))]
    if len(pairs) > 1:
        pairs = [pairs[i][:: int(rng.choice((1, -1)))] for i in rng.permutation(len(pairs))]
    return tuple(_statement(first, second, places, phrases, rng) for first, second in pairs)


def _statement(
    first: int, second: int, places: Sequence[Place], phrases: Phrases, rng: np.random.Generator
) -> Statement:
    which = relation(places[first], places[second])
    assert which is not None
    choices, opposite = phrases[which], phrases[INVERSE[which]]
    phrase = choices[int(rng.integers(len(choices)))]
    inverse = INVERSE_PHRASE[phrase]
    return Statement(first, which, second, phrase, inverse if inverse in opposite else opposite[-1])


def remaining_phrases(held_out: Sequence[str]) -> Phrases:
    """Return the phrases of each relation except those held out.

    Raises:
        ConfigError: A phrase is unknown, or a relation has none left.
    """
    known = dict.fromkeys(phrase for phrases in RELATION_PHRASES.values() for phrase in phrases)
    for phrase in held_out:
        pick(known, phrase, "captions.layout_held_out")
    left = {
        which: tuple(p for p in all_ if p not in held_out)
        for which, all_ in RELATION_PHRASES.items()
    }
    for which, phrases in left.items():
        if not phrases:
            raise ConfigError(
                f"captions.layout_held_out={list(held_out)} leaves no way to say {which!r}; keep "
                f"one of {', '.join(RELATION_PHRASES[which])}"
            )
    return left


def join_parts(parts: Iterable[Part], captions: Sequence[str], period: bool = True) -> str:
    """Return the joined caption of some parts, in their order.

    Args:
        parts: The parts of the caption.
        captions: One caption of each image.
        period: Whether to keep the last period.
    """
    text = " ".join(part.text(captions) for part in parts)
    return text if period else text.removesuffix(".")


def reworded(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the same parts in the opposite order, each relation expressed by its inverse."""
    return tuple(part.inverse() for part in reversed(parts))


def relation(first: Place, second: Place) -> Relation | None:
    """Return where `first` lies relative to `second`; None unless they share a row or column."""
    if first == second:
        return None
    if first[0] == second[0]:
        return "left" if first[1] < second[1] else "right"
    if first[1] == second[1]:
        return "above" if first[0] < second[0] else "below"
    return None


def may_hold(first: Place, which: Relation, second: Place) -> bool:
    """Return whether a relation may be said to hold, diagonally too.

    In a grid, the upper left image may be called "left of" the lower right one.
    """
    axis = 1 if which in ("left", "right") else 0
    smaller = which in ("left", "above")
    return first[axis] < second[axis] if smaller else first[axis] > second[axis]


def bag_of_words(caption: str) -> frozenset[str]:
    """Return the words of a caption in lower case, without punctuation and articles."""
    return _bag(_compared(caption))


def _compared(caption: str) -> str:
    return fold(caption).text.lower()


def _bag(text: str) -> frozenset[str]:
    return frozenset([word.strip(_PUNCTUATION) for word in text.split()]) - _NO_WORDS


def _has_all(text: str, words: frozenset[str]) -> bool:
    """Return whether a text has all of the words; a quick substring test rules out most."""
    return all(map(text.__contains__, words)) and words <= _bag(text)


def shortest_first(texts: Sequence[str], budget: TokenBudget | None) -> list[int]:
    """Return the numbers of the texts to join, in their order.

    Args:
        texts: Sentences, at least one.
        budget: Limit of the joined text; None for all of them.

    Returns:
        As many of the shortest texts as fit when joined, but at least one.
    """
    if budget is None or budget.fits(" ".join(texts)):
        return list(range(len(texts)))
    kept: list[int] = []
    lengths = list(map(budget.count_tokens, texts))
    for number in sorted(range(len(texts)), key=lengths.__getitem__):
        longer = sorted([*kept, number])
        if kept and not budget.fits(" ".join(texts[i] for i in longer)):
            break
        kept = longer
    return kept


class Positives(NamedTuple):
    """The true captions of a composite.

    Attributes:
        texts: P captions.
        shortened: Number of captions that omit images to fit the token budget.
    """

    texts: tuple[str, ...]
    shortened: int = 0


def composite_positives(
    composite: Composite, count: int, rng: np.random.Generator, budget: TokenBudget | None = None
) -> Positives:
    """Return true captions of one composite (CLIC, arXiv 2505.24424, section 3).

    p1 and p2 join its parts: with t_i the first sentence of image i, "t1. t2. ... tk." and "tk. ...
    t2. t1.", or statements of its layout. Each further one joins one other sentence of each image,
    in random order.

    Args:
        composite: The sentences and the layout of its images.
        count: Number of captions P, at least 1.
        rng: Draws the other sentences and their order.
        budget: Limit of the further captions, which omit the longest sentences; None for no limit.

    Returns:
        `count` texts. An image's other sentences are drawn without repetition until all were used;
        an image with a single sentence contributes that one every time.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    texts = list(composite.positives()[:count])
    shortened = len(texts) * (len(composite.images()) < len(composite.sentences))
    further = count - len(texts)
    if further:
        others = (list(filter(has_words, sentences[1:])) for sentences in composite.sentences)
        drawn = [
            _draw(other or own[:1], further, rng)
            for other, own in zip(others, composite.sentences, strict=True)
        ]
        for row in zip(*drawn, strict=True):
            sentences = [end_sentence(row[i]) for i in rng.permutation(len(row))]
            kept = shortest_first(sentences, budget)
            texts.append(join([sentences[i] for i in kept]))
            shortened += len(kept) < len(sentences)
    return Positives(tuple(texts), shortened)


def _draw(sentences: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` sentences; none is repeated until each has been drawn once."""
    drawn: list[str] = []
    while len(drawn) < count:
        order = rng.permutation(len(sentences))
        drawn += [sentences[i] for i in order[: count - len(drawn)]]
    return drawn
