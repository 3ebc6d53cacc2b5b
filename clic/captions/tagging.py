"""Part-of-speech tags by the name of their backend: words with offsets, POS and lemma."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from clic.errors import pick
from clic.types import Token


class Tagger(Protocol):
    """Tags captions; a pure function of the text.

    Attributes:
        name: Of the backend.
        version: Of the backend and its model; where it differs, tags may differ.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def __call__(self, text: str) -> tuple[Token, ...]:
        """Return the tokens of `text` in their order, with universal POS and lemma."""


def lower(text: str) -> str:
    """Return a text in lower case with every character in its place.

    ``str.lower`` makes two characters of a few (of "İ"); these are left as they are.
    """
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join([small if len(small := c.lower()) == 1 else c for c in text])


def _hanta() -> Tagger:
    from clic.captions.hanta import HantaTagger

    return HantaTagger()


def _spacy() -> Tagger:
    from clic.captions.spacy_tags import SpacyTagger

    return SpacyTagger()


# Each is made where it is used, since what it loads is not needed for anything else.
TAGGERS: dict[str, Callable[[], Tagger]] = {"hanta": _hanta, "spacy": _spacy}


def make_tagger(name: str) -> Tagger:
    """Return the tagger of that name.

    Raises:
        ConfigError: There is none, or its model is not installed.
    """
    return pick(TAGGERS, name, "captions.tagger")()
