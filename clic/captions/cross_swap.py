"""CLIC's hard negative: one word of each of two captions change places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import filterfalse
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from clic.captions.characters import spelled
from clic.captions.edits import Change, Pairs, apply_edits, first_valid, make_edits, plain
from clic.captions.sentences import join
from clic.captions.word_lists import ARTICLES, word_set
from clic.types import Edit, HardNegative, Token

EXCLUDED_TAGS = word_set("AUX DET INTJ PART PUNCT SYM X SCONJ CCONJ")
_TEXT, _TAG = itemgetter(0), itemgetter(3)  # of a token, faster than by name


class _Caption(NamedTuple):
    """A caption with what the draw and the check look at, made once."""

    text: str
    tokens: Sequence[Token]
    words: list[str]  # of each token, in lower case
    tagged: dict[tuple[str, str], None]  # tags and words, each pair where it first occurs


def cross_swap(
    captions: Sequence[str],
    tokens: Sequence[tuple[Token, ...]],
    rng: np.random.Generator,
    repair: bool = True,
    put_together: Callable[[list[str], bool], str | None] | None = None,
) -> HardNegative | None:
    """Swap one word of t1 with one of t2 and join the two (CLIC, arXiv 2505.24424, section 3).

    The two words have the same universal POS, outside `EXCLUDED_TAGS`; a word that occurs in
    both captions under that POS never swaps. Without such a pair any two words may that only
    one of the captions has. Every occurrence is replaced as a whole word, and the captions are
    joined in random order. Each POS is equally likely, then each pair of words.

    Args:
        captions: t1 and t2.
        tokens: Their tokens.
        rng: Draws the words and the order.
        repair: Let "a" and "an" follow the new words, and draw anew where the result is true (the
            captions merely exchanged). The published code does neither.

    Returns:
        The false joined caption, with each edit's span in its own original caption; None where
        no two words give one.
    """
    one, two = _analyse(captions[0], tokens[0]), _analyse(captions[1], tokens[1])
    left, right = _own_words(one, two), _own_words(two, one)
    groups = [Pairs(left[tag], right[tag]) for tag in left if tag in right]
    if not groups:
        groups = [Pairs(_any_words(one, two), _any_words(two, one))]
    ordered = rng.random() < 0.5
    put = put_together or _joined

    def build(pair: tuple[str, str]) -> HardNegative | None:
        if repair and _merely_exchanged(one, two, *pair):
            return None
        edits = (
            _replace_all(one, pair[0], two, pair[1], 0, repair),
            _replace_all(two, pair[1], one, pair[0], 1, repair),
        )
        texts = [apply_edits(captions[0], edits[0]), apply_edits(captions[1], edits[1])]
        joined = put(texts, ordered)
        return None if joined is None else HardNegative(joined, "cross_swap", edits[0] + edits[1])

    return first_valid(groups, build, rng)


def _joined(texts: list[str], ordered: bool) -> str:
    return join(texts if ordered else texts[::-1])


def _analyse(text: str, tokens: Sequence[Token]) -> _Caption:
    tokens = spelled(tokens)
    words = list(map(str.lower, map(_TEXT, tokens)))
    return _Caption(text, tokens, words, dict.fromkeys(zip(map(_TAG, tokens), words, strict=True)))


def _own_words(caption: _Caption, other: _Caption) -> dict[str, list[str]]:
    """Return, by tag, the words that may swap and that `other` has not under the same tag."""
    found: dict[str, list[str]] = {}
    for tag, word in filterfalse(other.tagged.__contains__, caption.tagged):
        if tag in found:
            found[tag].append(word)
        elif tag not in EXCLUDED_TAGS:
            found[tag] = [word]
    return found


def _any_words(caption: _Caption, other: _Caption) -> list[str]:
    """Return the words that only `caption` has, whatever their tag.

    Those of excluded tags only where there is no other word.
    """
    words = [word for tag, word in caption.tagged if tag not in EXCLUDED_TAGS]
    if not words:
        words = [
            word
            for i, word in enumerate(caption.words)
            if caption.tokens[i].pos not in ("PUNCT", "SYM")
            and word[:1] != "'"  # of "isn't" and "it's" either half is no word
            and "n't" not in caption.words[i : i + 2]
        ]
    present = set(other.words)
    return [word for word in dict.fromkeys(words) if word not in present]


def _merely_exchanged(one: _Caption, two: _Caption, first: str, second: str) -> bool:
    """Return whether the swap of two words leaves the captions as they are, or trades them.

    Articles and marks make no difference.
    """
    if first not in ARTICLES and second not in ARTICLES:
        # Where a third word tells the captions apart, the longer comparison can be left out.
        theirs = set(two.words)
        for word in one.words:
            if word not in theirs and word != first and word.isalnum() and word not in ARTICLES:
                return False
    truth = (_content(one), _content(two))
    swapped = (_content(one, first, second), _content(two, second, first))
    return swapped in (truth, truth[::-1])


def _content(caption: _Caption, old: str = "", new: str = "") -> list[str]:
    """Return the words after one is replaced, without articles and marks."""
    pairs = zip(caption.words, caption.tokens, strict=True)
    return [
        new if word == old else word
        for word, token in pairs
        if token.pos != "PUNCT" and word not in ARTICLES
    ]


def _replace_all(
    caption: _Caption, old: str, other: _Caption, new: str, index: int, articles: bool
) -> tuple[Edit, ...]:
    """Return the edits that put a word of the other caption in the place of one of this."""
    source = other.words.index(new)
    text = plain(other.text, other.tokens, source, source + 1)
    first = caption.words.index(old)
    changes = [Change(first, first + 1, text)]
    if caption.words.count(old) > 1:
        words = enumerate(caption.words[first + 1 :], first + 1)
        changes += [Change(i, i + 1, text) for i, word in words if word == old]
    return make_edits(caption.text, caption.tokens, changes, index, articles)
