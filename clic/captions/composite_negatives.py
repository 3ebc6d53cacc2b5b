"""False captions of a composite: a word in the wrong place, or an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from clic.captions.composites import Composite
from clic.captions.cross_swap import cross_swap
from clic.captions.layout import Statement, retold, tell
from clic.captions.negatives import bare, outside
from clic.types import Edit, HardNegative, Token


def word_swap(
    composite: Composite,
    tokens: Sequence[tuple[Token, ...]],
    rng: np.random.Generator,
    true: Iterable[str] = (),
) -> HardNegative | None:
    """Let two images' captions exchange a word, in the wording of p1 or of p2.

    For two images whose sentences are joined this is CLIC's hard negative (`cross_swap`); where the
    layout is told, it stays as it is. A swap that merely exchanges two captions ("a red circle" and
    "a blue circle") is none: where that is false, `layout_negative` says it.

    Args:
        composite: What is said, of at least two images.
        tokens: Of each image's first sentence.
        rng: Draws the images, the words and the wording.
        true: The composite's true joined captions; none of them is returned, whatever its case.

    Returns:
        The false caption, each edit's span in its own image's caption; None where no two words
        give one that is surely false.
    """
    return outside(partial(_word_swap, composite, tokens, rng), set(map(bare, true)))


def _word_swap(
    composite: Composite, tokens: Sequence[tuple[Token, ...]], rng: np.random.Generator
) -> HardNegative | None:
    captions = composite.captions
    pairs = list(combinations(composite.images(), 2))
    if len(pairs) > 1:
        pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    for pair in pairs:
        negative = cross_swap(
            [captions[image] for image in pair],
            [tokens[image] for image in pair],
            rng,
            put_together=partial(_told, composite, pair),
        )
        if negative is not None:
            edits = tuple(edit._replace(caption=pair[edit.caption]) for edit in negative.edits)
            return HardNegative(negative.text, negative.kind, edits)
    return None


def _told(
    composite: Composite, pair: Sequence[int], texts: Sequence[str], ordered: bool
) -> str | None:
    """Return p1 or p2 with other captions of two images, None where that may be true."""
    captions = list(composite.captions)
    for image, text in zip(pair, texts, strict=True):
        captions[image] = text
    parts = composite.parts if ordered else retold(composite.parts)
    return None if composite.may_be_true(parts, captions) else composite.tell(parts, captions)


def layout_negative(composite: Composite, rng: np.random.Generator) -> HardNegative | None:
    """Tell one relation of a composite wrongly: by the inverse phrase, or the images exchanged.

    Args:
        composite: What is said.
        rng: Draws the statement and how it is made false.

    Returns:
        The false caption, with its edits of p1 (caption 0); None where no relation is told, or its
        opposite may be true (of "a dog" and "a brown dog").
    """
    parts = composite.parts
    told = [number for number, part in enumerate(parts) if isinstance(part, Statement)]
    for number in rng.permutation(told):
        true = parts[number]
        assert isinstance(true, Statement)
        false = true.contradictions()[int(rng.integers(2))]
        changed = (*parts[:number], false, *parts[number + 1 :])
        if not composite.may_be_true(changed, composite.captions):
            start = len(tell(parts[:number], composite.captions)) + bool(number)
            edits = _edits(true.segments(composite.captions), false, composite, start)
            return HardNegative(composite.tell(changed, composite.captions), "layout", edits)
    return None


def _edits(
    old: Sequence[str], false: Statement, composite: Composite, start: int
) -> tuple[Edit, ...]:
    """Return the segments that differ, the statement beginning at character `start` of p1."""
    edits = []
    for before, after in zip(old, false.segments(composite.captions), strict=True):
        if before != after:
            edits.append(Edit(0, (start, start + len(before)), before, after))
        start += len(before) + 1
    return tuple(edits)
