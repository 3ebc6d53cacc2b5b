"""Hard negatives: false captions close to a true one, by the name of their generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clic.captions.cross_swap import cross_swap
from clic.captions.replace import replace
from clic.captions.swap import swap
from clic.captions.tagging import make_tagger
from clic.errors import ConfigError, pick
from clic.seeding import generator
from clic.types import HardNegative, Token

__all__ = ["GENERATORS", "cross_swap", "hard_negatives", "replace", "swap"]

Generator = Callable[[str, Sequence[Token], np.random.Generator], HardNegative | None]

# Generators of one caption; cross_swap, which takes two, is the business of composites.
GENERATORS: dict[str, Generator] = {"swap": swap, "replace": replace}

# So many draws in a row without a new text, and a kind counts as used up.
_PATIENCE = 32


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
        At most `n` negatives with distinct texts; fewer where the caption does not give more.

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
    found: dict[str, HardNegative] = {}
    while streams and len(found) < n:
        for kind in list(streams):
            if len(found) == n:
                break
            negative = _new(GENERATORS[kind], caption, tokens, streams[kind], found)
            if negative is None:
                del streams[kind]
            else:
                found[negative.text] = negative
    return list(found.values())


def _new(
    make: Generator,
    caption: str,
    tokens: Sequence[Token],
    rng: np.random.Generator,
    found: dict[str, HardNegative],
) -> HardNegative | None:
    """Return a negative whose text was not found before, or None once there seem to be none."""
    for _ in range(_PATIENCE):
        negative = make(caption, tokens, rng)
        if negative is None or negative.text not in found:
            return negative
    return None
