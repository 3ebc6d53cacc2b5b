"""Noun phrases of a tagged caption."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from clic.captions.words import GERUNDS, MATERIALS, NAMES, PLURALS, QUANTITIES
from clic.types import Token

# One letter a token, so that phrases are found by a regular expression over the letters. What
# depends on the word too has a small letter, for which `letters_of` looks at it.
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
PARTICIPLE = ("ing", "ed", "en")
_INSIDE = frozenset("AN")  # what may follow an adjective


class NounPhrase(NamedTuple):
    """The tokens `first` to `last` (not included), the head noun being token `head`."""

    first: int
    last: int
    head: int


def noun_phrases(tokens: Sequence[Token]) -> list[NounPhrase]:
    """Return the noun phrases: determiner, modifiers, nouns, possessors in front."""
    return phrases_of(letters_of(tokens))


def phrases_of(letters: str) -> list[NounPhrase]:
    """Return the noun phrases of what `letters_of` gave."""
    return [NounPhrase(*m.span(), m.end() - 1) for m in _NOUN_PHRASE.finditer(letters)]


def letters_of(tokens: Sequence[Token]) -> str:
    """Return a letter for each token: D(eterminer), A(djective), N(oun), nu(M)ber, adve(R)b,
    C(onjunction), K (comma), S (possessive mark), and o for any other.

    A participle between what opens a noun phrase and its noun ("two parked cars") is an A, and so
    are both words of "snow covered mountains"; another verb there is a noun ("the train tracks").
    """
    letters = [_LETTERS.get(token.pos, "o") for token in tokens]
    for i, letter in enumerate(letters):
        if letter == "p":
            token = tokens[i]
            owned = token.text == "'" and _is_possessive(tokens, letters, i)
            letters[i] = "S" if owned else _WORD_LETTERS.get((token.pos, token.text.lower()), "o")
        elif letter in "DRA" and tokens[i].text.lower() in QUANTITIES:
            letters[i] = "M"
        elif letter in "Ao" and i + 1 < len(letters) and _LETTERS.get(tokens[i + 1].pos) in _INSIDE:
            if letter == "A" and _is_name(tokens[i].text.lower(), tokens[i + 1].text.lower()):
                letters[i] = "N"
            elif tokens[i].pos == "VERB" and _opens(tokens, letters, i):
                letters[i] = "A" if tokens[i].text.lower().endswith(PARTICIPLE) else "N"
                if i and letters[i - 1] == "N":
                    letters[i - 1] = "A"
    return "".join(letters)


def _is_possessive(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether an apostrophe is that of "the dogs' owner", and closes no quotation."""
    if i == 0 or letters[i - 1] != "N" or tokens[i - 1].text[-1:] not in ("s", "S"):
        return False
    joined = tokens[i - 1].end == tokens[i].start
    quotes = sum(token.text == "'" and letters[j] != "S" for j, token in enumerate(tokens[:i]))
    following = letters[i + 1 : i + 2]
    return joined and not quotes % 2 and bool(following) and following[0] in "AMN"


def _is_name(word: str, following: str) -> bool:
    """Return whether what is tagged as an adjective is the first noun of a compound."""
    return word in GERUNDS or word in MATERIALS or (word, following) in NAMES


def _opens(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether what stands before a verb leaves it no place but in a noun phrase."""
    form = tokens[i].text.lower()
    if i == 0 or letters[i - 1] in "CN":
        base = form == tokens[i].lemma  # "two nuns feed pigeons"
        return form.endswith(PARTICIPLE) and not (base or form.endswith("ing"))
    return letters[i - 1] in "DAM" or tokens[i - 1].pos == "ADP"


def is_plural(token: Token) -> bool:
    """Return whether a noun is in the plural, from its form and lemma."""
    word = token.text.lower()
    return word in PLURALS or (word != token.lemma and word.endswith("s"))
