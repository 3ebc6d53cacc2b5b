"""True captions of a composite image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clic.captions.sentences import join
from clic.errors import DataError


def composite_positives(
    captions: Sequence[Sequence[str]], count: int, rng: np.random.Generator
) -> list[str]:
    """Return true captions of one composite (CLIC, arXiv 2505.24424, section 3).

    With t_i the first sentence of image i: p1 = "t1. t2. ... tk.", p2 = "tk. ... t2. t1.", and
    each further one joins one other sentence of each image, in random order.

    Args:
        captions: For each of the k images its sentences, at least one.
        count: Number of captions P wanted, at least 1.
        rng: Draws the other sentences and their order.

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
    first = [sentences[0] for sentences in captions]
    positives = [join(first), join(first[::-1])][:count]
    further = count - len(positives)
    if further:
        drawn = [_draw(sentences[1:] or sentences, further, rng) for sentences in captions]
        for row in zip(*drawn, strict=True):
            positives.append(join([row[i] for i in rng.permutation(len(row))]))
    return positives


def _draw(sentences: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` sentences, none twice before all were drawn once."""
    drawn: list[str] = []
    while len(drawn) < count:
        order = rng.permutation(len(sentences))
        drawn += [sentences[i] for i in order[: count - len(drawn)]]
    return drawn
