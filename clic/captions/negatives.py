"""Hard negatives: false captions close to a true one, by the name of their generator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from clic.captions.characters import fold, is_foreign
from clic.captions.cross_swap import cross_swap
from clic.captions.replace import replace
from clic.captions.sentences import end_sentence
from clic.captions.swap import swap
from clic.captions.tagging import make_tagger
from clic.errors import ConfigError, pick
from clic.seeding import generator
from clic.types import HardNegative, Token

__all__ = [
    "GENERATORS",
    "cross_swap",
    "distinct_negatives",
    "hard_negatives",
    "replace",
    "single_negative",
    "stored_negative",
    "swap",
]

Generator = Callable[[str, Sequence[Token], np.random.Generator], HardNegative | None]

# Generators of one caption; cross_swap, which takes two, is the business of composites.
GENERATORS: dict[str, Generator] = {"swap": swap, "replace": replace}

FOREIGN = "clic's taggers and word lists know English alone"

# So many draws in a row without a new text, and a kind counts as used up.
_PATIENCE = 32


def single_negative(
    caption: str,
    tokens: Sequence[Token],
    rng: np.random.Generator,
    weights: Mapping[str, float],
    true: Iterable[str] = (),
) -> HardNegative | None:
    """Make a false caption of one image by a generator that is drawn.

    Args:
        caption: A true caption.
        tokens: Its tokens.
        rng: Draws the generator, then whatever that draws.
        weights: Names of `GENERATORS`, each drawn in proportion to its weight, from 0 on. Where the
            drawn one yields nothing, another is drawn of those that are left.
        true: Other captions of the image; none of them is returned, whatever its case, spaces and
            final period.

    Returns:
        The false caption, or None where none of the generators yields one.
    """
    left = {kind: weight for kind, weight in weights.items() if weight > 0}
    known = set(map(bare, true))
    while left:
        kind = _drawn(left, rng) if len(left) > 1 else next(iter(left))
        make = pick(GENERATORS, kind, "captions.mixture")
        negative = outside(partial(make, caption, tokens, rng), known)
        if negative is not None:
            return negative
        del left[kind]
    return None


def stored_negative(
    texts: Iterable[str], rng: np.random.Generator, true: Iterable[str]
) -> HardNegative | None:
    """Draw one of the false captions that are stored with an image, as NegCLIP does.

    Args:
        texts: The false captions.
        rng: Draws one of them, each as likely as any other.
        true: The image's true captions; none of them is returned, whatever its case, spaces and
            final period.

    Returns:
        The false caption, without edits, or None where there is none.
    """
    known = {"", *map(bare, true)}
    left = [text for text in texts if bare(text) not in known]
    return HardNegative(left[int(rng.integers(len(left)))], "stored", ()) if left else None


def hard_negatives(
    caption: str, kinds: Sequence[str] = ("swap", "replace"), n: int = 4, seed: int = 0
) -> list[HardNegative]:
    """Return false captions close to a true one.

    Args:
        caption: A true caption.
        kinds: Names of `GENERATORS`, taken in turn.
        n: Number of negatives wanted.
        seed: Decides the draws; equal arguments give equal results in any process.

    Returns:
        At most `n` negatives with distinct texts; fewer where the caption does not give more. Their
        edits' spans are positions in `caption` as it was given, of which nothing else is changed.
        A warning says where there are none because the caption is not in Latin script.

    Raises:
        ConfigError: A kind is unknown, there is none, or `n` is below 1.
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1")
    if isinstance(kinds, str) or not kinds:
        raise ConfigError(f"kinds={kinds!r} must be a list of names such as ['swap', 'replace']")
    for kind in kinds:
        pick(GENERATORS, kind, "kinds")
    tokens = make_tagger("hanta")(caption)
    streams = {kind: generator(seed, f"hard_negatives/{kind}") for kind in kinds}
    found: list[HardNegative] = []
    known: set[str] = set()
    while streams and len(found) < n:
        for kind in list(streams):
            if len(found) == n:
                break
            make = partial(GENERATORS[kind], caption, tokens, streams[kind])
            negative = outside(make, known)
            if negative is None:
                del streams[kind]
            else:
                found.append(negative)
                known.add(bare(negative.text))
    if not found and is_foreign(caption):
        warnings.warn(
            f"no false captions: the caption is not in Latin script, and {FOREIGN}", stacklevel=2
        )
    return found


def distinct_negatives(make: Callable[[], HardNegative | None], n: int) -> list[HardNegative]:
    """Return at most `n` negatives of what `make` draws, no two of the same text."""
    found: list[HardNegative] = []
    known: set[str] = set()
    while len(found) < n and (negative := outside(make, known)) is not None:
        found.append(negative)
        known.add(bare(negative.text))
    return found


def _drawn(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """Return one of the names, each in proportion to its weight."""
    names = list(weights)
    point = rng.random() * sum(weights.values())
    for name in names[:-1]:
        point -= weights[name]
        if point < 0:
            return name
    return names[-1]


def outside(make: Callable[[], HardNegative | None], known: set[str]) -> HardNegative | None:
    """Return a negative that is not among the known texts, None where there seems to be none."""
    for _ in range(_PATIENCE):
        negative = make()
        if negative is None or not known or bare(negative.text) not in known:
            return negative
    return None


def bare(text: str) -> str:
    """Return what two captions share where only case, spaces or the final period differ.

    So do captions that differ in how a character is written, as in their apostrophes.
    """
    return end_sentence(" ".join(fold(text).text.lower().split()))
