"""CLIC's hard negative: one word of each of two captions change places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clic.captions.draws import Pairs, first_valid
from clic.captions.edits import Change, apply_edits, make_edits, plain
from clic.captions.sentences import join
from clic.captions.words import ARTICLES, word_set
from clic.types import Edit, HardNegative, Token

EXCLUDED_TAGS = word_set("AUX DET INTJ PART PUNCT SYM X SCONJ CCONJ")


class _Word(NamedTuple):
    lower: str
    token: int  # where it first occurs


def cross_swap(
    captions: Sequence[str],
    tokens: Sequence[tuple[Token, ...]],
    rng: np.random.Generator,
    repair: bool = True,
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
    words = [_words_by_tag(t) for t in tokens]
    present = [{token.text.lower() for token in t} for t in tokens]
    groups = [
        Pairs(
            [w for k, w in words[0][tag].items() if k not in words[1][tag]],
            [w for k, w in words[1][tag].items() if k not in words[0][tag]],
        )
        for tag in words[0]
        if tag in words[1]
    ]
    if not any(groups):
        some = [_any_words(table, t) for table, t in zip(words, tokens, strict=True)]
        groups = [Pairs(*([w for w in some[i] if w.lower not in present[1 - i]] for i in (0, 1)))]
    truth = sorted(_content(t, {}) for t in tokens)
    first = int(rng.integers(2))

    def build(pair: tuple[_Word, _Word]) -> HardNegative | None:
        new = [{pair[i].lower: pair[1 - i].lower} for i in (0, 1)]
        if repair and sorted(_content(tokens[i], new[i]) for i in (0, 1)) == truth:
            return None
        edits = [_replace_all(captions, tokens, pair, i, repair) for i in (0, 1)]
        texts = [apply_edits(captions[i], edits[i]) for i in (0, 1)]
        return HardNegative(
            join([texts[first], texts[1 - first]]), "cross_swap", edits[0] + edits[1]
        )

    return first_valid(groups, build, rng)


def _words_by_tag(tokens: Sequence[Token]) -> dict[str, dict[str, _Word]]:
    table: dict[str, dict[str, _Word]] = {}
    for i, token in enumerate(tokens):
        if token.pos not in EXCLUDED_TAGS:
            word = token.text.lower()
            table.setdefault(token.pos, {}).setdefault(word, _Word(word, i))
    return table


def _any_words(table: dict[str, dict[str, _Word]], tokens: Sequence[Token]) -> list[_Word]:
    """Return the words whatever their tag, of excluded tags only where there is no other."""
    words = {word.lower: word for group in table.values() for word in group.values()}
    if not words:
        for i, token in enumerate(tokens):
            if token.pos not in ("PUNCT", "SYM"):
                words.setdefault(token.text.lower(), _Word(token.text.lower(), i))
    return list(words.values())


def _content(tokens: Sequence[Token], new: dict[str, str]) -> list[str]:
    """Return the lower-case words after replacement, without articles and marks."""
    words = (token.text.lower() for token in tokens if token.pos != "PUNCT")
    return [new.get(word, word) for word in words if word not in ARTICLES]


def _replace_all(
    captions: Sequence[str],
    tokens: Sequence[tuple[Token, ...]],
    pair: tuple[_Word, _Word],
    index: int,
    articles: bool,
) -> tuple[Edit, ...]:
    """Return the edits that put the other caption's word in the place of this one's."""
    source = pair[1 - index].token
    text = plain(captions[1 - index], tokens[1 - index], source, source + 1)
    old = pair[index].lower
    changes = [Change(i, i + 1, text) for i, t in enumerate(tokens[index]) if t.text.lower() == old]
    return make_edits(captions[index], tokens[index], changes, index, articles)
