"""`shapes-relations`: what each category says, and where its things lie."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clic import shapes
from clic.shapes.scenes import (
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    sample_diagonal,
    sample_near,
    sample_off_centre,
)

seeds = st.integers(0, 2**32 - 1)


def _offsets(scene: Scene) -> tuple[Thing, Thing, np.ndarray, np.ndarray]:
    """Return a pair and its places from the image's centre, along the parting axis and across."""
    first, second = scene.things
    places = np.array([(first.x, first.y), (second.x, second.y)]) - 32
    axis = int(np.ptp(places[:, 1]) >= np.ptp(places[:, 0]))
    return first, second, places[:, axis], places[:, 1 - axis]


@given(seeds)
def test_things_at_other_places_are_apart_and_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for sample in (sample_near, sample_diagonal, sample_off_centre):
        first, second, along, across = _offsets(sample(rng))
        assert (first.shape, first.colour) != (second.shape, second.colour)
        assert along[1] - along[0] >= first.radius + second.radius + 2
        assert abs(across[1] - across[0]) * 1.5 <= along[1] - along[0]
        for thing in (first, second):
            for centre in (thing.x, thing.y):
                assert centre % 0.5 == 0
                assert centre - thing.radius >= 1 and centre + thing.radius <= 63


def _reach(radius: float) -> float:
    return {7.0: 5, 7.5: 5, 8.0: 5, 8.5: 5, 10.5: 4.5, 11.0: 4, 11.5: 3.5, 12.0: 3}[radius]


@given(seeds)
def test_each_position_is_new_in_one_thing(seed: int) -> None:
    rng = np.random.default_rng(seed)

    first, second, along, across = _offsets(sample_near(rng))
    usual = _reach(first.radius) + _reach(second.radius)
    assert 16 <= along[1] - along[0] < 32 - usual  # new
    assert abs(sum(along)) / 2 <= 5 and max(abs(across)) <= 5

    first, second, along, across = _offsets(sample_diagonal(rng))
    for thing, place in ((first, along[0] + 16), (second, along[1] - 16)):
        assert abs(place) <= _reach(thing.radius)
    assert 12 <= abs(across[1] - across[0]) <= 28  # new
    assert abs(sum(across)) / 2 <= 5

    first, second, along, across = _offsets(sample_off_centre(rng))
    usual = _reach(first.radius) + _reach(second.radius)
    assert 32 - usual <= along[1] - along[0] <= 34
    assert 6 <= abs(sum(along)) / 2 <= 13  # new
    # One thing reaches over the middle line.
    assert along[0] + first.radius >= 2 or along[1] - second.radius <= -2
    for thing, place in ((first, across[0]), (second, across[1])):
        assert abs(place) <= _reach(thing.radius)


def test_positions_use_all_directions_and_sizes() -> None:
    rng = np.random.default_rng(0)
    for sample in (sample_near, sample_diagonal, sample_off_centre):
        seen, sizes = set(), set()
        for _ in range(300):
            first, second, along, across = _offsets(sample(rng))
            seen.add((first.x < second.x - 15, sum(along) > 0, across[1] > across[0]))
            sizes.add((first.size, second.size))
        assert len(seen) == 8
        assert len(sizes) == (3 if sample is sample_near else 4)


_SIMPLE = "(?P<place>left of|right of|above|below)"


@pytest.mark.parametrize(
    ("category", "pattern", "places"),
    [
        ("left_of", "a _ (?P<place>left|right) of a _", 2),
        ("to_the_left_of", "a _ to the (?P<place>left|right) of a _", 2),
        ("on_the_left_of", "a _ on the (?P<place>left|right) of a _", 2),
        ("above", "a _ (?P<place>above|below) a _", 2),
        ("over", "a _ (?P<place>over|under) a _", 2),
        ("beneath", "a _ (?P<place>above|over|beneath) a _", 3),
        ("is", f"a _ is {_SIMPLE} a _", 4),
        ("there_is", f"there is a _ {_SIMPLE} a _", 4),
        ("the_is", f"the _ is {_SIMPLE} the _", 4),
        ("near", f"a _ {_SIMPLE} a _", 4),
        ("diagonal", f"a _ {_SIMPLE} a _", 4),
        ("off_centre", f"a _ {_SIMPLE} a _", 4),
    ],
)
def test_categories_of_relations_hold_what_they_say(
    category: str, pattern: str, places: int
) -> None:
    thing = f"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
    form = re.compile(pattern.replace("_", thing))
    exchanged, seen = 0, set()
    rows = [row for row in shapes.relations("test").rows if row.category == category]
    assert len(rows) == 300
    for row in rows:
        found = [form.fullmatch(c) for c in (row.positive1, row.positive2, row.negative)]
        one, two, false = (match["place"] for match in found if match)
        seen.add((one, two))
        assert ("beneath" in (one, two)) == (category == "beneath")
        exchanged += one == false
    # Each word comes first and second; beneath goes with two.
    assert len({one for one, _ in seen}) == len({two for _, two in seen}) == places
    assert len(seen) == (4 if category == "beneath" else places)
    assert 110 < exchanged < 190


def test_relations_apart_are_a_function_of_their_arguments() -> None:
    rows = shapes.relations("test", 5).rows
    assert rows == shapes.relations("test", 5).rows
    others = (("test", 1), ("validation", 0))
    assert all(rows != shapes.relations(split, 5, seed=seed).rows for split, seed in others)
    # A category has a stream of its own: its first rows do not depend on how many there are.
    assert rows[:5] == shapes.relations("test", 9).rows[:5]
    first, again = shapes.relations("test", 9).rows[9:14], rows[5:10]
    assert [r.positive1 for r in first] == [r.positive1 for r in again]
