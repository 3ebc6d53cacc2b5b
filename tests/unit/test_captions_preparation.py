"""Dense captions made into sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clic.captions.sentences import prepare, split, strip_lead


@pytest.mark.parametrize(
    ("sentence", "rest"),
    [
        ("The image shows a dog on a mat.", "A dog on a mat."),
        ("This black and white photo also features two men.", "Two men."),
        ("the picture depicts that a dog runs", "a dog runs"),
        ("In the image, there is a dog.", "There is a dog."),
        ("In this image we can see two birds.", "Two birds."),
        ("In this photograph, a man rides.", "A man rides."),
        ("In the image, you can also see a hat.", "A hat."),
        ("Within the scene a man rides.", "A man rides."),
        ("An image of a red bus.", "A red bus."),
        ("This is a close-up photo of a bee.", "A bee."),
        ("Image of a cat on a sofa.", "A cat on a sofa."),
        ("In this black and white photo, two men sit.", "Two men sit."),
        ("A black and white photo of two men.", "Two men."),
        ("It is a drawing showing a child.", "A child."),
        ("We can see a tall tree.", "A tall tree."),
        # what says something of its own stays
        ("The picture frame hangs on the wall.", "The picture frame hangs on the wall."),
        ("A photo on the wall shows a dog.", "A photo on the wall shows a dog."),
        ("The image is divided into two parts.", "The image is divided into two parts."),
        ("In the picture frame is a dog.", "In the picture frame is a dog."),
        ("The drawing of a child hangs there.", "The drawing of a child hangs there."),
        ("A painting of a ship is on the wall.", "A painting of a ship is on the wall."),
        ("In the photo album, a cat sits.", "In the photo album, a cat sits."),
        ("The man in the picture shows his teeth.", "The man in the picture shows his teeth."),
        ("Holding a picture of his dog, he smiles.", "Holding a picture of his dog, he smiles."),
        ("Behind the painting of a ship is a man.", "Behind the painting of a ship is a man."),
        ("A dog runs.", "A dog runs."),
        ("The image shows.", "The image shows."),
        ("", ""),
    ],
)
def test_leading_phrases(sentence: str, rest: str) -> None:
    assert strip_lead(sentence) == rest


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A dog. A cat! A cow? A fox", ["A dog.", "A cat!", "A cow?", "A fox"]),
        ("a dog runs. a cat sits.", ["a dog runs.", "a cat sits."]),
        (
            "St. Paul's and Dr. Who, e.g. here. Done.",
            ["St. Paul's and Dr. Who, e.g. here.", "Done."],
        ),
        ("At 5 p.m. The sun sets at 6 p.m. here.", ["At 5 p.m.", "The sun sets at 6 p.m. here."]),
        ("J. K. Smith waits... for a bus. So", ["J. K. Smith waits... for a bus.", "So"]),
        ("It waits... Then it runs.", ["It waits...", "Then it runs."]),
        ("It is 3.5 m tall. No. 5 is near.", ["It is 3.5 m tall.", "No. 5 is near."]),
        ('He says "Stop." (He does.) Go', ['He says "Stop."', "(He does.)", "Go"]),
        ("1. One dog\n2) Two  dogs\n- Three dogs\n\n", ["One dog", "Two dogs", "Three dogs"]),
        ("Ein Hund. 一只狗。", ["Ein Hund.", "一只狗。"]),
        (" \n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


def test_length_in_words() -> None:
    words = [f"w{i}" for i in range(40)]
    text = " ".join(f"{' '.join(words[:n])}." for n in (3, 4, 34, 35))
    assert [len(sentence.split()) for sentence in prepare(text)] == [4, 34]


def test_a_leading_phrase_counts_no_words() -> None:
    assert prepare("The image shows a dog. The image shows a dog on grass.") == ["A dog on grass."]


@given(st.text(max_size=300))
def test_no_text_breaks_it_and_no_word_is_made_up(text: str) -> None:
    found = prepare(text)
    assert all(4 <= len(sentence.split()) <= 34 for sentence in found)
    words = {word.lower() for word in text.split()}
    assert {word.lower() for sentence in found for word in sentence.split()} <= words
