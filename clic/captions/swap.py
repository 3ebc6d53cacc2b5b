"""NegCLIP's hard negative: two parts of one caption change places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from clic.captions.draws import first_valid
from clic.captions.edits import Change, apply_edits, make_edits, plain
from clic.captions.phrases import NounPhrase, is_plural, meaning, noun_phrases
from clic.captions.words import RELATIONAL_NOUNS
from clic.types import HardNegative, Token

MAX_TOKENS = 128  # no text tower reads more; it also bounds the pairs that are looked at

Range = tuple[int, int]


def swap(caption: str, tokens: Sequence[Token], rng: np.random.Generator) -> HardNegative | None:
    """Let two parts of a caption change places (NegCLIP; Yuksekgonul et al., arXiv 2210.01936).

    The parts are two nouns, adjectives, verbs, adverbs or noun phrases. Each of these kinds that
    the caption has is equally likely, then each pair; noun phrases of unequal number swap only
    where nothing else does. A result of the same meaning (both sides
    of an "and", of a relation without direction, of one noun's adjectives) is drawn anew.

    Args:
        caption: A true caption.
        tokens: Its tokens.
        rng: Draws the pair.

    Returns:
        The false caption with its edits, or None where no pair gives one.
    """
    tokens = tokens[:MAX_TOKENS]
    phrases = noun_phrases(tokens)
    truth = meaning(tokens, phrases)

    def build(pair: tuple[Range, Range]) -> HardNegative | None:
        if meaning(*_exchanged(tokens, phrases, pair)) == truth:
            return None
        texts = [plain(caption, tokens, *part) for part in pair]
        if texts[0].lower() == texts[1].lower():
            return None
        changes = [Change(*pair[0], texts[1]), Change(*pair[1], texts[0])]
        edits = make_edits(caption, tokens, changes)
        return HardNegative(apply_edits(caption, edits), "swap", edits)

    groups = [list(_word_pairs(tokens, pos)) for pos in ("NOUN", "ADJ", "VERB", "ADV")]
    equal, unequal = _phrase_pairs(tokens, phrases)
    return first_valid([*groups, equal], build, rng) or first_valid([unequal], build, rng)


def _word_pairs(tokens: Sequence[Token], pos: str) -> Iterator[tuple[Range, Range]]:
    """Yield pairs of words of that tag whose forms agree."""
    places = [i for i, t in enumerate(tokens) if t.pos == pos and _movable(tokens, i)]
    for i, j in combinations(places, 2):
        if _form(tokens[i]) == _form(tokens[j]) and tokens[i].lemma != tokens[j].lemma:
            yield (i, i + 1), (j, j + 1)


def _movable(tokens: Sequence[Token], index: int) -> bool:
    """Return whether a word can stand elsewhere: nouns only as the head of a thing's name."""
    if tokens[index].pos != "NOUN":
        return True
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    compound = following is not None and following.pos in ("NOUN", "PROPN")
    measure = following is not None and following.text.lower() == "of"
    return not (compound or measure or tokens[index].text.lower() in RELATIONAL_NOUNS)


def _form(token: Token) -> str:
    """Return what two words must share to fit each other's place."""
    word = token.text.lower()
    if token.pos == "NOUN":
        return "plural" if is_plural(token) else "singular"
    if token.pos == "VERB":
        return next((end for end in ("ing", "ed", "s") if word.endswith(end)), "")
    return ""


def _phrase_pairs(
    tokens: Sequence[Token], phrases: Sequence[NounPhrase]
) -> tuple[list[tuple[Range, Range]], list[tuple[Range, Range]]]:
    """Return the pairs of noun phrases of equal number, and those of unequal number.

    Single words are the business of `_word_pairs`; in front of a verb the number must fit.
    """
    equal, unequal = [], []
    for a, b in combinations([p for p in phrases if _movable(tokens, p.head)], 2):
        pair = (a.first, a.last), (b.first, b.last)
        if is_plural(tokens[a.head]) != is_plural(tokens[b.head]):
            if not (_is_subject(tokens, a) or _is_subject(tokens, b)):
                unequal.append(pair)
        elif max(a.last - a.first, b.last - b.first) > 1:
            equal.append(pair)
    return equal, unequal


def _is_subject(tokens: Sequence[Token], phrase: NounPhrase) -> bool:
    """Return whether a finite verb follows at once."""
    if phrase.last == len(tokens):
        return False
    following = tokens[phrase.last]
    return following.pos == "AUX" or (following.pos == "VERB" and _form(following) in ("", "s"))


def _exchanged(
    tokens: Sequence[Token], phrases: Sequence[NounPhrase], pair: tuple[Range, Range]
) -> tuple[list[Token], list[NounPhrase]]:
    """Return the tokens and noun phrases as they are after the two parts changed places."""
    (a, b), (c, d) = pair
    order = [*range(a), *range(c, d), *range(b, c), *range(a, b), *range(d, len(tokens))]
    grown = (d - c) - (b - a)
    moved = []
    for first, last, head in phrases:
        if (first, last) == (c, d):
            offset = a - c
        elif (first, last) == (a, b):
            offset = c - a + grown
        else:
            offset = grown if b <= first < d else 0
        moved.append(NounPhrase(first + offset, last + offset, head + offset))
    return [tokens[i] for i in order], sorted(moved)
