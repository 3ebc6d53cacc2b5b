"""Changing words of a caption: spans, case at the start of a sentence, and "a" or "an"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clic.types import Edit, Token

# Words whose first sound is not what their first letter says.
_CONSONANT_SOUND = ("uni", "use", "usual", "util", "eu", "ewe", "one", "once", "ukulele", "ufo")
_CONSONANT_SOUND_BUT = ("unim", "unin")  # "an unimportant", "an uninvited"
_VOWEL_SOUND = ("hour", "honest", "honour", "honor", "heir", "x-ray", "8", "11", "18")
_SENTENCE_ENDS = frozenset(".!?")
_INDEFINITE = frozenset(("a", "an", "A", "An", "AN", "aN"))


class Change(NamedTuple):
    """New text in the place of the tokens `first` to `last` (the latter not included)."""

    first: int
    last: int
    text: str


def indefinite_article(word: str) -> str:
    """Return ``"a"`` or ``"an"``, whichever goes before `word`."""
    word = word.lower()
    if word.startswith(_VOWEL_SOUND):
        return "an"
    if word.startswith(_CONSONANT_SOUND) and not word.startswith(_CONSONANT_SOUND_BUT):
        return "a"
    return "an" if word[:1] in tuple("aeiou") else "a"


def starts_sentence(tokens: Sequence[Token], index: int) -> bool:
    """Return whether the token is the first of a sentence."""
    return index == 0 or tokens[index - 1].text in _SENTENCE_ENDS


def plain(caption: str, tokens: Sequence[Token], first: int, last: int) -> str:
    """Return the text of some tokens without the capital that only their place gave them."""
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
    """Turn changes of words into edits of the text, with case and articles repaired.

    Args:
        caption: The original text.
        tokens: Its tokens.
        changes: New texts for ranges of tokens that do not overlap.
        index: Number of the caption, for the records.
        articles: Whether "a" and "an" follow the new words.

    Returns:
        The edits in the order of their spans, repaired articles among them.
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
    return tuple(edits) if len(changes) == 1 else tuple(sorted(edits, key=_span))


def _article_edits(caption: str, before: Token, text: str, index: int) -> list[Edit]:
    """Return the edit of an "a" or "an" that does not fit the new word after it, if any."""
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
    for _, (start, end), _, new in sorted(edits, key=_span):
        parts += [caption[position:start], new]
        position = end
    return "".join(parts) + caption[position:]


def _span(edit: Edit) -> tuple[int, int]:
    return edit.span
