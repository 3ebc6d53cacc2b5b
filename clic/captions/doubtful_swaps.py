"""Swaps that read well and would still be true, or that repeat a word.

Where swaps are chosen by how well they read, those that keep the meaning come to the fore; `swap`
itself leaves these rarer cases in, where few of them are ever drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from clic.captions.lexicon import WORDS, Lexicon
from clic.captions.phrases import head_from, noun_phrases, phrase_start
from clic.captions.text import fold_tokens, lower
from clic.types import HardNegative, Token

_ANIMATE = ("people", "animals")
_CLOTHES = "kinds-clothes"


def is_doubtful(
    tokens: Sequence[Token], made: Sequence[Token], negative: HardNegative, lexicon: Lexicon
) -> bool:
    """Return whether a swap may say what the caption says, or repeats a word.

    - "tan and tan dogs";
    - "one wearing red, the other green": either may be the one;
    - two pieces of clothing of the caption's only person or animal, as wholes: "a woman in a hat
      is wearing a shirt";
    - what is ridden and what it is ridden on: "rides a board on a wave".

    Args:
        tokens: The true caption's tokens.
        made: The false caption's tokens.
        negative: The false caption.
        lexicon: Knows kinds of things.
    """
    tokens = fold_tokens(tokens)
    words = [lower(token.text) for token in tokens]
    if _repeats(made) or _told_of_either(tokens, words):
        return True
    moved = _moved(tokens, negative)
    if len(moved) != 2:
        return False
    heads = [_whole(tokens, words, part) for part in moved]
    if min(heads) < 0:
        return False
    return _worn_by_one(tokens, words, heads, lexicon) or _ridden(tokens, words, heads)


def _repeats(made: Sequence[Token]) -> bool:
    """Return whether a word stands on both sides of an "and", or twice in a row."""
    words = [lower(token.text) for token in made]
    beside = [*pairwise(words), *zip(words, words[2:], strict=False)]
    middle = [""] * (len(words) - 1) + words[1:-1]
    return any(
        a == b and a.isalpha() and between in ("", "and", "or")
        for (a, b), between in zip(beside, middle, strict=False)
    )


def _told_of_either(tokens: Sequence[Token], words: Sequence[str]) -> bool:
    """Return whether things are told apart as "one" and "the other" alone."""
    bare = {
        word
        for i, word in enumerate(words)
        if word in ("one", "other") and head_from(tokens, words, i + 1) < 0
    }
    return len(bare) == 2


def _moved(tokens: Sequence[Token], negative: HardNegative) -> list[tuple[int, int]]:
    """Return the ranges of tokens that changed places."""
    new = {lower(edit.new) for edit in negative.edits}
    found = []
    for _, (start, end), old, _ in negative.edits:
        inside = [i for i, token in enumerate(tokens) if start <= token.start < end]
        if inside and lower(old) in new:
            found.append((inside[0], inside[-1] + 1))
    return found


def _whole(tokens: Sequence[Token], words: Sequence[str], part: tuple[int, int]) -> int:
    """Return the head of a part that is all of its noun phrase but the article, or -1."""
    for first, last, head in noun_phrases(tokens):
        left = words[first : part[0]]
        if part[0] <= head < part[1] and last == part[1] and WORDS["articles"].issuperset(left):
            return head
    return -1


def _worn_by_one(
    tokens: Sequence[Token], words: Sequence[str], heads: Sequence[int], lexicon: Lexicon
) -> bool:
    """Return whether both things are clothes, and the caption has only one wearer."""
    things = [phrase.head for phrase in noun_phrases(tokens)]
    wearers = sum(lexicon.thing(words[head]).kind in _ANIMATE for head in things)
    return wearers == 1 and all(lexicon.thing(words[h]).kind == _CLOTHES for h in heads)


def _ridden(tokens: Sequence[Token], words: Sequence[str], heads: Sequence[int]) -> bool:
    """Return whether one is what is ridden, and the other what it is ridden on."""
    starts = [phrase_start(tokens, words, head) for head in heads]
    before = {tokens[start - 1].lemma if start else "" for start in starts}
    return before == {"ride", "on"}
