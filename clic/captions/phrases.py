"""Noun phrases of a tagged caption, and whether two wordings say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clic.captions.words import ARTICLES, LIST_LINKS, PLURALS, POSTURES, SYMMETRIC_LINKS, word_set
from clic.types import Token

# One letter a token, so that phrases are found by a regular expression over the letters.
_LETTERS = {"DET": "D", "ADJ": "A", "NOUN": "N", "PROPN": "N", "NUM": "M", "ADV": "R", "CCONJ": "C"}
_POSSESSIVE = word_set("my your his her its our their whose")
_MODIFIERS = r"(?:R?[AM](?:(?:K|C|KC)?R?[AM])*)?"
_NOUN_PHRASE = re.compile(rf"(?:D*{_MODIFIERS}N+S)*D*{_MODIFIERS}N+")
_COORDINABLE = frozenset(("NP", "VERB", "ADJ", "ADV"))


class NounPhrase(NamedTuple):
    """The tokens `first` to `last` (not included), the head noun being token `head`."""

    first: int
    last: int
    head: int


class _Item(NamedTuple):
    """A noun phrase or a word outside of one, reduced to what its meaning hangs on."""

    kind: str
    key: tuple
    lemma: str


def noun_phrases(tokens: Sequence[Token]) -> list[NounPhrase]:
    """Return the noun phrases: determiner, modifiers, nouns, possessors in front."""
    letters = "".join(map(_letter, tokens))
    return [NounPhrase(*m.span(), m.end() - 1) for m in _NOUN_PHRASE.finditer(letters)]


def _letter(token: Token) -> str:
    if token.text == ",":
        return "K"
    word = token.text.lower()
    if word in ("'s", "\u2019s", "'") and token.pos == "PART":
        return "S"
    if token.pos == "PRON" and word in _POSSESSIVE:
        return "D"
    return _LETTERS.get(token.pos, "o")


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
    items = list(_items(tokens, phrases))
    items = _merge(items, LIST_LINKS)
    return tuple(item.key for item in _merge(items, SYMMETRIC_LINKS))


def _items(tokens: Sequence[Token], phrases: Sequence[NounPhrase]) -> Iterator[_Item]:
    position = 0
    for phrase in phrases:
        yield from map(_word_item, tokens[position : phrase.first])
        content = [
            token
            for token in tokens[phrase.first : phrase.last]
            if token.pos not in ("CCONJ", "PUNCT") and token.text.lower() not in ARTICLES
        ]
        key = [token.text.lower() for token in content]
        if sum(token.pos in ("NOUN", "PROPN") for token in content) == 1:
            # The order of one noun's modifiers is free; that of "the man's dog" is not.
            key = [*sorted(key[:-1]), key[-1]]
        yield _Item("NP", tuple(key), "")
        position = phrase.last
    yield from map(_word_item, (t for t in tokens[position:] if t.text != "."))


def _word_item(token: Token) -> _Item:
    return _Item(token.pos, (token.text.lower(),), token.lemma.lower())


def _merge(items: list[_Item], links: frozenset[tuple[str, ...]]) -> list[_Item]:
    """Put what equal links join into one sorted item, for each chain of such links."""
    merged: list[_Item] = []
    i = 0
    while i < len(items):
        chain, link, j = [items[i]], None, i + 1
        while items[i].kind in _COORDINABLE:
            found = _link(items, j, items[i].kind, links)
            if found is None or (link is not None and found[0] != link):
                break
            link, position = found
            chain.append(items[position])
            j = position + 1
        if link is None:
            merged.append(items[i])
        else:
            key = (link, *sorted((item.key for item in chain), key=repr))  # keys may be nested
            merged.append(_Item(items[i].kind, key, ""))
        i = j
    return merged


def _link(
    items: list[_Item], start: int, kind: str, links: frozenset[tuple[str, ...]]
) -> tuple[tuple[str, ...], int] | None:
    """Return the link that starts here and where its right side stands, or None."""
    words: list[str] = []
    for position in range(start, min(start + 6, len(items))):
        item = items[position]
        if item.kind == kind and tuple(words) in links:
            return ("and",) if links is LIST_LINKS else tuple(words), position
        if item.kind == "NP":
            return None
        if not (links is SYMMETRIC_LINKS and (item.kind == "AUX" or item.lemma in POSTURES)):
            words.append(item.lemma)
    return None
