"""From the sentences of a row's samples to its true and false captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clic.captions.negatives import GENERATORS, cross_swap
from clic.captions.positives import composite_positives
from clic.captions.tagging import Tagger, make_tagger
from clic.config import CaptionsConfig
from clic.errors import DataError
from clic.types import HardNegative, Kind, Sample, Token


@dataclass(frozen=True)
class RowCaptions:
    """The captions of one row: P true ones, and a false one where one could be made."""

    positives: tuple[str, ...]
    negative: HardNegative | None


class Captioner:
    """Makes the captions of every row, as the settings say.

    Args:
        config: The group `captions`.
    """

    def __init__(self, config: CaptionsConfig) -> None:
        self.config = config
        self._tagger: Tagger | None = None

    def negatives(self, kind: Kind) -> int:
        """Return the number K of false captions of a row."""
        return int(self._generator(kind) != "none")

    def _generator(self, kind: Kind) -> str:
        composite = kind == "composite"
        return self.config.composite_negative if composite else self.config.single_negative

    def make(self, kind: Kind, samples: Sequence[Sample], rng: np.random.Generator) -> RowCaptions:
        """Return the captions of one row.

        Args:
            kind: Of the row.
            samples: Its samples, the primary one first.
            rng: Draws sentences, orders and negatives.

        Raises:
            DataError: A sample has no caption.
        """
        captions = [self._sentences(sample) for sample in samples]
        generator = self._generator(kind)
        if kind == "composite":
            positives = composite_positives(captions, self.config.composite_positives, rng)
        else:
            positives = [captions[0][0]]
        negative = None
        if generator == "cross_swap":
            tokens = [self._tokens(sample) for sample in samples]
            first = [sentences[0] for sentences in captions]
            negative = cross_swap(first, tokens, rng, self.config.repair_negatives)
        elif generator != "none":
            negative = GENERATORS[generator](captions[0][0], self._tokens(samples[0]), rng)
        return RowCaptions(tuple(positives), negative)

    def _sentences(self, sample: Sample) -> tuple[str, ...]:
        if not sample.captions:
            raise DataError(f"sample {sample.key!r} has no caption; drop it from the data")
        if not self.config.lowercase:
            return sample.captions
        return tuple(caption.lower() for caption in sample.captions)

    def _tokens(self, sample: Sample) -> tuple[Token, ...]:
        """Return the tagged first caption."""
        caption = self._sentences(sample)[0]
        if self.config.tagger == "stored":
            return _stored(sample, caption)
        if self._tagger is None:  # made in the process that uses it, so that workers can be spawned
            self._tagger = make_tagger(self.config.tagger)
        return self._tagger(caption)


def _stored(sample: Sample, caption: str) -> tuple[Token, ...]:
    if not sample.tags:
        raise DataError(
            f"sample {sample.key!r} carries no tags and captions.tagger=stored; "
            "use captions.tagger=hanta"
        )
    # The tags are those of the caption as it was stored, maybe not yet lower-cased.
    tokens = tuple(t._replace(text=caption[t.start : t.end]) for t in sample.tags[0])
    for token, stored in zip(tokens, sample.tags[0], strict=True):
        if token.text not in (stored.text, stored.text.lower()):
            raise DataError(
                f"sample {sample.key!r}: its stored tag of {stored.text!r} does not fit its "
                f"caption {caption!r}; use captions.tagger=hanta"
            )
    return tokens
