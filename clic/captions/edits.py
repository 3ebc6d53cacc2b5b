"""Edits of a caption: spans, capitals at the start of a sentence, and "a" or "an"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from clic.captions.text import normalized
from clic.types import Edit, HardNegative, Token

_PATIENCE = 32  # draws in a row of known texts after which a generator counts as exhausted

# Words whose first sound differs from their first letter.
_CONSONANT_SOUND = ("uni", "use", "usual", "util", "eu", "ewe", "one", "once", "ukulele", "ufo")
_CONSONANT_SOUND_BUT = ("unim", "unin")  # "an unimportant", "an uninvited"
_VOWEL_SOUND = ("hour", "honest", "honour", "honor", "heir", "x-ray", "8", "11", "18")
_SENTENCE_ENDS = frozenset(".!?")
_SPAN = attrgetter("span")
_INDEFINITE = frozenset(("a", "an", "A", "An", "AN", "aN"))


class Change(NamedTuple):
    """New text for the tokens from `first` up to, but not including, `last`."""

    first: int
    last: int
    text: str


def indefinite_article(word: str) -> str:
    """Return ``"a"`` or ``"an"``, whichever precedes `word`."""
    word = word.lower()
    if word.startswith(_VOWEL_SOUND):
        return "an"
    if word.startswith(_CONSONANT_SOUND) and not word.startswith(_CONSONANT_SOUND_BUT):
        return "a"
    return "an" if word[:1] in tuple("aeiou") else "a"


def starts_sentence(tokens: Sequence[Token], index: int) -> bool:
    """Return whether a token is the first of a sentence."""
    return index == 0 or tokens[index - 1].text in _SENTENCE_ENDS


def text_without_capital(caption: str, tokens: Sequence[Token], first: int, last: int) -> str:
    """Return the text of some tokens without a capital that only marks the start of a sentence."""
    text = caption[tokens[first].start : tokens[last - 1].end]
    if not text[:1].isupper():
        return text
    token = tokens[first]
    placed = starts_sentence(tokens, first) and token.pos != "PROPN" and token.text[1:].islower()
    if placed or token.text == "A":
        return text[:1].lower() + text[1:]
    return text


def make_edits(
    caption: str,
    tokens: Sequence[Token],
    changes: Iterable[Change],
    index: int = 0,
    articles: bool = True,
) -> tuple[Edit, ...]:
    """Turn changes of words into edits of the text, with capitals and articles repaired.

    Args:
        caption: The original text.
        tokens: Its tokens.
        changes: New texts for ranges of tokens that do not overlap.
        index: Number of the caption, which the edits record.
        articles: Whether to adapt "a" and "an" to the new words.

    Returns:
        The edits, those of articles included, in the order of their spans.
    """
    changes = list(changes)
    capitals = articles and len(caption) > 1 and caption.isupper()
    ends = {change.last for change in changes}
    edits = []
    for first, last, text in changes:
        start, end = tokens[first].start, tokens[last - 1].end
        if capitals:
            text = text.upper()
        elif caption[start].isupper() and starts_sentence(tokens, first):
            text = text[:1].upper() + text[1:]
        if articles and first > 0 and first not in ends:
            before = tokens[first - 1]
            if before.text in _INDEFINITE:
                edits += _article_edits(caption, before, text, index)
        edits.append(Edit(index, (start, end), caption[start:end], text))
    return tuple(edits) if len(changes) == 1 else tuple(sorted(edits, key=_SPAN))


def _article_edits(caption: str, before: Token, text: str, index: int) -> list[Edit]:
    """Return the edit of an "a" or "an" that does not fit the new word after it."""
    article = indefinite_article(text)
    if article == before.text.lower():
        return []
    new = article.capitalize() if before.text[0].isupper() else article
    if caption.isupper():
        new = article.upper()
    return [Edit(index, (before.start, before.end), caption[before.start : before.end], new)]


def apply_edits(caption: str, edits: Sequence[Edit]) -> str:
    """Return the caption with each edit's span replaced by its new text."""
    if len(edits) == 1:
        _, (start, end), _, new = edits[0]
        return caption[:start] + new + caption[end:]
    parts, position = [], 0
    for _, (start, end), _, new in sorted(edits, key=_SPAN):
        parts += [caption[position:start], new]
        position = end
    return "".join(parts) + caption[position:]


def unlike(known: Collection[str], make: Callable[[], HardNegative | None]) -> HardNegative | None:
    """Return a negative whose normalized text is not among the known ones.

    Returns None where `make` does, or where it keeps drawing known texts.
    """
    for _ in range(_PATIENCE):
        negative = make()
        if negative is None or not known or normalized(negative.text) not in known:
            return negative
    return None
