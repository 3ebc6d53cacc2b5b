"""Hard negatives of one caption: false captions close to a true one, by the generator's name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from clic.captions.fluency import Fluency, Fluent
from clic.captions.replace import replace
from clic.captions.swap import swap, swap_attributes
from clic.captions.tagging import make_tagger
from clic.captions.text import is_foreign, normalized, unlike
from clic.errors import ConfigError, pick
from clic.seeding import generator
from clic.types import HardNegative, Token

Generator = Callable[[str, Sequence[Token], np.random.Generator], HardNegative | None]

GENERATORS: dict[str, Generator] = {
    "swap": swap,
    "swap_attributes": swap_attributes,
    "replace": replace,
}

RANKED = ("swap", "swap_attributes")
"""Generators whose false captions are chosen by how well they read, if that is asked for;
`replace` uses only words from hand-made lists."""

FOREIGN = "clic's taggers and word lists know only English"


def single_negative(
    caption: str,
    tokens: Sequence[Token],
    rng: np.random.Generator,
    weights: Mapping[str, float],
    true: Iterable[str] = (),
    fluent: Fluent | None = None,
) -> HardNegative | None:
    """Make a false caption of one image with a randomly drawn generator.

    Args:
        caption: A true caption.
        tokens: Its tokens.
        rng: Draws the generator, then whatever the generator draws.
        weights: The weight, 0 or more, of generators by their names in `GENERATORS`. If the one
            that is drawn yields nothing, another is drawn from the rest.
        true: Other captions of the image. None of them is returned, whatever its case, spacing
            and final period.
        fluent: Chooses among several false captions of the generators in `RANKED`, and rejects
            those that read badly; None takes the first.

    Returns:
        The false caption, or None if no generator yields one.
    """
    left = {kind: weight for kind, weight in weights.items() if weight > 0}
    known = set(map(normalized, true))
    while left:
        kind = _drawn(left, rng) if len(left) > 1 else next(iter(left))
        make = pick(GENERATORS, kind, "captions.mixture")
        draw = partial(make, caption, tokens, rng)
        if fluent is not None and kind in RANKED:
            negative = fluent.best(tokens, draw, known)
        else:
            negative = unlike(known, draw)
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
        rng: Draws one of them, each equally likely.
        true: The image's true captions. None of them is returned, whatever its case, spacing and
            final period.

    Returns:
        The false caption, without edits, or None if there is none.
    """
    known = {"", *map(normalized, true)}
    left = [text for text in texts if normalized(text) not in known]
    return HardNegative(left[int(rng.integers(len(left)))], "stored", ()) if left else None


def hard_negatives(
    caption: str,
    kinds: Sequence[str] = ("swap", "replace"),
    n: int = 4,
    seed: int = 0,
    fluency: str | Path | Fluency | None = None,
) -> list[HardNegative]:
    """Return false captions close to a true one.

    Args:
        caption: A true caption.
        kinds: Names of `GENERATORS`, taken in turn.
        n: Number of negatives wanted.
        seed: Random seed. Equal arguments give equal results in any process.
        fluency: A file of counts (`clic-data count`), or the `Fluency` loaded from it: swaps are
            then chosen by how well they read, and those that read badly are left out.

    Returns:
        At most `n` negatives with distinct texts, fewer if the caption yields fewer. The spans
        of their edits are positions in `caption` as given; the rest of it stays unchanged. Warns
        if there are none because the caption is not in Latin script.

    Raises:
        ConfigError: A kind is unknown, no kind is given, `n` is below 1, or `fluency` is not a
            file of counts.
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1")
    if isinstance(kinds, str) or not kinds:
        raise ConfigError(f"kinds={kinds!r} must be a list of names such as ['swap', 'replace']")
    for kind in kinds:
        pick(GENERATORS, kind, "kinds")
    fluent = _fluent(fluency)
    tokens = make_tagger("hanta")(caption)
    streams = {kind: generator(seed, f"hard_negatives/{kind}") for kind in kinds}
    found: list[HardNegative] = []
    known: set[str] = set()
    while streams and len(found) < n:
        for kind in list(streams):
            if len(found) == n:
                break
            negative = single_negative(caption, tokens, streams[kind], {kind: 1.0}, known, fluent)
            if negative is None:
                del streams[kind]
            else:
                found.append(negative)
                known.add(normalized(negative.text))
    if not found and is_foreign(caption):
        warnings.warn(
            f"no false captions: the caption is not in Latin script, and {FOREIGN}", stacklevel=2
        )
    return found


def distinct_negatives(make: Callable[[], HardNegative | None], n: int) -> list[HardNegative]:
    """Return at most `n` negatives that `make` draws, with distinct texts."""
    found: list[HardNegative] = []
    known: set[str] = set()
    while len(found) < n and (negative := unlike(known, make)) is not None:
        found.append(negative)
        known.add(normalized(negative.text))
    return found


def _fluent(fluency: str | Path | Fluency | None) -> Fluent | None:
    """Return the `Fluent` of a model or its file, or None without one."""
    if fluency is None:
        return None
    return Fluent(fluency if isinstance(fluency, Fluency) else Fluency.load(fluency))


def _drawn(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """Draw one of the names in proportion to its weight."""
    names = list(weights)
    point = rng.random() * sum(weights.values())
    for name in names[:-1]:
        point -= weights[name]
        if point < 0:
            return name
    return names[-1]
