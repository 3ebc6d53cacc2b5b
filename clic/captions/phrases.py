"""Noun phrases of a tagged caption, and the head, governor or subject of a word.

Only tags and words are used. Indices are token numbers; -1 means that there is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from clic.captions.lexicon import WORDS
from clic.types import Token

# One letter per token, so that a regular expression finds phrases. A small letter means that
# `_letters` must look at the word, too.
_LETTERS = {
    "DET": "D", "ADJ": "A", "NOUN": "N", "PROPN": "N", "NUM": "M", "ADV": "R", "CCONJ": "C",
    "PUNCT": "p", "PART": "p", "PRON": "p",
}  # fmt: skip
_POSSESSIVE = ("my", "your", "his", "her", "its", "our", "their", "whose")
_WORD_LETTERS = {
    ("PUNCT", ","): "K",
    **{("PART", mark): "S" for mark in ("'s", "\u2019s", "'")},
    **{("PRON", word): "D" for word in _POSSESSIVE},
}
_MODIFIERS = r"(?:R?[AM](?:(?:K|C|KC)?R?[AM])*)?"
_NOUN_PHRASE = re.compile(rf"(?:D*{_MODIFIERS}N+S)*D*{_MODIFIERS}N+")
_PARTICIPLE = ("ing", "ed", "en")
_INSIDE = frozenset("AN")  # what may follow an adjective


class NounPhrase(NamedTuple):
    """The tokens `first` to `last` (not included), the head noun being token `head`."""

    first: int
    last: int
    head: int


def noun_phrases(tokens: Sequence[Token]) -> list[NounPhrase]:
    """Return the noun phrases: possessors, determiner, modifiers, nouns."""
    return [NounPhrase(*m.span(), m.end() - 1) for m in _NOUN_PHRASE.finditer(_letters(tokens))]


def _letters(tokens: Sequence[Token]) -> str:
    """Return a letter for each token: D(eterminer), A(djective), N(oun), nu(M)ber, adve(R)b,
    C(onjunction), K (comma), S (possessive mark), or o for any other.

    A participle between the opening word of a noun phrase and its noun ("two parked cars") is an A,
    as are both modifiers in "snow covered mountains"; any other verb there is an N ("the train
    tracks").
    """
    letters = [_LETTERS.get(token.pos, "o") for token in tokens]
    for i, letter in enumerate(letters):
        if letter == "p":
            token = tokens[i]
            owned = token.text == "'" and _is_possessive(tokens, letters, i)
            letters[i] = "S" if owned else _WORD_LETTERS.get((token.pos, token.text.lower()), "o")
        elif letter in "DRA" and tokens[i].text.lower() in WORDS["quantities"]:
            letters[i] = "M"
        elif letter in "Ao" and i + 1 < len(letters) and _LETTERS.get(tokens[i + 1].pos) in _INSIDE:
            if letter == "A" and _is_name(tokens[i].text.lower(), tokens[i + 1].text.lower()):
                letters[i] = "N"
            elif tokens[i].pos == "VERB" and _opens(tokens, letters, i):
                letters[i] = "A" if tokens[i].text.lower().endswith(_PARTICIPLE) else "N"
                if i and letters[i - 1] == "N":
                    letters[i - 1] = "A"
    return "".join(letters)


def _is_possessive(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether an apostrophe is possessive ("the dogs' owner"), not a closing quote."""
    if i == 0 or letters[i - 1] != "N" or tokens[i - 1].text[-1:] not in ("s", "S"):
        return False
    joined = tokens[i - 1].end == tokens[i].start
    quotes = sum(token.text == "'" and letters[j] != "S" for j, token in enumerate(tokens[:i]))
    following = letters[i + 1 : i + 2]
    return joined and not quotes % 2 and bool(following) and following[0] in "AMN"


def _is_name(word: str, following: str) -> bool:
    """Return whether a word tagged as an adjective is the first noun of a compound."""
    first = word in WORDS["gerunds"] or word in WORDS["materials"]
    return first or f"{word} {following}" in WORDS["compounds"]


def _opens(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether the word before a verb shows that the verb is part of a noun phrase."""
    form = tokens[i].text.lower()
    if i == 0 or letters[i - 1] in "CN":
        base = form == tokens[i].lemma  # "two nuns feed pigeons"
        return form.endswith(_PARTICIPLE) and not (base or form.endswith("ing"))
    return letters[i - 1] in "DAM" or tokens[i - 1].pos == "ADP"


def is_plural(token: Token) -> bool:
    """Return whether a noun is plural, judged by its form and lemma."""
    word = token.text.lower()
    return word in WORDS["plurals"] or (word != token.lemma and word.endswith("s"))


NOMINAL = frozenset(("NOUN", "PROPN"))
_OPENING = frozenset(("DET", "ADJ", "NUM", "ADV"))
_OWNER_WORDS = frozenset(_POSSESSIVE[:-1])
_CLITICS = frozenset(("'s", "\u2019s", "'"))
_SENTENCE_ENDS = frozenset(".!?;:")


def head_from(
    tokens: Sequence[Token], words: Sequence[str], start: int, measures: Collection[str] = ()
) -> int:
    """Return the head of the noun phrase that starts or continues at token `start`.

    Args:
        tokens: The caption's tokens.
        words: Their texts in lower case.
        start: Where a noun phrase may start or continue.
        measures: Nouns whose "of" introduces the head: in "a herd of cows" it is "cows".
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
        if pos not in _OPENING and words[i] not in _OWNER_WORDS and not _joins(tokens, words, i):
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
        inside = pos in _OPENING or pos in NOMINAL or words[i - 1] in _OWNER_WORDS
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
    """Return the noun that does what the verb says, judged by the words before it.

    The object of a preposition or of another verb is skipped unless it is animate: in "a man in a
    hat sitting" the man sits.
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
