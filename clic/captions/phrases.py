"""Noun phrases of a tagged caption, and whether two wordings say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from clic.captions.words import (
    ARTICLES,
    GERUNDS,
    LIST_LINKS,
    PLURALS,
    POSTURES,
    QUANTITIES,
    SYMMETRIC_LINKS,
)
from clic.types import Token

# One letter a token, so that phrases are found by a regular expression over the letters. What
# depends on the word too has a small letter, which `_letters` decides.
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
_INSIDE = frozenset("AN")  # what may follow an adjective
_COORDINABLE = frozenset(("NP", "VERB", "ADJ", "ADV"))
# Kinds of links with the words of which at least one stands in a caption that has such a link.
_LINKS = tuple(
    (links, frozenset(link[0] for link in links)) for links in (LIST_LINKS, SYMMETRIC_LINKS)
)


class NounPhrase(NamedTuple):
    """The tokens `first` to `last` (not included), the head noun being token `head`."""

    first: int
    last: int
    head: int


# A noun phrase or a word outside of one, reduced to what its meaning hangs on: kind, key, lemma.
_Item = tuple[str, tuple, str]


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
    are both words of "snow covered mountains".
    """
    letters = [_LETTERS.get(token.pos, "o") for token in tokens]
    for i, letter in enumerate(letters):
        if letter == "p":
            token = tokens[i]
            letters[i] = _WORD_LETTERS.get((token.pos, token.text.lower()), "o")
        elif letter in "DRA" and tokens[i].text.lower() in QUANTITIES:
            letters[i] = "M"
        elif letter in "Ao" and i + 1 < len(letters) and _LETTERS.get(tokens[i + 1].pos) in _INSIDE:
            if tokens[i].text.lower() in GERUNDS and letter == "A":
                letters[i] = "N"
            elif tokens[i].pos == "VERB" and _opens(tokens, letters, i):
                letters[i] = "A"
                if i and letters[i - 1] == "N":
                    letters[i - 1] = "A"
    return "".join(letters)


def _opens(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether what stands before a participle leaves it no place but in a noun phrase."""
    form = tokens[i].text.lower()
    if not form.endswith(("ing", "ed", "en")):
        return False
    if i == 0 or letters[i - 1] in "CN":
        return not form.endswith("ing")
    return letters[i - 1] in "DAM" or tokens[i - 1].pos == "ADP"


def is_plural(token: Token) -> bool:
    """Return whether a noun is in the plural, from its form and lemma."""
    word = token.text.lower()
    return word in PLURALS or (word != token.lemma and word.endswith("s"))


def meaning(tokens: Sequence[Token], phrases: Sequence[NounPhrase]) -> tuple:
    """Return a key that wordings of one meaning share, as far as a light analysis can tell.

    Articles, the order of a noun's modifiers, and the order of what "and", a comma or a
    relation without direction ("next to") joins make no difference.

    Args:
        tokens: The caption's tokens, possibly with words exchanged.
        phrases: Its noun phrases, as token ranges.
    """
    items = _items(tokens, phrases)
    lemmas = {item[2] for item in items}
    for links, starts in _LINKS:
        if not starts.isdisjoint(lemmas):
            items = _merge(items, links)
    return tuple([item[1] for item in items])


def _items(tokens: Sequence[Token], phrases: Sequence[NounPhrase]) -> list[_Item]:
    items: list[_Item] = []
    position = 0
    for first, last, _ in phrases:
        items += map(_word_item, tokens[position:first])
        items.append(("NP", _phrase_key(tokens[first:last]), ""))
        position = last
    items += [_word_item(token) for token in tokens[position:] if token.text != "."]
    return items


def _word_item(token: Token) -> _Item:
    return token.pos, (token.text.lower(),), token.lemma.lower()


def _phrase_key(tokens: Sequence[Token]) -> tuple[str, ...]:
    words, nouns = [], 0
    for text, _, _, pos, _ in tokens:
        word = text.lower()
        if word not in ARTICLES and pos != "CCONJ" and pos != "PUNCT":
            words.append(word)
            nouns += pos in ("NOUN", "PROPN")
    if nouns == 1 and len(words) > 2:
        # The order of one noun's modifiers is free; that of "the man's dog" is not.
        words[:-1] = sorted(words[:-1])
    return tuple(words)


def _merge(items: list[_Item], links: frozenset[tuple[str, ...]]) -> list[_Item]:
    """Put what equal links join into one sorted item, for each chain of such links."""
    merged: list[_Item] = []
    i = 0
    while i < len(items):
        kind = items[i][0]
        chain, link, j = [items[i][1]], None, i + 1
        while kind in _COORDINABLE:
            found = _link(items, j, kind, links)
            if found is None or (link is not None and found[0] != link):
                break
            link, position = found
            chain.append(items[position][1])
            j = position + 1
        if link is None:
            merged.append(items[i])
        else:
            merged.append((kind, (link, *sorted(chain, key=repr)), ""))  # keys may be nested
        i = j
    return merged


def _link(
    items: list[_Item], start: int, kind: str, links: frozenset[tuple[str, ...]]
) -> tuple[tuple[str, ...], int] | None:
    """Return the link that starts here and where its right side stands, or None."""
    words: list[str] = []
    for position in range(start, min(start + 6, len(items))):
        found, _, lemma = items[position]
        if found == kind and tuple(words) in links:
            return ("and",) if links is LIST_LINKS else tuple(words), position
        if found == "NP":
            return None
        if not (links is SYMMETRIC_LINKS and (found == "AUX" or lemma in POSTURES)):
            words.append(lemma)
    return None
