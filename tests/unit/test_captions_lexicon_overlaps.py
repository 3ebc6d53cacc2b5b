"""What one thing may be called is no alternative: shades, vessels, weathers, parts all have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clic.captions import make_tagger, replace
from clic.captions.lexicon import default_lexicon
from clic.seeding import generator

TAG = make_tagger("hanta")


def replaced(caption: str, n: int = 200) -> set[str]:
    """Return the texts of many replacements by the shipped lexicon, nothing being "None"."""
    made = [replace(caption, TAG(caption), generator(0, "t", slot=i)) for i in range(n)]
    return {m.text if m else "None" for m in made}


@pytest.mark.parametrize(
    ("colour", "shades", "other"),
    [
        ("red", ("orange", "pink", "brown", "purple"), "blue"),
        ("orange", ("red", "yellow"), "green"),
        ("white", ("grey", "gray", "silver", "beige"), "black"),
        ("grey", ("white", "black", "silver"), "red"),
        ("beige", ("brown", "white", "grey"), "green"),
        ("purple", ("blue", "pink"), "yellow"),
        ("silver", ("grey", "white"), "red"),
    ],
)
def test_shades_of_a_colour_do_not_replace_it(
    colour: str, shades: tuple[str, ...], other: str
) -> None:
    texts = replaced(f"the {colour} bus")
    assert f"the {other} bus" in texts
    for shade in shades:
        assert f"the {shade} bus" not in texts and f"an {shade} bus" not in texts


def test_drawn_shapes_have_pure_colours() -> None:
    texts = replaced("the red hexagon")
    assert {"the orange hexagon", "the pink hexagon", "the blue hexagon"} <= texts


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("plate", ("tray", "platter", "dish")),
        ("tray", ("plate", "platter", "dish")),
        ("cloudy", ("rainy", "stormy", "foggy")),
        ("round", ("oval",)),
    ],
)
def test_what_may_be_called_either_is_no_alternative(word: str, same: tuple[str, ...]) -> None:
    lexicon = default_lexicon()
    for pos in ("NOUN", "ADJ"):
        assert not set(same) & set(lexicon.alternatives(word, pos))


def test_parts_that_every_vehicle_has_are_not_contrastive() -> None:
    for text in replaced("a girl sleeping under the window of a train"):
        assert "roof" not in text and "door" not in text and "floor" not in text
    assert not any("roof" in text for text in replaced("a cat beside the window"))


def test_traffic_cones_are_no_drawn_shapes() -> None:
    lexicon = default_lexicon()
    assert not {"moon", "cube", "star"} & set(lexicon.alternatives("cone", "NOUN"))


def test_negations_only_where_nothing_reads_better() -> None:
    for text in replaced("a room with a desk and two lamps"):
        assert "without" not in text
    for text in replaced("a meadow full of goats"):
        assert "empty of" not in text
    assert not any("far" in text for text in replaced("geese flying near the lake"))


def test_many_becomes_a_few_where_no_article_stands() -> None:
    assert "a tent beside a few horses" in replaced("a tent beside many horses")
    assert not any("a few" in text for text in replaced("the many horses of a farm"))


def test_what_stands_open_becomes_what_opens() -> None:
    texts = replaced("an open laptop on a bed")
    assert "an open book on a bed" in texts
    assert not any("television" in text or "radio" in text for text in texts)


def test_a_word_of_sport_that_opens_the_caption_may_be_a_slip() -> None:
    assert not any("tennis" in t for t in replaced("A professional baseball holding his cap"))
    assert any("tennis" in text for text in replaced("two boys playing baseball"))


def test_a_set_whose_members_overlap_is_parted() -> None:
    pytest.importorskip("lemminflect")
    scripts = str(Path(__file__).resolve().parents[2] / "scripts")
    sys.path.insert(0, scripts)
    try:
        from lexicon.contrast import _parted
    finally:
        sys.path.remove(scripts)
    overlaps = {frozenset(("red", "pink"))}
    assert _parted(" red/crimson, green, pink", overlaps) == [
        "red/crimson > green",
        "green > red/crimson, pink",
        "pink > green",
    ]
    assert _parted(" red, green > green, blue", overlaps) == [
        "red > green, blue",
        "green > blue",
    ]
    assert _parted(" red, green", overlaps) == [" red, green"]
    assert _parted(" red, pink", overlaps) == []  # nothing is left of it
