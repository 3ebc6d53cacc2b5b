"""Exact sentences about scenes, in lower case, and the exact tags of their words.

Every noun and every colour of the world begins with a consonant, so that the article is always "a"
and grammar never reveals that words were exchanged. Every word has one part of speech.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from clic.shapes.scenes import COLOURS, SHAPES, Scene, Size, Thing, relation
from clic.types import RELATION_PHRASES, Relation, Token

SIZE_WORDS: Final[dict[Size, tuple[str, ...]]] = {
    "small": ("small", "little"),
    "large": ("large", "big"),
}

# {it} is "a red circle", {sized} "a small red circle"; the second thing's fields end in 2.
SINGLE_FORMS: Final = (
    "there is {it}",
    "this is {it}",
    "a picture of {it}",
    "the {shape} is {colour}",
    "a {shape} that is {colour}",
    "there is a {shape}",
    "there is a {colour} thing",
    "{sized}",
    "there is {sized}",
    "the {colour} {shape} is {size}",
)
PAIR_FORMS: Final = (
    "there is {it} and {it2}",
    "a picture of {it} and {it2}",
    "{it} next to {it2}",
    "{sized} and {sized2}",
    "the {colour} {shape} is {size} and the {colour2} {shape2} is {size2}",
)
RELATIONAL_FORMS: Final = (
    "{it} {relation} {it2}",
    "{it} is {relation} {it2}",
    "there is {it} {relation} {it2}",
    "the {colour} {shape} is {relation} the {colour2} {shape2}",
    "{sized} {relation} {sized2}",
)

_WORDS_BY_POS = {
    "ADJ": (*COLOURS, *(word for words in SIZE_WORDS.values() for word in words)),
    "ADP": ("of", "to", "on", "above", "over", "below", "under", "beneath"),
    "ADV": ("next",),
    "AUX": ("is",),
    "CCONJ": ("and",),
    "DET": ("a", "the"),
    "NOUN": (*SHAPES, "thing", "left", "right", "picture"),
    "PRON": ("there", "this", "that"),
}
LEXICON: Final[dict[str, tuple[str, str]]] = {
    word: (pos, "be" if word == "is" else word)
    for pos, words in _WORDS_BY_POS.items()
    for word in words
}
"""Part of speech (universal tag set) and lemma of every word of the world."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


def tag(caption: str) -> tuple[Token, ...]:
    """Return the exact tokens of a caption made of the world's words.

    Raises:
        KeyError: A word is not one of the world's.
    """
    tokens = []
    for match in _TOKEN.finditer(caption):
        word = match.group()
        pos, lemma = LEXICON[word] if word[0].isalnum() else ("PUNCT", word)
        tokens.append(Token(word, match.start(), match.end(), pos, lemma))
    return tuple(tokens)


def name(thing: Thing) -> str:
    """Return the exact phrase for a thing without its size, "a red circle"."""
    return f"a {thing.colour} {thing.shape}"


def name_pair(first: Thing, second: Thing) -> str:
    """Return the phrase for two things without their relation."""
    return f"{name(first)} and {name(second)}"


def relate(first: Thing, second: Thing, phrase: str) -> str:
    """Return the phrase for two things with a relation's phrase between them."""
    return f"{name(first)} {phrase} {name(second)}"


def _choose(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def relation_phrase(which: Relation, rng: np.random.Generator) -> str:
    """Draw one of the phrases of a relation."""
    return _choose(RELATION_PHRASES[which], rng)


def _fields(thing: Thing, rng: np.random.Generator) -> dict[str, str]:
    size = _choose(SIZE_WORDS[thing.size], rng)
    return {
        "it": name(thing),
        "sized": f"a {size} {thing.colour} {thing.shape}",
        "shape": thing.shape,
        "colour": thing.colour,
        "size": size,
    }


def _pair_sentence(form: str, scene: Scene, rng: np.random.Generator) -> str:
    first, second = (scene.things[i] for i in rng.permutation(2))
    second_fields = {f"{key}2": value for key, value in _fields(second, rng).items()}
    phrase = relation_phrase(relation(first, second), rng)
    return form.format(relation=phrase, **_fields(first, rng), **second_fields)


def captions(scene: Scene, rng: np.random.Generator, count: int = 4) -> tuple[str, ...]:
    """Draw true sentences about a scene.

    The first one names the things with colour and shape, in random order, and says nothing about
    sizes and relations. About half of the further sentences about a pair state the relation.

    Args:
        scene: One or two things.
        rng: Draws the wording.
        count: Number of sentences, from 1 to 11.

    Returns:
        Sentences without a final period, no form twice.
    """
    if len(scene.things) == 1:
        (thing,) = scene.things
        forms = rng.permutation(np.array(SINGLE_FORMS))[: count - 1]
        return (name(thing), *(str(form).format(**_fields(thing, rng)) for form in forms))
    forms = rng.permutation(np.array(PAIR_FORMS + RELATIONAL_FORMS))[: count - 1]
    first, second = (scene.things[i] for i in rng.permutation(2))
    return (name_pair(first, second), *(_pair_sentence(str(form), scene, rng) for form in forms))
