"""Contrast sets: how the file is read, and what the shipped one must hold."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from clic.captions.lexicon import Lexicon, default_lexicon
from clic.captions.words import word_set
from clic.errors import DataError

SHAPES = word_set("circle square triangle star heart cross diamond ring moon arrow hexagon")
COLOURS = word_set("red green blue yellow purple orange pink brown white grey cyan")


def test_sets_synonyms_forms_and_directions() -> None:
    lexicon = Lexicon(
        [
            "# a comment",
            "",
            "people NOUN: man~men/guy~guys, woman~women",
            "more NOUN: man~men, guy~guys, boy~boys",
            "places ADP: in > behind, in front of",
        ]
    )
    assert lexicon.alternatives("man", "NOUN") == ("woman", "boy")
    assert lexicon.alternatives("guys", "NOUN") == ("women", "boys")
    assert lexicon.alternatives("women", "NOUN") == ("men", "guys")
    assert lexicon.alternatives("in", "ADP") == ("behind", "in front of")
    assert lexicon.alternatives("behind", "ADP") == ()
    assert lexicon.alternatives("man", "VERB") == ()
    assert lexicon.longest == 1


@pytest.mark.parametrize(
    "line",
    ["colours ADJ red, green", "colours: red, green", "colours ADJ: red", "c ADJ: red,, green",
     "animals NOUN: dog~dogs, cat", "places ADP: in >"],
)  # fmt: skip
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(DataError, match="contrast sets, line 2"):
        Lexicon(["# comment", line])


def test_the_world_of_shapes_is_covered() -> None:
    lexicon = default_lexicon()
    for shape in SHAPES:
        assert SHAPES - {shape} <= set(lexicon.alternatives(shape, "NOUN"))
    for colour in COLOURS:
        assert COLOURS - {colour} <= set(lexicon.alternatives(colour, "ADJ"))
    assert lexicon.alternatives("to the left of", "ADP") == ("to the right of",)
    assert lexicon.alternatives("left", "NOUN") == ("right",)
    assert "below" in lexicon.alternatives("above", "ADP")
    assert "gray" not in lexicon.alternatives("grey", "ADJ")


def test_alternatives_are_lower_case_single_spaced_and_never_the_word() -> None:
    lexicon = default_lexicon()
    entries = lexicon._alternatives
    for (word, pos), others in entries.items():
        for text in chain([word], others):
            assert text == " ".join(text.lower().split())
        assert word not in others, (word, pos)
    assert Counter(pos for _, pos in entries)["NOUN"] > 500
