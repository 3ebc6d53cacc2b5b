"""Tokens with offsets, and universal POS as a reader of captions would give them."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from clic.captions.hanta import _model, best_tags, tokenize, universal
from clic.captions.tagging import TAGGERS, make_tagger
from clic.captions.text import lower
from clic.errors import ConfigError

TAG = make_tagger("hanta")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog, running.", ["A", "dog", ",", "running", "."]),
        ("the man's t-shirt", ["the", "man", "'s", "t-shirt"]),
        ("they aren't, can't", ["they", "are", "n't", ",", "ca", "n't"]),
        ("dogs' it’s we'll", ["dogs", "'", "it", "’s", "we", "'ll"]),
        ("2nd of 1,000 at 10:30", ["2nd", "of", "1,000", "at", "10:30"]),
        ("black_white 🐶🐱!", ["black", "_", "white", "🐶", "🐱", "!"]),
        ("", []),
    ],
)
def test_tokens(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in tokenize(text)] == words


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        (
            "A red circle is to the left of a blue square.",
            "DET ADJ NOUN AUX ADP DET NOUN ADP DET ADJ NOUN PUNCT",
        ),
        ("a cyan star above an orange ring", "DET ADJ NOUN ADP DET ADJ NOUN"),
        ("a circle left of a moon", "DET NOUN ADP ADP DET NOUN"),
        ("two dogs next to the man's ball", "NUM NOUN ADP ADP DET NOUN PART NOUN"),
        ("a man and a woman are slowly riding horses", "DET NOUN CCONJ DET NOUN AUX ADV VERB NOUN"),
        ("a circle is above a square", "DET NOUN AUX ADP DET NOUN"),
        ("a cook chops onions and carrots", "DET NOUN VERB NOUN CCONJ NOUN"),
        ("a person pets a couple dogs", "DET NOUN VERB DET NOUN NOUN"),
        ("she isn't eating 🍕", "PRON AUX PART VERB SYM"),
    ],
)
def test_tags(caption: str, tags: str) -> None:
    assert " ".join(token.pos for token in TAG(caption)) == tags


def test_lemmas_and_offsets() -> None:
    caption = "Two dogs  aren't sitting on the benches."
    tokens = TAG(caption)
    assert all(caption[t.start : t.end] == t.text for t in tokens)
    lemmas = {t.text: t.lemma for t in tokens}
    assert (lemmas["dogs"], lemmas["sitting"], lemmas["benches"]) == ("dog", "sit", "bench")


def test_case_changes_no_tag() -> None:
    text = "A Red Circle Left Of The Big Dog"
    assert [t.pos for t in TAG(text)] == [t.pos for t in TAG(text.lower())]


def test_tags_become_universal() -> None:
    for pos, tags in {
        "ADJ": ("AJ0", "AJC", "ORD"),
        "NOUN": ("NN0", "NN1", "NN2"),
        "VERB": ("VVB", "VVG", "VVN"),
        "AUX": ("VBZ", "VDD", "VHG", "VM0"),
        "ADP": ("PRP", "PRF", "AVP"),
        "PROPN": ("NP0",),
        "SCONJ": ("CJS", "CJT"),
        "CCONJ": ("CJC",),
    }.items():
        assert {universal(tag) for tag in tags} == {pos}
    assert universal("UNC") == universal("ZZ0") == universal("new") == "X"


@pytest.mark.parametrize(
    "text", ["a" * 10_000, "a b " * 2_500, "\0", "😀" * 300, "'" * 300, "猫 が"]
)
def test_hard_texts_give_tokens(text: str) -> None:
    assert all(text[t.start : t.end] == t.text for t in TAG(text))


def test_the_search_is_that_of_hanta() -> None:
    """Our search over HanTa's model gives the tags that HanTa's own gives."""
    texts = [
        "a young man in a red hat riding an orange bicycle past two parked cars .",
        "the left of what is left is next to the right , isn't it ?",
        "time flies like an arrow ; fruit flies like a banana",
        "zxqv 猫 q 1,000 - - o' n't \u2019s ü _ 😀",
        "down near up close by the well well",
        "dog",
    ]
    folder = os.environ.get("CLIC_TEST_DATA")
    if folder:
        rows = json.loads((Path(folder) / "sugarcrepe_pp/swap_obj.json").read_text("utf-8"))
        texts += [row["negative_caption"].lower() for row in rows]
    for text in texts:
        words = text.split()
        assert best_tags(words) == _model().tag_sent_viterbi(words, False), text
    assert best_tags([]) == []


def test_lower_case_keeps_every_place() -> None:
    assert lower("A DOG") == "a dog"
    assert lower("İ ÉA") == "İ éa"  # "İ".lower() has two characters
    assert [t.text for t in TAG("İstanbul DOG")] == ["İstanbul", "DOG"]


def test_the_version_names_hanta() -> None:
    assert TAG.name == "hanta"
    assert TAG.version.startswith(f"{version('HanTa')}+")


def test_an_unknown_tagger_is_named() -> None:
    assert set(TAGGERS) == {"hanta", "spacy"}
    with pytest.raises(ConfigError, match="did you mean 'hanta'"):
        make_tagger("hant")
