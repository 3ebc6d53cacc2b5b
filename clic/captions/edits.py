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
    changed = {i for change in changes for i in range(change.first, change.last)}
    edits = []
    for first, last, text in changes:
        start, end = tokens[first].start, tokens[last - 1].end
        if starts_sentence(tokens, first) and caption[start].isupper():
            text = text[:1].upper() + text[1:]
        edits.append(Edit(index, (start, end), caption[start:end], text))
        if articles and first > 0 and first - 1 not in changed:
            edits += _article_edits(tokens[first - 1], text, index)
    return tuple(sorted(edits, key=lambda edit: edit.span))


def _article_edits(before: Token, text: str, index: int) -> list[Edit]:
    """Return the edit of an "a" or "an" that does not fit the new word after it, if it is one."""
    if before.text.lower() not in ("a", "an"):
        return []
    article = indefinite_article(text)
    if article == before.text.lower():
        return []
    new = article.capitalize() if before.text[0].isupper() else article
    return [Edit(index, (before.start, before.end), before.text, new)]


def apply_edits(caption: str, edits: Iterable[Edit]) -> str:
    """Return the caption with each edit's span replaced by its new text."""
    parts, position = [], 0
    for edit in sorted(edits, key=lambda edit: edit.span):
        parts += [caption[position : edit.span[0]], edit.new]
        position = edit.span[1]
    return "".join(parts) + caption[position:]
