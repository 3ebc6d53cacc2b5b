"""Part-of-speech taggers by name.

A tagger returns words with offsets, POS and lemma: HanTa by default, or the spaCy pipeline of the
published generators (extra `clic[spacy]`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from clic.captions.text import fold, lower
from clic.errors import ConfigError, pick
from clic.types import Token


class Tagger(Protocol):
    """Tags captions; a pure function of the text.

    Attributes:
        name: Name of the backend.
        version: Version of the backend and its model; tags of another version may differ.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def __call__(self, text: str) -> tuple[Token, ...]:
        """Return the tokens of `text` in their order, with universal POS and lemma."""


def _hanta() -> Tagger:
    from clic.captions.hanta import HantaTagger

    return HantaTagger()


# Constructors rather than taggers, so that only a backend that is used is loaded.
TAGGERS: dict[str, Callable[[], Tagger]] = {"hanta": _hanta, "spacy": lambda: SpacyTagger()}


def make_tagger(name: str) -> Tagger:
    """Return a tagger by name.

    Raises:
        ConfigError: The name is unknown, or the model is not installed.
    """
    return pick(TAGGERS, name, "captions.tagger")()


MODEL = "en_core_web_sm"
# Components that tags and lemmas do not depend on.
_UNUSED = ("parser", "ner", "senter")


class SpacyTagger:
    """Tags with a spaCy pipeline; a pure function of the text, whatever its case.

    Captions are tagged in lower case, as in the published code, so that stored tags fit both.

    Args:
        pipeline: A loaded pipeline that sets `pos_` and `lemma_`; by default `MODEL`.

    Raises:
        ConfigError: spaCy or its model is not installed.
    """

    name = "spacy"

    def __init__(self, pipeline: Any = None) -> None:
        self._pipeline = _load(MODEL) if pipeline is None else pipeline

    @property
    def version(self) -> str:
        """The pipeline's name and version, e.g. ``en_core_web_sm 3.8.0``."""
        meta = self._pipeline.meta
        return f"{meta['lang']}_{meta['name']} {meta['version']}"

    def __call__(self, text: str) -> tuple[Token, ...]:
        """Return the tokens of `text`, without white space."""
        # The limit protects the memory of the parser, which does not run here.
        self._pipeline.max_length = max(self._pipeline.max_length, len(text))
        folded = fold(text)
        tokens = [
            Token(folded.text[start:end], start, end, word.pos_ or "X", word.lemma_ or word.text)
            for word in self._pipeline(lower(folded.text))
            if not word.is_space
            for start, end in [(word.idx, word.idx + len(word))]
        ]
        return folded.restore(text, tokens)


@lru_cache(maxsize=1)
def _load(model: str) -> Any:
    try:
        import spacy
    except ImportError as error:
        raise ConfigError(
            "captions.tagger=spacy needs spaCy, which is not installed; run: "
            f"pip install spacy && python -m spacy download {model}"
        ) from error
    if not spacy.util.is_package(model):
        raise ConfigError(
            f"captions.tagger=spacy needs the model {model}, which is not installed; run: "
            f"python -m spacy download {model}"
        )
    return spacy.load(model, exclude=_UNUSED)


def installed_version(name: str) -> str | None:
    """Return a tagger's version without loading its model, or None if it is not installed."""
    if name == "hanta":
        return _hanta().version
    try:
        return f"{MODEL} {version(MODEL)}" if name == "spacy" else None
    except PackageNotFoundError:
        return None
