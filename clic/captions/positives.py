"""True captions of a composite image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clic.captions.composite import Composite, Room, shortest_first
from clic.captions.sentences import end_sentence, has_words, join


class Positives(NamedTuple):
    """The true captions of a composite.

    Attributes:
        texts: P captions.
        shortened: How many of them leave images out, for want of room.
    """

    texts: tuple[str, ...]
    shortened: int = 0


def composite_positives(
    composite: Composite,
    count: int,
    rng: np.random.Generator,
    room: Room | None = None,
) -> Positives:
    """Return true captions of one composite (CLIC, arXiv 2505.24424, section 3).

    p1 and p2 tell its parts: with t_i the first sentence of image i, "t1. t2. ... tk." and "tk. ...
    t2. t1.", or where the images lie. Each further one joins one other sentence of each image, in
    random order.

    Args:
        composite: What is known of it.
        count: Number of captions P wanted, at least 1.
        rng: Draws the other sentences and their order.
        room: How long the further ones may be: the longest sentences are left out. None for any
            length.

    Returns:
        `count` texts. An image's other sentences are drawn without repetition until each was
        used; an image that has one sentence alone gives that one every time.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    texts = list(composite.positives()[:count])
    left_out = len(composite.images()) < len(composite.sentences)
    shortened = len(texts) * left_out
    further = count - len(texts)
    if further:
        others = (list(filter(has_words, sentences[1:])) for sentences in composite.sentences)
        drawn = [
            _draw(other or own[:1], further, rng)
            for other, own in zip(others, composite.sentences, strict=True)
        ]
        for row in zip(*drawn, strict=True):
            said = [end_sentence(row[i]) for i in rng.permutation(len(row))]
            kept = shortest_first(said, room)
            texts.append(join([said[i] for i in kept]))
            shortened += len(kept) < len(said)
    return Positives(tuple(texts), shortened)


def _draw(sentences: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` sentences, none twice before all were drawn once."""
    drawn: list[str] = []
    while len(drawn) < count:
        order = rng.permutation(len(sentences))
        drawn += [sentences[i] for i in order[: count - len(drawn)]]
    return drawn
