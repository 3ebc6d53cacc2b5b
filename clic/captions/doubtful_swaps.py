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
_LISTING = frozenset(("and", "or", ","))


def is_doubtful(
    tokens: Sequence[Token], made: Sequence[Token], negative: HardNegative, lexicon: Lexicon
) -> bool:
    """Return whether a swap may say what the caption says, or repeats a word.

    - "tan and tan dogs";
    - "one wearing red, the other green": either may be the one;
    - two adjectives of one list: "brown, white and black";
    - two pieces of clothing of one wearer, as wholes: "a woman in a hat is wearing a shirt";
    - two things after one preposition in a row: "on her stomach on a swing";
    - what two things of one name have: "a man in a blue kayak and a man in an orange kayak";
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
    (_, between), (second, _) = sorted(moved)
    if all(words[i] in _LISTING or tokens[i].pos == "ADJ" for i in range(between, second)):
        return True
    if _of_namesakes(tokens, words, sorted(moved)):
        return True
    heads = [_whole(tokens, words, part) for part in moved]
    if min(heads) < 0:
        return False
    heads.sort()
    return (
        _worn_by_one(tokens, words, heads, lexicon)
        or _in_a_row(tokens, words, heads)
        or _ridden(tokens, words, heads)
    )


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
        if inside and lower(old) in new and lower(old) not in WORDS["articles"]:
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
    """Return whether both things are clothes, and no other wearer is named between them."""
    between = [phrase.head for phrase in noun_phrases(tokens) if heads[0] < phrase.head < heads[1]]
    other = any(lexicon.thing(words[head]).kind in _ANIMATE for head in between)
    return not other and all(lexicon.thing(words[head]).kind == _CLOTHES for head in heads)


def _in_a_row(tokens: Sequence[Token], words: Sequence[str], heads: Sequence[int]) -> bool:
    """Return whether the second thing follows the first, after the same preposition."""
    first, second = (phrase_start(tokens, words, head) - 1 for head in heads)
    alike = first >= 0 and words[first] == words[second] and tokens[first].pos == "ADP"
    return alike and second == heads[0] + 1


def _of_namesakes(
    tokens: Sequence[Token], words: Sequence[str], moved: Sequence[tuple[int, int]]
) -> bool:
    """Return whether the parts belong to two things of one name, "a man ... and a man ..."."""
    phrases = noun_phrases(tokens)
    owners = [[p for p in phrases if p.last <= start - 1][-1:] for start, _ in moved]
    if not all(owners):
        return False
    (first,), (second,) = owners
    named = words[first.first : first.last] == words[second.first : second.last]
    return first != second and named and words[second.first - 1] == "and"


def _ridden(tokens: Sequence[Token], words: Sequence[str], heads: Sequence[int]) -> bool:
    """Return whether one is what is ridden, and the other what it is ridden on."""
    starts = [phrase_start(tokens, words, head) for head in heads]
    before = {tokens[start - 1].lemma if start else "" for start in starts}
    return before == {"ride", "on"}
