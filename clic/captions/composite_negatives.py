"""False captions of a composite: two captions exchange a word, or the layout is stated wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, filterfalse
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from clic.captions.composites import Composite, Statement, join_parts, reworded
from clic.captions.lexicon import ARTICLES
from clic.captions.text import (
    Change,
    apply_edits,
    fold_tokens,
    join,
    make_edits,
    normalized,
    text_without_capital,
    unlike,
)
from clic.types import Edit, HardNegative, Token

EXCLUDED_TAGS = frozenset(["AUX", "DET", "INTJ", "PART", "PUNCT", "SYM", "X", "SCONJ", "CCONJ"])
_TEXT, _TAG = itemgetter(0), itemgetter(3)  # of a token; faster than access by name

Words = list[str]


class _Caption(NamedTuple):
    """A caption, with the values that drawing and checking share, computed once."""

    text: str
    tokens: Sequence[Token]
    words: Words  # of each token, in lower case
    tagged: dict[tuple[str, str], None]  # distinct (tag, word) pairs in their order


def cross_swap(
    captions: Sequence[str],
    tokens: Sequence[tuple[Token, ...]],
    rng: np.random.Generator,
    repair: bool = True,
    combine: Callable[[list[str], bool], str | None] | None = None,
) -> HardNegative | None:
    """Swap one word of t1 with one of t2 and join the two (CLIC, arXiv 2505.24424, section 3).

    The two words have the same universal POS, outside `EXCLUDED_TAGS`; a word that occurs in
    both captions under that POS never swaps. Without such a pair, any two words may swap that
    each occur in only one of the captions. Every occurrence is replaced as a whole word, and the
    captions are joined in random order. Each POS is equally likely, then each pair of words.

    Args:
        captions: t1 and t2.
        tokens: Their tokens.
        rng: Draws the words and the order.
        repair: Adapt "a" and "an" to the new words, and draw again if the result is true (the
            captions are merely exchanged). The published code does neither.
        combine: Joins the changed captions, in their own order or the opposite one; None if
            the result may be true. By default they are joined as sentences.

    Returns:
        The false joined caption, with each edit's span in its own original caption; None if no
        two words give one.
    """
    one, two = _analyse(captions[0], tokens[0]), _analyse(captions[1], tokens[1])
    left, right = _own_words(one, two), _own_words(two, one)
    groups = [(left[tag], right[tag]) for tag in left if tag in right]
    if not groups:
        groups = [(_any_words(one, two), _any_words(two, one))]
    ordered = rng.random() < 0.5
    for first, second in _drawn_pairs(groups, rng):
        if repair and _merely_exchanged(one, two, first, second):
            continue
        edits = (
            _replace_all(one, first, two, second, 0, repair),
            _replace_all(two, second, one, first, 1, repair),
        )
        texts = [apply_edits(captions[0], edits[0]), apply_edits(captions[1], edits[1])]
        joined = (combine or _join_ordered)(texts, ordered)
        if joined is not None:
            return HardNegative(joined, "cross_swap", edits[0] + edits[1])
    return None


def _join_ordered(texts: list[str], ordered: bool) -> str:
    return join(texts if ordered else texts[::-1])


def _drawn_pairs(
    groups: Sequence[tuple[Words, Words]], rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Yield pairs of a left and a right word: each group is equally likely, then each pair.

    After the first pair, which nearly always yields a false caption, every pair is yielded once.
    """
    remaining = [(group, set[int]()) for group in groups if group[0] and group[1]]
    first = True
    while remaining:
        number = _random_index(len(remaining), rng)
        (left, right), seen = remaining[number]
        count = len(left) * len(right)
        i = _random_index(count, rng)
        if not first:  # a first pair that fails may simply be drawn again
            while i in seen:
                i = (i + 1) % count
            seen.add(i)
            if len(seen) == count:
                del remaining[number]
        first = False
        row, column = divmod(i, len(right))
        yield left[row], right[column]


def _random_index(count: int, rng: np.random.Generator) -> int:
    """Return a number from 0 to `count` - 1, each equally likely.

    This takes a third of the time of ``rng.integers``; the bias is below `count` / 2**53.
    """
    return int(rng.random() * count)


def _analyse(text: str, tokens: Sequence[Token]) -> _Caption:
    tokens = fold_tokens(tokens)
    words = list(map(str.lower, map(_TEXT, tokens)))
    return _Caption(text, tokens, words, dict.fromkeys(zip(map(_TAG, tokens), words, strict=True)))


def _own_words(caption: _Caption, other: _Caption) -> dict[str, Words]:
    """Return, by tag, the words that may swap and that `other` lacks under the same tag."""
    found: dict[str, Words] = {}
    for tag, word in filterfalse(other.tagged.__contains__, caption.tagged):
        if tag in found:
            found[tag].append(word)
        elif tag not in EXCLUDED_TAGS:
            found[tag] = [word]
    return found


def _any_words(caption: _Caption, other: _Caption) -> Words:
    """Return the words that only `caption` has, whatever their tag.

    Words of excluded tags are returned only if there are no others.
    """
    words = [word for tag, word in caption.tagged if tag not in EXCLUDED_TAGS]
    if not words:
        words = [
            word
            for i, word in enumerate(caption.words)
            if caption.tokens[i].pos not in ("PUNCT", "SYM")
            and word[:1] != "'"  # neither half of "isn't" or "it's" is a word
            and "n't" not in caption.words[i : i + 2]
        ]
    present = set(other.words)
    return [word for word in dict.fromkeys(words) if word not in present]


def _merely_exchanged(one: _Caption, two: _Caption, first: str, second: str) -> bool:
    """Return whether swapping two words leaves the captions unchanged or exchanges them.

    Articles and punctuation make no difference.
    """
    if first not in ARTICLES and second not in ARTICLES:
        # A third word that distinguishes the captions makes the longer comparison needless.
        theirs = set(two.words)
        for word in one.words:
            if word not in theirs and word != first and word.isalnum() and word not in ARTICLES:
                return False
    original = (_content(one), _content(two))
    swapped = (_content(one, first, second), _content(two, second, first))
    return swapped in (original, original[::-1])


def _content(caption: _Caption, old: str = "", new: str = "") -> Words:
    """Return the words after one is replaced, without articles and punctuation."""
    words = [
        new if word == old else word
        for word, token in zip(caption.words, caption.tokens, strict=True)
        if token.pos != "PUNCT"
    ]
    return [word for word in words if word not in ARTICLES]


def _replace_all(
    caption: _Caption, old: str, other: _Caption, new: str, index: int, articles: bool
) -> tuple[Edit, ...]:
    """Return the edits that put a word of the other caption in place of one of this caption."""
    source = other.words.index(new)
    text = text_without_capital(other.text, other.tokens, source, source + 1)
    changes = [Change(i, i + 1, text) for i, word in enumerate(caption.words) if word == old]
    return make_edits(caption.text, caption.tokens, changes, index, articles)


def word_swap(
    composite: Composite,
    tokens: Sequence[tuple[Token, ...]],
    rng: np.random.Generator,
    true: Iterable[str] = (),
) -> HardNegative | None:
    """Swap a word between the captions of two images, in the wording of p1 or of p2.

    For two images whose sentences are joined this is CLIC's hard negative (`cross_swap`); a stated
    layout stays as it is. A swap that merely exchanges two captions ("a red circle" and "a blue
    circle") is not used: `layout_negative` makes those if they are false.

    Args:
        composite: One of at least two images.
        tokens: The tokens of each image's first sentence.
        rng: Draws the images, the words and the wording.
        true: The composite's true joined captions. None of them is returned, whatever its case.

    Returns:
        The false caption, with each edit's span in its own image's caption; None if no two
        words give one that is certainly false.
    """
    return unlike(set(map(normalized, true)), partial(_word_swap, composite, tokens, rng))


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
            combine=partial(_false_caption, composite, pair),
        )
        if negative is not None:
            edits = tuple(edit._replace(caption=pair[edit.caption]) for edit in negative.edits)
            return HardNegative(negative.text, negative.kind, edits)
    return None


def _false_caption(
    composite: Composite, pair: Sequence[int], texts: Sequence[str], ordered: bool
) -> str | None:
    """Return p1 or p2 with changed captions of two images, or None if that may be true."""
    captions = list(composite.captions)
    for image, text in zip(pair, texts, strict=True):
        captions[image] = text
    parts = composite.parts if ordered else reworded(composite.parts)
    return None if composite.may_be_true(parts, captions) else composite.text(parts, captions)


def layout_negative(composite: Composite, rng: np.random.Generator) -> HardNegative | None:
    """State one relation of a composite wrongly: with the inverse phrase, or the images exchanged.

    Args:
        composite: One of at least two images.
        rng: Draws the statement and how it is made false.

    Returns:
        The false caption, with its edits of p1 (caption 0); None if no relation is stated or the
        opposite may be true (as for "a dog" and "a brown dog").
    """
    parts, captions = composite.parts, composite.captions
    statements = [number for number, part in enumerate(parts) if isinstance(part, Statement)]
    for number in rng.permutation(statements):
        true = parts[number]
        assert isinstance(true, Statement)
        false = true.contradictions()[int(rng.integers(2))]
        changed = (*parts[:number], false, *parts[number + 1 :])
        if composite.may_be_true(changed, captions):
            continue
        start = len(join_parts(parts[:number], captions)) + bool(number)
        edits = []
        for old, new in zip(true.segments(captions), false.segments(captions), strict=True):
            if old != new:
                edits.append(Edit(0, (start, start + len(old)), old, new))
            start += len(old) + 1
        return HardNegative(composite.text(changed, captions), "layout", tuple(edits))
    return None
