"""Composite positives follow the published rule for two images, and its extension to more."""

from __future__ import annotations

import pytest

from clic.captions.composites import composite_positives, sentence_composite
from clic.errors import DataError
from clic.seeding import generator

A = ["a dog", "a brown dog", "a pet", "an animal"]
B = ["a cat.", "a grey cat", "a kitten", "a beast"]


def test_first_two_are_the_two_orders_of_the_first_sentences() -> None:
    texts = composite_positives(sentence_composite([A, B]), 2, generator(0, "test")).texts
    assert texts == ("a dog. a cat.", "a cat. a dog.")
    assert composite_positives(sentence_composite([A, B]), 1, generator(0, "test")).texts == (
        "a dog. a cat.",
    )


def test_further_ones_join_other_sentences_once_each_in_either_order() -> None:
    seen_orders = set()
    for seed in range(20):
        texts = composite_positives(sentence_composite([A, B]), 5, generator(seed, "test")).texts
        pairs = [text.rstrip(".").split(". ") for text in texts[2:]]
        used = [sentence for pair in pairs for sentence in pair]
        assert sorted(used) == sorted(A[1:] + [s.rstrip(".") for s in B[1:]])
        seen_orders |= {pair[0] in A for pair in pairs}
    assert seen_orders == {True, False}


def test_more_than_there_are_repeats_only_after_all_were_used() -> None:
    texts = composite_positives(sentence_composite([A[:3], B[:3]]), 6, generator(3, "test")).texts
    dogs = [next(s for s in A[1:3] if s in text) for text in texts[2:]]
    assert sorted(dogs[:2]) == sorted(dogs[2:]) == sorted(A[1:3])


def test_a_single_sentence_stands_in_for_the_others() -> None:
    texts = composite_positives(sentence_composite([["a dog"], B]), 4, generator(0, "test")).texts
    assert all("a dog" in text for text in texts)
    assert all("a cat" not in text for text in texts[2:])


def test_three_images() -> None:
    texts = composite_positives(
        sentence_composite([["a"], ["b"], ["c"]]), 3, generator(0, "test")
    ).texts
    assert texts[:2] == ("a. b. c.", "c. b. a.")
    assert sorted(texts[2].split()) == ["a.", "b.", "c."]


def test_an_image_without_a_sentence_is_an_error() -> None:
    with pytest.raises(DataError, match="image 1 of a composite has no caption"):
        composite_positives(sentence_composite([A, []]), 2, generator(0, "test"))
    with pytest.raises(ValueError, match="count=0"):
        composite_positives(sentence_composite([A, B]), 0, generator(0, "test"))


def test_sentences_without_words_are_not_joined() -> None:
    for seed in range(10):
        shown = sentence_composite([["a dog", "...", "", "a pet"], ["a cat", " ?! "]])
        texts = composite_positives(shown, 4, generator(seed, "test")).texts
        assert {frozenset(text.rstrip(".").split(". ")) for text in texts[2:]} == {
            frozenset(("a pet", "a cat"))
        }
