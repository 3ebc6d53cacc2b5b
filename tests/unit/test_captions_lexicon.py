"""Contrast sets: how the file is read, and what the shipped one must hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from itertools import chain
from pathlib import Path

import pytest

from clic.captions.lexicon import VERB_GROUPS, WORDS, Lexicon, default_lexicon
from clic.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    *("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring", "moon"),
    *("arrow", "hexagon"),
}
COLOURS = {
    *("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown", "white"),
    *("grey", "cyan"),
}


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


@pytest.mark.parametrize(
    "line",
    ["colours ADJ red, green", "colours: red, green", "colours ADJ: red", "c ADJ: red,, green",
     "animals NOUN: dog~dogs, cat", "places ADP: in >"],
)  # fmt: skip
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(DataError, match="lexicon, line 2"):
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


def entries(lexicon: Lexicon) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the alternatives of every word and phrase by (word, POS)."""
    tables = (*lexicon.single.values(), *lexicon.several.values())
    keys = {(" ".join(use.words), use.pos) for uses in tables for use in uses if use.pos}
    return {key: lexicon.alternatives(*key) for key in sorted(keys)}


def test_alternatives_are_lower_case_single_spaced_and_never_the_word() -> None:
    found = entries(default_lexicon())
    for (word, pos), others in found.items():
        for text in chain([word], others):
            assert text == " ".join(text.lower().split())
        assert word not in others, (word, pos)
    assert Counter(pos for _, pos in found)["NOUN"] > 1000


def test_conditions_weights_and_classes() -> None:
    lexicon = Lexicon(
        [
            "class beds: bed, cot",
            "class tops: table, +beds",
            "class fixed: big ben",
            "on ADP after * before +tops: on > under*3, behind*1",
            "sizes ADJ before !clock: big, small",
            "odd NOUN fallback: lamp~lamps, clock~clocks",
        ]
    )
    assert lexicon.classes["tops"] == {"table", "bed", "cot"}
    on, sizes, odd = lexicon.sets
    assert on.before is not None and on.before.holds("bed") and not on.before.holds("clock")
    assert sizes.before is not None and sizes.before.holds("dog")
    assert not sizes.before.holds("clock", "alarm clock")
    assert not on.fallback and odd.fallback
    assert lexicon.draw_list((lexicon.single["on"][0],)).cumulative == (3, 4)
    assert lexicon.several["big"][0].words == ("big", "ben")


@pytest.mark.parametrize(
    "line",
    ["a NOUN near x: dog, cat", "a NOUN after: dog, cat", "a NOUN after +none: dog, cat",
     "class a: +none"],
)  # fmt: skip
def test_a_bad_condition_is_named(line: str) -> None:
    with pytest.raises(DataError, match="lexicon, line 1"):
        Lexicon([line])


def test_every_word_list_that_the_code_names_is_there_and_used() -> None:
    named = set()
    for path in (ROOT / "clic/captions").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "WORDS":
                named |= {node.slice.value} if isinstance(node.slice, ast.Constant) else set()
    assert named == set(WORDS)


def test_word_lists_are_read_as_they_are_written() -> None:
    assert {"a", "an", "the"} == WORDS["articles"]
    assert {"close to", ",", ", and"} < WORDS["links"]  # an underscore stands for a space
    assert "The" in WORDS["lowered"] and "the" not in WORDS["lowered"]
    assert {"chase", "prepare"} < WORDS["passive_verbs"]  # the first and last line of a long list
    assert VERB_GROUPS["ride"] == {"ride", "drive"}


def test_size_and_licence() -> None:
    data = files("clic.captions") / "data"
    assert len((data / "lexicon.txt").read_bytes()) < 1_000_000
    licence = (data / "WORDNET_LICENSE").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence


def test_no_banned_word_is_replaced_or_written() -> None:
    text = (ROOT / "scripts/lexicon/banned.txt").read_text(encoding="utf-8")
    banned = set(" ".join(line for line in text.splitlines() if not line.startswith("#")).split())
    assert {"asian", "muslim", "disabled", "gay", "american"} <= banned
    for (word, _), others in entries(default_lexicon()).items():
        if word != "french fries":
            assert banned.isdisjoint(word.split()), word
        for other in others:
            assert other == "french fries" or banned.isdisjoint(other.split()), (word, other)


# More general and more special words, as WordNet has them: neither makes the other false.
RELATED = """
bird: pigeon duck owl eagle parrot swan penguin seagull goose crow sparrow
dog: puppy terrier bulldog
cat: kitten
person: man woman boy girl child skier surfer player chef
people: men women children
man: guy gentleman
animal: dog cat horse cow sheep elephant giraffe zebra bear bird
vehicle: car truck bus van train motorcycle bicycle
boat: sailboat canoe kayak ferry rowboat
car: taxi ambulance convertible
aircraft: airplane helicopter
food: pizza sandwich cake bread
fruit: apple banana orange pear strawberry
vegetable: carrot potato broccoli
sandwich: hamburger cheeseburger
furniture: chair couch bench bed table
seat: chair bench stool
clothing: shirt jacket hat dress
shirt: t-shirt jersey
hat: cap
flower: rose tulip daisy sunflower
tree: willow elm beech
building: house church school hospital hotel
street: road
ocean: sea
couch: sofa
deer: moose elk
motorcycle: bike moped
football: soccer
"""


@pytest.mark.parametrize("line", RELATED.strip().splitlines())
def test_no_related_word_is_an_alternative(line: str) -> None:
    lexicon = default_lexicon()
    general, _, special = line.partition(": ")
    for word in special.split():
        assert word not in lexicon.alternatives(general, "NOUN")
        assert general not in lexicon.alternatives(word, "NOUN"), (word, general)


def test_forms_agree() -> None:
    lexicon = default_lexicon()
    assert "women" in lexicon.alternatives("men", "NOUN")
    assert "women" not in lexicon.alternatives("man", "NOUN")
    assert "knives" in lexicon.alternatives("forks", "NOUN")
    assert "standing" in lexicon.alternatives("sitting", "VERB")
    assert "stands" in lexicon.alternatives("sits", "VERB")
    assert "lying" in lexicon.alternatives("standing", "VERB")
    assert "geese" in lexicon.alternatives("ducks", "NOUN")


@pytest.mark.slow
def test_rebuilding_gives_the_shipped_file() -> None:
    if not Path("/usr/share/wordnet/data.noun").exists():
        pytest.skip("WordNet's files (Debian package wordnet-base) are not installed")
    pytest.importorskip("lemminflect")
    command = [sys.executable, str(ROOT / "scripts/build_lexicon.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
