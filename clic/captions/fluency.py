"""How well a false caption reads, by counts of what people write in captions.

A swap is false by construction, but often not what anybody would write: "a beach walks on the
child". Counts of true captions distinguish such a caption from one that is merely false, so that a
model cannot learn to find the false caption by its wording alone.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clic.captions.doubtful_swaps import is_doubtful
from clic.captions.fluency_events import Context, Event, events
from clic.captions.lexicon import Lexicon, default_lexicon
from clic.captions.text import lower, normalized, unlike
from clic.errors import ConfigError, DataError
from clic.types import HardNegative, Token

CANDIDATES = 12
LEAST = -5.0
"""Defaults of `captions.fluency_candidates` and `captions.fluency_least`."""

_FORMAT: Context = ("clic caption counts", "1")  # an entry of every table, distinct from any event
_TYPES = 0xFFFFFFFF  # the lower half of a value
_BUFFERED = 1 << 21  # events to collect before equal ones are summed
_WORDS = re.compile(r"'\w*|[\w-]+|\S")


class CaptionCounts:
    """Counts the events of captions, and makes the table that `Fluency` reads.

    Args:
        lexicon: Knows kinds of things, by default clic's own.

    Attributes:
        captions: How many captions were counted.
    """

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        self._lexicon = lexicon or default_lexicon()
        self.captions = 0
        self._found, self._places = array("Q"), array("Q")
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, tokens: Sequence[Token]) -> None:
        """Count one caption, given its tokens."""
        self.captions += 1
        for _, contexts, word in events(tokens, self._lexicon):
            for context in contexts:
                self._found.append(_key(context, word))
                self._places.append(_context_key(context))
        if len(self._found) > _BUFFERED:
            self._sum_up()

    def _sum_up(self) -> None:
        """Sum the counts of equal events, so that memory grows only with distinct ones."""
        fresh = (
            np.array(self._found, np.uint64),
            np.array(self._places, np.uint64),
            np.ones(len(self._found), np.uint64),
        )
        self._found, self._places = array("Q"), array("Q")
        keys, places, counts = map(np.concatenate, zip(*self._parts, fresh, strict=True))
        order = np.argsort(keys, kind="stable")
        keys, places, counts = keys[order], places[order], counts[order]
        first = np.flatnonzero(np.diff(keys, prepend=keys[:1] ^ np.uint64(1)))
        if len(first):
            self._parts = [(keys[first], places[first], np.add.reduceat(counts, first))]

    def table(self) -> np.ndarray:
        """Return the counts, uint64 [2, N]: sorted keys, and for each its count.

        The count is in the upper 32 bits; for a context, the lower 32 bits are the number of
        distinct words that were found there.
        """
        self._sum_up()
        keys, places, counts = self._parts[0] if self._parts else [np.zeros(0, np.uint64)] * 3
        contexts, inverse, types = np.unique(places, return_inverse=True, return_counts=True)
        totals = np.zeros(len(contexts), np.uint64)
        np.add.at(totals, inverse, counts)
        half = np.uint64(32)
        values = [counts << half, totals << half | types.astype(np.uint64)]
        values.append(np.array([self.captions << 32], np.uint64))
        names = np.concatenate([keys, contexts, np.array([_context_key(_FORMAT)], np.uint64)])
        order = np.argsort(names)
        return np.stack([names[order], np.concatenate(values)[order]])


class Fluency:
    """Scores how well false captions read, by the counts of true ones.

    The score of a false caption is the sum, over the four kinds of `clic.captions.fluency_events`,
    of its worst new event's association, if that is below 0:

        s = sum_k min(0, min_{(w, h) in new_k} log p(w | h) - log p(w)).

    Only events that the true caption lacks count, so neither its length nor its rare words matter.
    p interpolates ever narrower contexts by Witten-Bell smoothing (IEEE Transactions on Information
    Theory 37(4), 1991; method C), where c are counts, n(h) is the count of all words after h, and
    t(h) the number of distinct ones:

        p(w | h) = (c(h, w) + t(h) p(w | h')) / (n(h) + t(h)),

    h' the next wider context, and p = 1 / (t + 1) before the widest. The worst event stands for
    all because one impossible pair makes a caption odd, however usual the rest of it is.

    Args:
        table: The result of `CaptionCounts.table`.

    Raises:
        DataError: It is not such a table.
    """

    def __init__(self, table: np.ndarray) -> None:
        if table.dtype != np.uint64 or table.ndim != 2 or table.shape[0] != 2:
            raise DataError("there are no counts of captions in it")
        self._keys, self._values = table
        self._lexicon = default_lexicon()
        known = self._look_up({_context_key(_FORMAT)})
        if not known:
            raise DataError("its counts are none of captions, or of another version of clic")
        self.captions = next(iter(known.values())) >> 32

    @classmethod
    def load(cls, path: str | Path, setting: str = "fluency") -> Fluency:
        """Memory-map a file that `clic-data count` wrote, so that processes share it.

        Args:
            path: The file.
            setting: Name of the setting that gives the path, for messages.

        Raises:
            ConfigError: There is no such file, or it contains no counts.
        """
        try:
            return cls(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError, DataError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ConfigError(
                f"{setting}={path} cannot be used: {why}; write it with clic-data count SHARDS "
                f"--out {path}"
            ) from error

    def scores(self, tokens: Sequence[Token], negatives: Sequence[HardNegative]) -> list[float]:
        """Return how well false captions of one caption read: 0 at best, the lower the worse.

        Args:
            tokens: The true caption's tokens.
            negatives: False captions, as edits of it.
        """
        true = set(events(tokens, self._lexicon))
        fresh = [
            set(events(edited_tokens(tokens, negative), self._lexicon)) - true
            for negative in negatives
        ]
        asked: set[int] = set()
        for _, contexts, word in set().union(*fresh):
            asked.update(map(_context_key, contexts))
            asked.update([_key(context, word) for context in contexts])
        known = self._look_up(asked)
        return [_score(new, known) for new in fresh]

    def _look_up(self, asked: Collection[int]) -> dict[int, int]:
        """Return the values of the keys that the table has."""
        keys = np.array(sorted(asked), np.uint64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._keys[places] == keys
        return dict(zip(keys[found].tolist(), self._values[places[found]].tolist(), strict=True))


class Fluent(NamedTuple):
    """Chooses false captions by how well they read.

    Attributes:
        model: Scores them.
        candidates: How many are drawn, to choose the best of them.
        least: The lowest score that is accepted.
    """

    model: Fluency
    candidates: int = CANDIDATES
    least: float = LEAST

    def best(
        self,
        tokens: Sequence[Token],
        make: Callable[[], HardNegative | None],
        known: Iterable[str] = (),
    ) -> HardNegative | None:
        """Return the candidate that reads best, or None if none reads well enough.

        Candidates that may still be true are left out (`clic.captions.doubtful_swaps`).

        Args:
            tokens: The true caption's tokens.
            make: Draws a false caption of it.
            known: Normalized texts that are never chosen.
        """
        found: list[HardNegative] = []
        texts = set(known)
        while len(found) < self.candidates and (negative := unlike(texts, make)) is not None:
            found.append(negative)
            texts.add(normalized(negative.text))
        lexicon = default_lexicon()
        found = [
            negative
            for negative in found
            if not is_doubtful(tokens, edited_tokens(tokens, negative), negative, lexicon)
        ]
        scores = self.model.scores(tokens, found) if found else []
        best = max(scores, default=self.least - 1)
        return found[scores.index(best)] if best >= self.least else None


def edited_tokens(tokens: Sequence[Token], negative: HardNegative) -> list[Token]:
    """Return the tokens of a false caption, in which moved words keep their tags.

    Only texts, tags and lemmas are valid; offsets still refer to the true caption. A word that the
    true caption lacks gets the tag of the word that it replaces.
    """
    own = {lower(token.text): token for token in tokens}
    edits = iter(sorted(negative.edits, key=lambda edit: edit.span))
    edit = next(edits, None)
    made: list[Token] = []
    for token in tokens:
        while edit is not None and edit.span[1] <= token.start:
            edit = next(edits, None)
        if edit is None or token.start < edit.span[0]:
            made.append(token)
        elif token.start == edit.span[0]:
            for word in _WORDS.findall(lower(edit.new)):
                made.append(own.get(word) or token._replace(text=word, lemma=word))
    return made


def _score(new: Collection[Event], known: dict[int, int]) -> float:
    """Return the sum of the worst associations of each kind; see `Fluency`."""
    worst: dict[str, float] = {}
    for event in new:
        worst[event.kind] = min(worst.get(event.kind, 0.0), _association(event, known))
    return sum(worst[kind] for kind in sorted(worst))


def _association(event: Event, known: dict[int, int]) -> float:
    """Return log p(w | h) - log p(w)."""
    _, contexts, word = event
    p = 1.0 / ((known.get(_context_key(contexts[0]), 0) & _TYPES) + 1)
    alone = 0.0
    for context in contexts:
        value = known.get(_context_key(context), 0)
        total, types = value >> 32, value & _TYPES
        if total:
            p = ((known.get(_key(context, word), 0) >> 32) + types * p) / (total + types)
        alone = alone or p
    return log(p) - log(alone)


def _key(context: Context, word: str) -> int:
    """Return 64 bits that identify a word in a context."""
    text = "\x1f".join(context) + "\x1e" + word
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 16)
def _context_key(context: Context) -> int:
    """Return 64 bits that identify a context."""
    text = "\x1f".join(context)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
