"""Every phrase against the layout it tells, and what makes it false."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clic.captions.composite_negatives import layout_negative, word_swap
from clic.captions.composites import (
    Composite,
    Part,
    Place,
    Sentence,
    Statement,
    TokenBudget,
    join_parts,
    layout_composite,
    layout_statements,
    may_hold,
    relation,
    remaining_phrases,
    reworded,
    sentence_composite,
    shortest_first,
)
from clic.errors import ConfigError
from clic.images import cells
from clic.shapes import tag
from clic.types import INVERSE, RELATION_PHRASES, HardNegative

CIRCLE, SQUARE, STAR, BOW = "a red circle", "a blue square", "a green star", "a pink bow"
BESIDE: list[Place] = [(0, 0), (0, 32)]
STACKED: list[Place] = [(0, 0), (32, 0)]
GRID: list[Place] = [(0, 0), (0, 32), (32, 0), (32, 32)]
# Written out anew: the test reads captions by this table, and not by the module's.
MEANING = {
    "left of": "left",
    "to the left of": "left",
    "on the left of": "left",
    "right of": "right",
    "to the right of": "right",
    "on the right of": "right",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "beneath": "below",
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def each(*captions: str) -> list[list[str]]:
    """Return captions as the sentences of an image each."""
    return [[caption] for caption in captions]


def composite(captions: Sequence[str], places: Sequence[Place], parts: Sequence[Part]) -> Composite:
    return Composite(tuple((caption,) for caption in captions), tuple(places), tuple(parts))


def changed(text: str, negative: HardNegative) -> str:
    """Return the text with the negative's edits made in it."""
    for _, (start, end), old, new in sorted(negative.edits, reverse=True, key=lambda e: e.span):
        assert text[start:end] == old
        text = text[:start] + new + text[end:]
    return text


# --- the phrases ---------------------------------------------------------------------------------


def test_every_phrase_means_what_its_list_says() -> None:
    assert {p: which for which, said in RELATION_PHRASES.items() for p in said} == MEANING


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0), (0, 32), "left"),
        ((0, 32), (0, 0), "right"),
        ((0, 0), (32, 0), "above"),
        ((32, 0), (0, 0), "below"),
        ((0, 0), (32, 32), None),
        ((32, 0), (0, 32), None),
        ((0, 0), (0, 0), None),
    ],
)
def test_relation_of_two_places(first: Place, second: Place, expected: str | None) -> None:
    assert relation(first, second) == expected


def test_what_is_askew_may_lie_on_either_axis() -> None:
    upper_left, lower_right = GRID[0], GRID[3]
    assert may_hold(upper_left, "left", lower_right) and may_hold(upper_left, "above", lower_right)
    assert not may_hold(upper_left, "right", lower_right)
    assert not may_hold(GRID[0], "above", GRID[1]) and not may_hold(GRID[0], "below", GRID[1])


@pytest.mark.parametrize("layout", ["pair", "grid4"])
@pytest.mark.parametrize("orientation", ["landscape", "portrait"])
def test_statements_tell_where_the_cells_of_a_layout_lie(layout: str, orientation: str) -> None:
    places = [cell[:2] for cell in cells(layout, orientation, 64)]  # type: ignore[arg-type]
    seen = set()
    for seed in range(200):
        order = rng(seed).permutation(len(places))
        own = [places[i] for i in order]
        statements = layout_statements(own, RELATION_PHRASES, rng(seed))
        assert len({i for s in statements for i in (s.first, s.second)}) == len(places)
        for told in statements:
            assert MEANING[told.phrase] == relation(own[told.first], own[told.second])
            assert MEANING[told.inverse_phrase] == relation(own[told.second], own[told.first])
            seen.add(told.phrase)
    beside = {p for p, which in MEANING.items() if which in ("left", "right")}
    stacked = set(MEANING) - beside
    expected = {"landscape": stacked, "portrait": beside}[orientation]
    # A stacked pair is never left of anything; of a grid both rows and columns are told.
    assert seen == (set(MEANING) if layout == "grid4" else expected)


def test_the_inverse_of_a_phrase_is_of_its_form() -> None:
    pairs = set()
    for seed in range(200):
        for places in (BESIDE, STACKED):
            (told,) = layout_statements(
                places[:: -1 if seed % 2 else 1], RELATION_PHRASES, rng(seed)
            )
            pairs.add((told.phrase, told.inverse_phrase))
    assert pairs == {
        ("left of", "right of"), ("to the left of", "to the right of"),
        ("on the left of", "on the right of"), ("right of", "left of"),
        ("to the right of", "to the left of"), ("on the right of", "on the left of"),
        ("above", "below"), ("over", "under"), ("below", "above"), ("under", "over"),
        ("beneath", "over"),
    }  # fmt: skip


def test_phrases_that_are_held_out_are_never_used() -> None:
    left = remaining_phrases(["on the left of", "on the right of", "beneath"])
    used = set()
    for seed in range(100):
        for places in (BESIDE, STACKED):
            (told,) = layout_statements(places[:: -1 if seed % 2 else 1], left, rng(seed))
            used |= {told.phrase, told.inverse_phrase}
    assert used == set(MEANING) - {"on the left of", "on the right of", "beneath"}


@pytest.mark.parametrize(
    ("held_out", "phrase", "inverse"),
    [
        ("left of", "to the left of", "to the right of"),
        ("on the left of", "right of", "left of"),
        ("right of", "left of", "on the right of"),
        ("above", "over", "under"),
        ("below", "under", "over"),
        ("under", "over", "beneath"),
    ],
)
def test_the_inverse_stays_that_of_the_phrase_whatever_is_held_out(
    held_out: str, phrase: str, inverse: str
) -> None:
    left, pairs = remaining_phrases([held_out]), set()
    for seed in range(100):
        for places in (BESIDE, STACKED):
            (told,) = layout_statements(places[:: -1 if seed % 2 else 1], left, rng(seed))
            pairs.add((told.phrase, told.inverse_phrase))
    assert (phrase, inverse) in pairs
    assert len({one for one, _ in pairs}) == len(pairs)  # each phrase has one inverse


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (["on the lift of"], r"captions\.layout_held_out='on the lift of'.*on the left of"),
        (["above", "over"], r"captions\.layout_held_out=.*leaves no way to say 'above'.*above"),
    ],
)
def test_what_cannot_be_held_out_is_told(held_out: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        remaining_phrases(held_out)


# --- true captions -------------------------------------------------------------------------------


def test_p1_and_p2_are_the_two_ways_to_tell_one_fact() -> None:
    told = Statement(0, "left", 1, "left of", "right of")
    pair = composite((CIRCLE, SQUARE), BESIDE, (told,))
    assert pair.positives() == (
        "a red circle left of a blue square.",
        "a blue square right of a red circle.",
    )
    assert told.inverse().inverse() == told


def test_a_grid_is_told_by_rows_or_by_columns() -> None:
    seen = set()
    for seed in range(40):
        p1, p2 = layout_composite(
            each(CIRCLE, SQUARE, STAR, BOW), GRID, RELATION_PHRASES, rng(seed)
        ).positives()
        assert sorted(word for word in p1.split() if word == "a") == ["a"] * 4
        assert len(p1.split(". ")) == len(p2.split(". ")) == 2
        seen.add("left" in p1 or "right" in p1)
    assert seen == {True, False}


def test_a_sentence_goes_on_without_its_mark_and_its_capital() -> None:
    told = Statement(0, "above", 1, "above", "below")
    text = join_parts([told, Sentence(0)], ["A dog runs.", "The cat sleeps!"])
    assert text == "A dog runs above the cat sleeps. A dog runs."
    assert join_parts([told], ["Paris at night", "London."]) == "Paris at night above London."


def test_a_period_stays_or_goes_in_all_captions_of_a_composite() -> None:
    for period in (True, False):
        grid = layout_composite(
            each(CIRCLE, SQUARE, STAR, BOW), GRID, RELATION_PHRASES, rng(3), period
        )
        false = (
            layout_negative(grid, rng()),
            word_swap(grid, [tag(c) for (c,) in grid.sentences], rng()),
        )
        assert false[0] is not None and false[1] is not None
        for text in (*grid.positives(), false[0].text, false[1].text):
            assert text.count(".") == 1 + period and text.endswith(".") == period
        assert changed(grid.positives()[0], false[0]) == false[0].text


# --- false captions ------------------------------------------------------------------------------


def false_captions(shown: Composite) -> set[str]:
    found = (layout_negative(shown, rng(seed)) for seed in range(40))
    return {made.text for made in found if made is not None}


def test_a_layout_negative_inverts_the_phrase_or_exchanges_the_images() -> None:
    told = Statement(0, "left", 1, "to the left of", "to the right of")
    pair = composite((CIRCLE, SQUARE), BESIDE, (told,))
    assert false_captions(pair) == {
        "a red circle to the right of a blue square.",
        "a blue square to the left of a red circle.",
    }
    for seed in range(10):
        made = layout_negative(pair, rng(seed))
        assert made is not None and made.kind == "layout"
        assert changed(pair.positives()[0], made) == made.text


def test_a_layout_negative_of_a_grid_changes_one_statement() -> None:
    for seed in range(40):
        grid = layout_composite(each(CIRCLE, SQUARE, STAR, BOW), GRID, RELATION_PHRASES, rng(seed))
        made = layout_negative(grid, rng(seed))
        assert made is not None
        true, false = (text.split(". ") for text in (grid.positives()[0], made.text))
        assert sum(a != b for a, b in zip(true, false, strict=True)) == 1
        assert changed(grid.positives()[0], made) == made.text


def test_no_layout_is_contradicted_where_none_is_told() -> None:
    assert layout_negative(sentence_composite(each(CIRCLE, SQUARE), BESIDE), rng()) is None


@pytest.mark.parametrize(
    "captions",
    [
        (CIRCLE, CIRCLE),
        (CIRCLE, "The red circle!"),
        ("a dog", "a brown dog"),
        ("a brown dog.", "a dog"),
    ],
)
def test_captions_that_may_say_the_same_have_no_layout_negative(captions: Sequence[str]) -> None:
    for seed in range(10):
        assert (
            layout_negative(
                layout_composite(each(*captions), BESIDE, RELATION_PHRASES, rng(seed)), rng(seed)
            )
            is None
        )


def test_what_another_sentence_of_an_image_says_is_no_negative() -> None:
    told = (Statement(0, "left", 1, "left of", "right of"),)
    both = (("a dog", "a cat and a dog"), ("a cat", "a dog and a cat"))
    assert layout_negative(Composite(both, tuple(BESIDE), told), rng()) is None
    things = (("a red circle", "a blue circle"), ("a blue square", "a red square"))
    tokens = [tag("a red circle"), tag("a blue square")]

    def swapped(*parts: Part) -> set[str]:
        shown = Composite(things, tuple(BESIDE), parts)
        made = (word_swap(shown, tokens, rng(seed)) for seed in range(40))
        return {negative.text for negative in made if negative}

    # A blue circle and a red square are there, and no red square left of a blue circle.
    assert swapped(Sentence(0), Sentence(1)) == set()
    assert swapped(*told) == {
        "a red square left of a blue circle.",
        "a blue circle right of a red square.",
    }


def test_a_grid_with_two_of_a_kind_contradicts_only_what_is_surely_false() -> None:
    """Circle and square in the upper row, square and circle in the lower: rows tell nothing."""
    rows = (Statement(0, "left", 1, "left of", "right of"),)
    assert false_captions(composite((CIRCLE, SQUARE, SQUARE, CIRCLE), GRID, rows)) == set()
    same = composite((CIRCLE, SQUARE, CIRCLE, SQUARE), GRID, rows)
    assert len(false_captions(same)) == 2


def test_a_word_swap_keeps_the_layout() -> None:
    told = Statement(0, "left", 1, "left of", "right of")
    pair = composite((CIRCLE, SQUARE), BESIDE, (told,))
    tokens = [tag(CIRCLE), tag(SQUARE)]
    found = {made.text for s in range(60) if (made := word_swap(pair, tokens, rng(s)))}
    assert found == {
        "a blue circle left of a red square.",
        "a red square right of a blue circle.",
        "a red square left of a blue circle.",
        "a blue circle right of a red square.",
    }


def test_a_word_swap_of_a_grid_names_the_images_it_changed() -> None:
    captions = (CIRCLE, SQUARE, STAR, BOW)
    grid = sentence_composite(each(*captions), GRID)
    pairs = set()
    for seed in range(60):
        made = word_swap(grid, [tag(c) for c in captions], rng(seed))
        assert made is not None
        images = {edit.caption for edit in made.edits}
        assert len(images) == 2
        for image, (start, end), old, _ in made.edits:
            assert captions[image][start:end] == old
        pairs.add(tuple(sorted(images)))
    assert len(pairs) == 6


def test_a_swap_that_the_other_images_make_true_is_no_negative() -> None:
    """Swapping colours gives a blue circle and a red square, and both are there."""
    captions = (CIRCLE, SQUARE, "a blue circle", "a red square")
    grid = sentence_composite(each(*captions), GRID)
    tokens = [tag(caption) for caption in captions]
    for seed in range(60):
        made = word_swap(grid, tokens, rng(seed))
        assert made is None or set(made.text.rstrip(".").split(". ")) - set(captions)


# --- room ----------------------------------------------------------------------------------------

WORDS = TokenBudget(lambda text: len(text.split()) + 2, 12)


def test_the_longest_sentences_are_left_out_first() -> None:
    texts = ["one two three four five.", "one two.", "one two three four.", "one two three."]
    assert shortest_first(texts, WORDS) == [1, 2, 3]
    assert shortest_first(texts, None) == [0, 1, 2, 3]
    assert shortest_first(["one " * 40], WORDS) == [0]
    assert shortest_first(["one " * 40, "one " * 30], WORDS) == [1]


def test_a_grid_is_told_as_far_as_there_is_room() -> None:
    long = layout_composite(each(CIRCLE, SQUARE, STAR, BOW), GRID, RELATION_PHRASES, rng()).within(
        WORDS
    )
    assert len(long.parts) == 1 and len(long.images()) == 2
    assert all(WORDS.fits(text) for text in long.positives())
    made = layout_negative(long, rng())
    assert made is not None and WORDS.fits(made.text)


def test_sentences_are_joined_where_no_statement_has_room() -> None:
    captions = [f"a {colour} circle that is {colour}" for colour in ("red", "blue", "pink", "cyan")]
    told = layout_composite(each(*captions), GRID, RELATION_PHRASES, rng())
    joined = told.within(WORDS)
    assert not WORDS.fits(told.parts[0].text(captions))
    assert joined.parts == (Sentence(0),) and WORDS.fits(*joined.positives())
    assert told.within(None) is told


def test_the_inverse_of_every_relation_inverts_again() -> None:
    assert all(INVERSE[INVERSE[which]] == which for which in RELATION_PHRASES)
    parts = (Sentence(0), Statement(1, "above", 2, "over", "under"))
    assert reworded(reworded(parts)) == parts
