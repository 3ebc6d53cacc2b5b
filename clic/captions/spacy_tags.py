"""Tags of a spaCy pipeline, the ones that the published generators use (extra `clic[spacy]`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from clic.captions.characters import fold
from clic.captions.tagging import lower
from clic.errors import ConfigError
from clic.types import Token

MODEL = "en_core_web_sm"
# What tags and lemmas do not hang on.
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
        """Return the tokens of `text`, white space left out."""
        # Its limit guards the parser's memory, which does not run here.
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
