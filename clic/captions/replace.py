"""CLoVe's hard negative: one word of a caption is replaced by one that excludes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clic.captions.draws import first_valid
from clic.captions.edits import Change, apply_edits, make_edits
from clic.captions.lexicon import Lexicon, default_lexicon
from clic.captions.swap import MAX_TOKENS
from clic.types import HardNegative, Token


def replace(
    caption: str,
    tokens: Sequence[Token],
    rng: np.random.Generator,
    lexicon: Lexicon | None = None,
) -> HardNegative | None:
    """Replace one word by a co-hyponym or an antonym (CLoVe; arXiv 2402.15021, section 3.2).

    The word is a noun, adjective, verb, number or preposition that the lexicon knows; longer
    entries ("to the left of") go before shorter ones. Each such word is equally likely, then
    each of its alternatives that the caption does not hold already.

    Args:
        caption: A true caption.
        tokens: Its tokens.
        rng: Draws the word and what replaces it.
        lexicon: Words that exclude each other, by default those that ship with the package.

    Returns:
        The false caption with its edits, or None where the lexicon knows none of its words.
    """
    tokens = tokens[:MAX_TOKENS]
    groups = list(_changes(caption, tokens, lexicon or default_lexicon()))

    def build(change: Change) -> HardNegative:
        edits = make_edits(caption, tokens, [change])
        return HardNegative(apply_edits(caption, edits), "replace", edits)

    return first_valid(groups, build, rng)


def _changes(caption: str, tokens: Sequence[Token], lexicon: Lexicon) -> Iterator[list[Change]]:
    """Yield the possible changes of each entry found, from left to right, longest entry first."""
    words = [token.text.lower() for token in tokens]
    present = set(words)
    first = 0
    while first < len(tokens):
        for last in range(min(first + lexicon.longest, len(tokens)), first, -1):
            if found := _alternatives(tokens, words, first, last, lexicon):
                new = [text for text in found if text not in present]
                yield [Change(first, last, text) for text in new]
                first = last
                break
        else:
            first += 1


def _alternatives(
    tokens: Sequence[Token], words: Sequence[str], first: int, last: int, lexicon: Lexicon
) -> tuple[str, ...]:
    """Return what may replace the tokens `first` to `last`, as one entry of the lexicon."""
    entry = " ".join(words[first:last])
    found = lexicon.alternatives(entry, tokens[last - 1].pos)
    if not found and last - first > 1:
        found = lexicon.alternatives(entry, tokens[first].pos)
    if found and last - first == 1 and tokens[first].pos == "NOUN" and first > 0:
        # The second half of a compound that the lexicon does not know ("fire truck") stays.
        return () if tokens[first - 1].pos == "NOUN" else found
    return found
