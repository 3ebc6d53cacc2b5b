"""What stands around a word of a caption: the noun it belongs to, its subject, its object.

These are quick looks at tags for the conditions of the lexicon; indices are token numbers and -1
means that there is none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from clic.captions.words import word_set
from clic.types import Token

NOMINAL = frozenset(("NOUN", "PROPN"))
_INSIDE = frozenset(("DET", "ADJ", "NUM", "ADV"))
_POSSESSIVE = word_set("my your his her its our their")
_CLITICS = frozenset(("'s", "\u2019s", "'"))
_SENTENCE_ENDS = frozenset(".!?;:")


def head_from(
    tokens: Sequence[Token], words: Sequence[str], start: int, measures: Collection[str] = ()
) -> int:
    """Return the head of the noun phrase that goes on at token `start`.

    Args:
        tokens: The caption's tokens.
        words: Their texts in lower case.
        start: Where a noun phrase may start or go on.
        measures: Nouns that another one follows with "of": in "a herd of cows" cows are meant.
    """
    n, i = len(tokens), start
    while i < n:
        pos = tokens[i].pos
        if pos in NOMINAL:
            while i + 1 < n and tokens[i + 1].pos in NOMINAL:
                i += 1
            if i + 1 < n and words[i + 1] in _CLITICS:
                i += 2
                continue
            if i + 1 < n and words[i + 1] == "of" and words[i] in measures:
                inner = head_from(tokens, words, i + 2, measures)
                return i if inner < 0 else inner
            return i
        if pos not in _INSIDE and words[i] not in _POSSESSIVE and not _joins(tokens, words, i):
            return -1
        i += 1
    return -1


def _joins(tokens: Sequence[Token], words: Sequence[str], i: int) -> bool:
    """Return whether token `i` is the "and" of "a black and white cat"."""
    between = 0 < i < len(tokens) - 1 and words[i] in ("and", ",", "-")
    return between and tokens[i - 1].pos == "ADJ" and tokens[i + 1].pos == "ADJ"


def phrase_start(tokens: Sequence[Token], words: Sequence[str], noun: int) -> int:
    """Return the first token of the noun phrase whose noun is `noun`."""
    i = noun
    while i > 0:
        pos = tokens[i - 1].pos
        inside = pos in _INSIDE or pos in NOMINAL or words[i - 1] in _POSSESSIVE
        if not inside and not _joins(tokens, words, i - 1):
            break
        i -= 1
    return i


def governor(tokens: Sequence[Token], words: Sequence[str], noun: int) -> str:
    """Return the word before a noun's phrase, ``"^"`` at the start of a sentence."""
    start = phrase_start(tokens, words, noun)
    return "^" if start == 0 or words[start - 1] in _SENTENCE_ENDS else words[start - 1]


def subject(
    tokens: Sequence[Token], words: Sequence[str], verb: int, animate: Collection[str] = ()
) -> int:
    """Return the noun that does what the verb says, as far as the words before it tell.

    The object of a preposition or of another verb is passed over, unless it is animate: in "a man
    in a hat sitting" the man sits.
    """
    i = verb - 1
    while i >= 0:
        if tokens[i].pos in NOMINAL or tokens[i].pos == "PRON":
            start = phrase_start(tokens, words, i)
            before = tokens[start - 1].pos if start else ""
            of = start > 0 and words[start - 1] == "of"
            if before not in ("ADP", "VERB") or of or words[i] in animate:
                return i
            i = start
        i -= 1
    return -1
