"""No true caption of a composite is false and no false one true, judged by a reader of its own.

The reader knows nothing of how captions are made: it parses the words and looks at the canvas. Few
colours and nouns are drawn from, so that most composites share some, and many show a thing twice.
Images have one thing or two; a first sentence may leave its colour out, and the others tell more.
"""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clic.captions.composites import TokenBudget
from clic.config.train_settings import CaptionsConfig
from clic.data.batches.captioner import Captioner
from clic.images import cells
from clic.shapes import tag
from clic.types import Sample

IMAGE = np.zeros((4, 4, 3), dtype=np.uint8)
COLOURS, NOUNS = ("red", "blue", "green"), ("circle", "square", "star")
HORIZONTAL = {"left": -1, "right": 1}
VERTICAL = {"above": -1, "over": -1, "below": 1, "under": 1, "beneath": 1}
SENTENCE = re.compile(
    r"a (?:(?P<colour1>red|blue|green) )?(?P<noun1>\w+)"
    r"(?: (?P<phrase>(?:to the |on the )?(?:left|right) of|above|over|below|under|beneath)"
    r" a (?:(?P<colour2>red|blue|green) )?(?P<noun2>\w+))?"
)
Thing = tuple[str, str]
Place = tuple[int, int]
Canvas = list[tuple[Thing, Place]]


def places_of(colour: str | None, noun: str, canvas: Canvas) -> list[Place]:
    """Return where there are things that may be called so."""
    return [place for thing, place in canvas if thing == (colour or thing[0], noun)]


def is_true(sentence: str, canvas: Canvas, askew: bool) -> bool:
    """Return whether a sentence holds of some things of a canvas.

    Args:
        sentence: Without its period.
        canvas: Each thing with the top and left of its cell.
        askew: Whether what lies neither in the row nor in the column may be told so too.
    """
    match = SENTENCE.fullmatch(sentence)
    assert match, f"not understood: {sentence!r}"
    found = match.groupdict()
    first = places_of(found["colour1"], found["noun1"], canvas)
    if found["phrase"] is None:
        return bool(first)
    second = places_of(found["colour2"], found["noun2"], canvas)
    words = found["phrase"].split()
    axis = 1 if set(words) & set(HORIZONTAL) else 0
    sign = next((HORIZONTAL | VERTICAL)[word] for word in words if word in HORIZONTAL | VERTICAL)
    return any(
        sign * (one[axis] - two[axis]) > 0 and (askew or one[1 - axis] == two[1 - axis])
        for one in first
        for two in second
    )


def holds(caption: str, canvas: Canvas, askew: bool) -> bool:
    return all(is_true(sentence, canvas, askew) for sentence in caption.rstrip(".").split(". "))


things = st.tuples(st.sampled_from(COLOURS), st.sampled_from(NOUNS))
shown_images = st.tuples(st.lists(things, min_size=1, max_size=2), st.booleans())


@settings(max_examples=300)
@given(
    st.lists(shown_images, min_size=4, max_size=4),
    st.sampled_from(["pair", "grid4"]),
    st.sampled_from(["landscape", "portrait"]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from(["cross_swap", "none"]),
    st.sets(st.sampled_from(["left of", "on the right of", "over", "beneath"])),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_true_captions_are_true_and_false_ones_false(
    shown: list[tuple[list[Thing], bool]],
    layout: str,
    orientation: str,
    share: float,
    swap: str,
    held_out: set[str],
    tight: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    places = [cell[:2] for cell in cells(layout, orientation, 64)]  # type: ignore[arg-type]
    places = [places[i] for i in rng.permutation(len(places))]
    shown = shown[: len(places)]
    canvas = [
        (thing, place) for (found, _), place in zip(shown, places, strict=True) for thing in found
    ]
    samples = [sample(found, plain) for found, plain in shown]
    config = CaptionsConfig(
        tagger="stored",
        composite_positives=3,
        composite_negative=swap,
        layout_share=share,
        layout_held_out=sorted(held_out),
    )
    room = TokenBudget(lambda text: len(text.split()) + 2, 12) if tight else None
    row = Captioner(config, room).make("composite", samples, rng, places)
    assert len(row.positives) == 3
    for caption in row.positives:
        assert holds(caption, canvas, askew=False), (caption, canvas)
    assert len(row.negatives) == (swap != "none") + (share > 0)
    for negative in row.negatives:
        assert negative is None or not holds(negative.text, canvas, askew=True), (negative, canvas)
    told = bool(PHRASE.search(row.positives[0]))
    assert told == (share > 0) or share == 0.5
    assert not any(f" {phrase} " in row.positives[0] for phrase in held_out - {"left of"})
    # One thing an image, its colour told, none twice: nothing is in doubt.
    things_shown = [thing for thing, _ in canvas]
    clear = len(things_shown) == len(set(things_shown)) == len(places)
    if told and clear and not any(plain for _, plain in shown):
        assert row.negatives[-1] is not None


PHRASE = re.compile(r" (left of|right of|above|over|below|under|beneath) ")


def sample(found: list[Thing], plain: bool) -> Sample:
    """Return an image of one thing or two; the first sentence names one, maybe without colour."""
    named = [f"a {colour} {noun}" for colour, noun in found]
    sentences = (f"a {found[0][1]}" if plain else named[0], *named)
    return Sample(named[0], IMAGE, sentences, tuple(map(tag, sentences)))
