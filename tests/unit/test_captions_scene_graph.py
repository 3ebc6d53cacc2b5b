"""The scene graph: small cases by hand, and its score on captions that others marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clic.captions.scene_graph import SceneGraph, scene_graph
from clic.captions.tagging import make_tagger

TAG = make_tagger("hanta")
DATA = Path(__file__).resolve().parents[1] / "data"
MARKED = {
    "set 1": DATA / "scene_graph_captions.json",
    "set 2": DATA / "scene_graph_captions_2.json",
    "set 3, blind": DATA / "scene_graph_captions_3.json",
}


class Score(NamedTuple):
    """How a graph compares with the marks.

    Attributes:
        hits: Marked items found.
        marked: Marked items.
        found: Items found that are no accepted other reading.
        excused: Marked items in whose place such a reading of the same object was found.
    """

    hits: int
    marked: int
    found: int
    excused: int

    def __str__(self) -> str:
        return (
            f"recall {self.recall:.3f} precision {self.precision:.3f} of {self.marked} marked; "
            f"recall {self.recall_or_accepted:.3f} where an accepted other reading is no miss"
        )

    @property
    def recall(self) -> float:
        return self.hits / self.marked

    @property
    def precision(self) -> float:
        return self.hits / self.found

    @property
    def recall_or_accepted(self) -> float:
        return self.hits / (self.marked - self.excused)


def modifiers(caption: str) -> set[tuple[str, ...]]:
    tokens = TAG(caption.lower())
    return {(tokens[a].text, tokens[b].text) for a, b in scene_graph(tokens).modifiers}


def relations(caption: str) -> set[tuple[str, ...]]:
    tokens = TAG(caption.lower())
    return {
        (tokens[r.subject].text, " ".join(tokens[i].text for i in r.words), tokens[r.obj].text)
        for r in scene_graph(tokens).relations
    }


def score(captions: list[dict[str, Any]], name: str) -> Score:
    read = {"relations": relations, "modifiers": modifiers}[name]
    hits = marked = found = excused = 0
    for entry in captions:
        true = {tuple(item) for item in entry[name]}
        made = read(entry["caption"])
        other = {tuple(item) for item in entry.get("also", ())} - true
        hits += len(true & made)
        marked += len(true)
        found += len(made - other)
        objects = {item[-1] for item in made & other}
        excused += sum(item[-1] in objects for item in true - made)
    return Score(hits, marked, found, excused)


@pytest.mark.parametrize(
    ("caption", "marked"),
    [
        ("a man riding a horse", {("man", "riding", "horse")}),
        ("a red ball in front of a box", {("ball", "in front of", "box")}),
        (
            "a cat and a dog sleeping on a couch",
            {("cat", "sleeping on", "couch"), ("dog", "sleeping on", "couch")},
        ),
        (
            "a table with plates, cups and a vase",
            {("table", "with", "plates"), ("table", "with", "cups"), ("table", "with", "vase")},
        ),
        (
            "a man on a horse and a woman on a bicycle",
            {("man", "on", "horse"), ("woman", "on", "bicycle")},
        ),
        (
            "a boy in a blue jacket holding a phone to his ear",
            {("boy", "in", "jacket"), ("boy", "holding", "phone"), ("phone", "to", "ear")},
        ),
        (
            "a picture of a dog lying on a bed",
            {("picture", "of", "dog"), ("dog", "lying on", "bed")},
        ),
        ("a cook chops onions", {("cook", "chops", "onions")}),
        (
            "a bathroom has a sink and a tub in it",
            {("bathroom", "has", "sink"), ("bathroom", "has", "tub")},
        ),
        ("in a park, a man reads a book", {("man", "in", "park"), ("man", "reads", "book")}),
        (
            "a man wearing a hat and a scarf is riding a horse",
            {("man", "wearing", "hat"), ("man", "wearing", "scarf"), ("man", "riding", "horse")},
        ),
        ("two cats sit side by side on a bed", {("cats", "sit on", "bed")}),
        ("a dog is running. the cat sees it", set()),
        ("a man and a woman dance on a wooden floor",
         {("man", "dance on", "floor"), ("woman", "dance on", "floor")}),
        ("on a hill above a village stands a windmill",
         {("hill", "above", "village"), ("windmill", "stands on", "hill")}),
        ("next to the couch is a lamp", {("lamp", "next to", "couch")}),
        ("in the garden, a lamp and a clock stand on a table",
         {("lamp", "stand on", "table"), ("clock", "stand on", "table"),
          ("lamp", "stand in", "garden"), ("clock", "stand in", "garden")}),
        ("a bench stands near a house, and in the background two boats sail on the sea",
         {("bench", "stands near", "house"), ("boats", "sail on", "sea"),
          ("boats", "sail in", "background")}),
        ("a teacher shows her students a map",
         {("teacher", "shows", "students"), ("teacher", "shows", "map")}),
        ("a waitress pours coffee into a cup that an old man holds",
         {("waitress", "pours", "coffee"), ("coffee", "into", "cup"), ("man", "holds", "cup")}),
        ("a kitchen with cabinets and a stove that is made of steel",
         {("kitchen", "with", "cabinets"), ("kitchen", "with", "stove"),
          ("stove", "made of", "steel")}),
        ("a man with a beard and a woman in a dress are walking down a street",
         {("man", "with", "beard"), ("woman", "in", "dress"),
          ("man", "walking down", "street"), ("woman", "walking down", "street")}),
        ("a dog walked by a woman in a red coat",
         {("dog", "walked by", "woman"), ("woman", "in", "coat")}),
        ("a bus is being pulled out of a ditch by a crane",
         {("bus", "pulled out of", "ditch"), ("bus", "pulled by", "crane")}),
        ("a ladder leans against a house being painted by two workers",
         {("ladder", "leans against", "house"), ("house", "painted by", "workers")}),
        ("a cook cuts bread on a board with a knife",
         {("cook", "cuts", "bread"), ("bread", "on", "board"), ("cook", "with", "knife")}),
        ("a man sleeps on a couch with a cat on his lap",
         {("man", "sleeps on", "couch"), ("man", "sleeps with", "cat"), ("cat", "on", "lap")}),
        ("a man pours milk from a jug into a glass",
         {("man", "pours", "milk"), ("milk", "from", "jug"), ("milk", "into", "glass")}),
        ("a chair lies next to a trash can", {("chair", "lies next to", "can")}),
        ("two boys wrestle in the mud as their friends cheer", {("boys", "wrestle in", "mud")}),
        ("the woman looks at him as he rides a horse", set()),
        ("seven geese waddle past a barn", {("geese", "waddle past", "barn")}),
        ("soldiers in dress uniform march through the square",
         {("soldiers", "in", "uniform"), ("soldiers", "march through", "square")}),
        ("a cat with green eyes peers through a hole",
         {("cat", "with", "eyes"), ("cat", "peers through", "hole")}),
        ("a crowd of fans cheers as a player scores a goal",
         {("crowd", "of", "fans"), ("player", "scores", "goal")}),
        ("two nuns feed pigeons", {("nuns", "feed", "pigeons")}),
        ("shelves with jars of honey and bags of rice",
         {("shelves", "with", "jars"), ("jars", "of", "honey"), ("shelves", "with", "bags"),
          ("bags", "of", "rice")}),
    ],
)  # fmt: skip
def test_relations(caption: str, marked: set[tuple[str, ...]]) -> None:
    assert relations(caption) == marked


@pytest.mark.parametrize(
    ("caption", "marked"),
    [
        ("two big red balls", {("two", "balls"), ("big", "balls"), ("red", "balls")}),
        ("the dog is big and brown", {("big", "dog"), ("brown", "dog")}),
        ("the dog is big and the cat is small", {("big", "dog"), ("small", "cat")}),
        ("parked cars and several bouncing balls",
         {("parked", "cars"), ("several", "balls"), ("bouncing", "balls")}),
        ("a cutting board in a living room", set()),
        ("a truck full of hay", {("full", "truck")}),
        ("the door is closed", {("closed", "door")}),
        ("the roof is painted red", {("red", "roof")}),
        ("the runner, exhausted and sweaty, bends over",
         {("exhausted", "runner"), ("sweaty", "runner")}),
        ("the dog looks sad and wet", {("sad", "dog"), ("wet", "dog")}),
        ("a baby in a high chair under a concrete bridge", set()),
        ("two friends film him", {("two", "friends")}),
    ],
)  # fmt: skip
def test_modifiers(caption: str, marked: set[tuple[str, ...]]) -> None:
    assert modifiers(caption) == marked


def test_nothing_and_far_too_much() -> None:
    assert scene_graph(()) == SceneGraph((), (), ())
    many = TAG("a dog and a cat on a box and a mat, " * 200)
    assert 0 < len(scene_graph(many).relations) < 5000


# Captions and marks were written by hand for this, each set independently of the code. Sets 1 and
# 2 are for development: their errors were read to improve the rules. Set 3 is the blind one:
# no rule was written after its captions were scored or read. docs/negatives.md has all scores.
@pytest.mark.parametrize(
    ("use", "name", "recall", "accepted", "precision"),
    [
        ("set 1", "relations", 0.97, 0.99, 0.99),
        ("set 1", "modifiers", 0.99, 0.99, 0.99),
        ("set 2", "relations", 0.96, 0.99, 0.99),
        ("set 2", "modifiers", 0.99, 0.99, 0.99),
        ("set 3, blind", "relations", 0.88, 0.94, 0.95),
        ("set 3, blind", "modifiers", 0.97, 0.97, 0.97),
    ],
)
def test_score_on_marked_captions(
    use: str, name: str, recall: float, accepted: float, precision: float
) -> None:
    made = score(json.loads(MARKED[use].read_text("utf-8"))["captions"], name)
    print(f"scene graph, {use}, {name}: {made}")
    assert made.recall >= recall and made.precision >= precision
    assert made.recall_or_accepted >= accepted
