"""Part-of-speech taggers by name, and the tags that a sample's JSON stores.

A tagger returns words with offsets, POS and lemma: HanTa by default, or the spaCy pipeline of the
published generators (extra `clic[spacy]`). A sample stores the tags of its captions as

    "tokens": [[[0, 1, 1, 3, 1, 4], "DJN", ["", "", "dog"]], ...]   one entry a caption
    "tagger": {"name": "hanta", "version": "1.2.1+2"}
    "caption_hash": "9d1f..."

An entry lists, for each token, the gap before it and its length in characters; one letter for its
universal POS; and its lemma, which is empty where it equals the lower-case word.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Any, Protocol

from clic.captions.text import fold, lower
from clic.errors import ConfigError, DataError, pick
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


KEYS = ("tokens", "tagger", "caption_hash")
"""The keys that `annotate` adds to a sample's JSON."""
_FORMAT = "clic tokens 1"  # part of the hash, so that tokens in another format do not match
_LETTERS = {
    "ADJ": "J", "ADP": "I", "ADV": "R", "AUX": "B", "CCONJ": "C", "DET": "D", "INTJ": "U",
    "NOUN": "N", "NUM": "M", "PART": "T", "PRON": "P", "PROPN": "O", "PUNCT": ".", "SCONJ": "S",
    "SYM": "$", "VERB": "V", "X": "x",
}  # fmt: skip
_TAGS = {letter: pos for pos, letter in _LETTERS.items()}

Captions = tuple[tuple[Token, ...], ...]


def annotate(captions: Sequence[str], tagger: Tagger) -> dict[str, Any]:
    """Tag captions and return the entries for the JSON of their sample.

    Args:
        captions: All of the sample's captions, in the order in which they are stored.
        tagger: Tags them; its name and version are kept.

    Returns:
        The keys `tokens`, `tagger` and `caption_hash`.
    """
    return record(captions, [tagger(caption) for caption in captions], tagger.name, tagger.version)


def record(
    captions: Sequence[str], tokens: Sequence[Sequence[Token]], name: str, version: str
) -> dict[str, Any]:
    """Return what `annotate` returns, from given tokens.

    Args:
        captions: All of the sample's captions, in the order in which they are stored.
        tokens: The tokens of each caption.
        name: Name of the tagger that made them.
        version: Its version.
    """
    return {
        "tokens": [_packed(sentence) for sentence in tokens],
        "tagger": {"name": name, "version": version},
        "caption_hash": caption_hash(captions),
    }


def caption_hash(captions: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that identify the captions, whatever their case."""
    text = "\0".join([_FORMAT, *map(lower, captions)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def stored_tokens(
    stored: Mapping[str, Any], captions: Sequence[str], most: int | None = None
) -> Captions | None:
    """Return the tokens of each caption, as they were stored.

    Args:
        stored: A sample's JSON.
        captions: Its captions, in their own case or in lower case, which the tokens then have, too.
        most: Number of captions, from the first on, whose tokens are unpacked; None unpacks all.

    Returns:
        The tokens, or None if none are stored or they belong to other captions. Where another
        version of an installed tagger made them, a warning names both, once in a process.

    Raises:
        DataError: The hash matches, but the tokens do not fit the captions.
    """
    if "caption_hash" not in stored or stored["caption_hash"] != caption_hash(captions):
        return None
    if isinstance(made_by := stored.get("tagger"), Mapping):
        _check_version(str(made_by.get("name")), str(made_by.get("version")))
    try:
        pairs = list(zip(captions, stored["tokens"], strict=True))[:most]
        return tuple([_unpacked(caption, *entry) for caption, entry in pairs])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the stored tokens are broken ({error}); write them again with clic-data annotate "
            "--force"
        ) from error


@lru_cache
def _check_version(name: str, stored: str) -> None:
    """Warn where the stored tags of a tagger are not what its installed version would give."""
    installed = _installed_version(name)
    if installed is not None and installed != stored:
        warnings.warn(
            f"the stored tags were made by {name} {stored}, and here is {name} {installed}, whose "
            "tags may differ; run clic-data annotate on the shards, or set "
            f"captions.tagger={name}",
            stacklevel=3,
        )


def _installed_version(name: str) -> str | None:
    """Return a tagger's version without loading its model, None where it is not installed."""
    if name == "hanta":
        return _hanta().version
    try:
        return f"{MODEL} {version(MODEL)}" if name == "spacy" else None
    except PackageNotFoundError:
        return None


def _packed(tokens: Sequence[Token]) -> list[Any]:
    bounds = [bound for token in tokens for bound in (token.start, token.end)]
    return [
        [b - a for a, b in zip([0, *bounds], bounds, strict=False)],
        "".join([_LETTERS[token.pos] for token in tokens]),
        ["" if token.lemma == token.text.lower() else token.lemma for token in tokens],
    ]


def _unpacked(
    caption: str, gaps: Sequence[int], letters: str, lemmas: Sequence[str]
) -> tuple[Token, ...]:
    bounds = list(accumulate(gaps))
    starts, ends = bounds[::2], bounds[1::2]
    if gaps and (min(gaps) < 0 or not all(gaps[1::2]) or bounds[-1] > len(caption)):
        raise ValueError("a token lies outside its caption, or is empty")
    "".join(lemmas)  # a TypeError where one is no text
    texts = [caption[start:end] for start, end in zip(starts, ends, strict=True)]
    lemmas = [lemma or text.lower() for lemma, text in zip(lemmas, texts, strict=True)]
    tags = [_TAGS[letter] for letter in letters]
    return tuple(map(Token._make, zip(texts, starts, ends, tags, lemmas, strict=True)))
