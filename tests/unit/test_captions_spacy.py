"""The optional spaCy backend: any pipeline that sets tags, and what is said where none is."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from clic.captions import cross_swap, swap
from clic.captions.tagging import MODEL, SpacyTagger, _load, make_tagger
from clic.errors import ConfigError
from clic.seeding import generator

WORDS = {
    "a": ("DET", "a"), "two": ("NUM", "two"), "cat": ("NOUN", "cat"), "dogs": ("NOUN", "dog"),
    "dog": ("NOUN", "dog"), "chases": ("VERB", "chase"), "red": ("ADJ", "red"),
    "blue": ("ADJ", "blue"), ".": ("PUNCT", "."),
}  # fmt: skip


@pytest.fixture
def tagger() -> SpacyTagger:
    """Return the backend over a blank English pipeline whose tags are set by hand."""
    spacy = pytest.importorskip("spacy", reason="the extra clic[spacy] is not installed")
    from spacy.language import Language

    @Language.component("hand_set_tags")
    def tags(doc: Any) -> Any:
        for word in doc:
            if word.text in WORDS:
                word.pos_, word.lemma_ = WORDS[word.text]
        return doc

    pipeline = spacy.blank("en")
    pipeline.add_pipe("hand_set_tags")
    return SpacyTagger(pipeline)


def test_tokens_are_those_of_the_pipeline(tagger: SpacyTagger) -> None:
    caption = "Two  dogs chases\na RED xyzzy."
    tokens = tagger(caption)
    assert [t.text for t in tokens] == ["Two", "dogs", "chases", "a", "RED", "xyzzy", "."]
    assert all(caption[t.start : t.end] == t.text for t in tokens)
    assert [t.pos for t in tokens] == ["NUM", "NOUN", "VERB", "DET", "ADJ", "X", "PUNCT"]
    assert [t.lemma for t in tokens] == ["two", "dog", "chase", "a", "red", "xyzzy", "."]
    assert (tagger.name, tagger.version) == ("spacy", "en_pipeline 0.0.0")


def test_negatives_are_made_of_them(tagger: SpacyTagger) -> None:
    caption = "a dog chases a cat"
    made = swap(caption, tagger(caption), generator(0, "t"))
    assert made is not None and made.text == "a cat chases a dog"
    captions = ("a red dog", "a blue cat")
    crossed = cross_swap(captions, [tagger(c) for c in captions], generator(0, "t"))
    assert crossed is not None and "a blue dog." in crossed.text


@pytest.mark.parametrize("text", ["", " \n", "İ dog", "\0", "😀" * 50, "猫が"])
def test_hard_texts(tagger: SpacyTagger, text: str) -> None:
    assert all(text[t.start : t.end] == t.text and t.pos for t in tagger(text))


def test_a_text_beyond_the_pipelines_limit(tagger: SpacyTagger) -> None:
    tagger._pipeline.max_length = 10
    assert len(tagger("a dog chases a cat")) == 5


def test_a_missing_model_is_named_with_its_command() -> None:
    spacy = pytest.importorskip("spacy", reason="the extra clic[spacy] is not installed")
    if spacy.util.is_package(MODEL):
        pytest.skip(f"{MODEL} is installed")
    with pytest.raises(ConfigError, match=f"needs the model {MODEL}.*spacy download {MODEL}"):
        make_tagger("spacy")


def test_missing_spacy_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _load.cache_clear()
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match=r"pip install spacy.*spacy download"):
        make_tagger("spacy")


@pytest.mark.skipif(
    importlib.util.find_spec(MODEL) is None, reason=f"{MODEL} is not installed (not on PyPI)"
)
def test_the_real_model() -> None:
    assert [t.pos for t in make_tagger("spacy")("A red dog.")] == ["DET", "ADJ", "NOUN", "PUNCT"]
