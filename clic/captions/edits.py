"""Changing words of a caption: spans, case at the start of a sentence, and "a" or "an".

Drawing one of many candidates, in an order that only the generator decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

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


A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


def below(count: int, rng: np.random.Generator) -> int:
    """Return a number from 0 to `count` - 1, each equally likely.

    A third of the time of ``rng.integers``; the bias is below `count` / 2**53.
    """
    return int(rng.random() * count)


class Candidates(Protocol[T_co]):
    """What has a length and elements by number: a list, or `Pairs`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


class Pairs(Generic[A, B]):
    """All pairs of an element of `left` and one of `right`, made when they are asked for."""

    def __init__(self, left: Sequence[A], right: Sequence[B]) -> None:
        self.left, self.right = left, right

    def __len__(self) -> int:
        return len(self.left) * len(self.right)

    def __getitem__(self, index: int, /) -> tuple[A, B]:
        row, column = divmod(index, len(self.right))
        return self.left[row], self.right[column]


def shuffled(groups: Sequence[Candidates[T]], rng: np.random.Generator) -> Iterator[T]:
    """Yield every candidate once: each time a group with candidates left, then one of them."""
    left = [group for group in groups if len(group)]
    drawn: list[set[int]] = [set() for _ in left]
    while left:
        g = below(len(left), rng)
        group, seen = left[g], drawn[g]
        i = below(len(group), rng)
        while i in seen:
            i = (i + 1) % len(group)
        seen.add(i)
        if len(seen) == len(group):
            del left[g], drawn[g]
        yield group[i]


def first_valid(
    groups: Sequence[Candidates[T]], build: Callable[[T], R | None], rng: np.random.Generator
) -> R | None:
    """Return what `build` makes of the first drawn candidate that it accepts, or None."""
    left = [group for group in groups if len(group)]
    if not left:
        return None
    # Most first draws are good, so that nothing need be remembered of them.
    group = left[below(len(left), rng)]
    made = build(group[below(len(group), rng)])
    if made is not None:
        return made
    for candidate in shuffled(left, rng):
        made = build(candidate)
        if made is not None:
            return made
    return None
