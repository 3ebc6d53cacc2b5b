"""Swaps after which the caption is as true as before, and near relatives that make it false."""

from __future__ import annotations

import pytest

from clic.captions import make_tagger, swap
from clic.captions.equivalence import alike
from clic.seeding import generator

TAG = make_tagger("hanta")


def swapped(caption: str, n: int = 100) -> set[str]:
    made = [swap(caption, TAG(caption), generator(0, "t", slot=i)) for i in range(n)]
    return {m.text if m else "None" for m in made}


@pytest.mark.parametrize(
    ("caption", "same"),
    [
        # Beside each other, and what is said of one may hold of the other.
        ("a van is next to an old truck", "a truck is next to an old van"),
        ("a chair near a large bed", "a bed near a large chair"),
        ("a girl beside a cute boy", "a boy beside a cute girl"),
        # One modifier of two nouns.
        ("bags of different shape and size", "bags of different size and shape"),
        ("a black dog and cat", "a black cat and dog"),
        # Modifiers of different dimensions.
        ("a large bowl under a white lamp", "a white bowl under a large lamp"),
        ("an old dog chasing a big cat", "a big dog chasing an old cat"),
        # Verbs that may be said of one act.
        (
            "a boy carrying a box is behind a girl holding a bag",
            "a boy holding a box is behind a girl carrying a bag",
        ),
        # Vessels that may be called either.
        (
            "a tray with a cake above a dish with a pie",
            "a dish with a cake above a tray with a pie",
        ),
        # "A couple of" says no more than the plural.
        ("a room with lamps, a couple of chairs", "a room with chairs, a couple of lamps"),
    ],
)
def test_the_same_said_anew(caption: str, same: str) -> None:
    assert same not in swapped(caption)


@pytest.mark.parametrize(
    ("caption", "false"),
    [
        ("a van is next to a red truck", "a truck is next to a red van"),
        ("a big dog next to a small cat", "a big cat next to a small dog"),
        ("a white bowl under a black lamp", "a black bowl under a white lamp"),
        ("a boy kicking a box is behind a girl holding a bag",
         "a boy holding a box is behind a girl kicking a bag"),
        ("a black dog and a white cat", "a black cat and a white dog"),
        ("In the grass lies a cat", "In the cat lies a grass"),
        ("Inside a big tent, two men", "Inside two men, a big tent"),
        ("a bridge crossed by a train", "a train crossed by a bridge"),
    ],
)  # fmt: skip
def test_near_relatives_are_false(caption: str, false: str) -> None:
    assert false in swapped(caption)


def test_alike() -> None:
    assert alike("carry", "hold") and alike("stand", "pose")
    assert not alike("carry", "throw") and not alike("fly", "swim")
