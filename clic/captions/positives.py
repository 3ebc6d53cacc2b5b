"""True captions of a composite image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clic.captions.composite import Composite, Room, plain, shortest_first
from clic.captions.sentences import end_sentence, join
from clic.errors import DataError


class Positives(NamedTuple):
    """The true captions of a composite.

    Attributes:
        texts: P captions.
        shortened: How many of them leave images out, for want of room.
    """

    texts: tuple[str, ...]
    shortened: int = 0


def composite_positives(
    captions: Sequence[Sequence[str]],
    count: int,
    rng: np.random.Generator,
    composite: Composite | None = None,
    room: Room | None = None,
) -> Positives:
    """Return true captions of one composite (CLIC, arXiv 2505.24424, section 3).

    With t_i the first sentence of image i: p1 = "t1. t2. ... tk.", p2 = "tk. ... t2. t1.", and
    each further one joins one other sentence of each image, in random order. Where the composite's
    parts tell its layout, p1 and p2 do.

    Args:
        captions: For each of the k images its sentences, at least one.
        count: Number of captions P wanted, at least 1.
        rng: Draws the other sentences and their order.
        composite: What p1 and p2 say, already within the room; None for the sentences above.
        room: How long a caption may be: its longest sentences are left out. None for any length.

    Returns:
        `count` texts. An image's other sentences are drawn without repetition until each was
        used; an image that has one sentence alone gives that one every time.

    Raises:
        DataError: An image has no sentence.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    for index, sentences in enumerate(captions):
        if not sentences:
            raise DataError(f"image {index} of a composite has no caption; drop it from the data")
    if composite is None:
        composite = plain([sentences[0] for sentences in captions]).within(room)
    texts = list(composite.positives()[:count])
    left_out = len(composite.images()) < len(captions)
    shortened = len(texts) * left_out
    further = count - len(texts)
    if further:
        drawn = [_draw(sentences[1:] or sentences, further, rng) for sentences in captions]
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
