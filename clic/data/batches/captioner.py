"""From the sentences of a row's samples to its true and false captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clic.captions.composite_negatives import cross_swap, layout_negative, word_swap
from clic.captions.composites import (
    Composite,
    Place,
    TokenBudget,
    composite_positives,
    layout_composite,
    remaining_phrases,
    sentence_composite,
)
from clic.captions.negatives import single_negative, stored_negative
from clic.captions.tagging import Tagger, make_tagger
from clic.captions.text import has_words, lower
from clic.config.train_settings import CaptionsConfig
from clic.data.sampling.sample_sources import SampleSource
from clic.errors import ConfigError, DataError, UnavailableError
from clic.types import HardNegative, Kind, Sample, Token

FALLBACK = "hanta"
"""Tagger of captions that should have stored tags and have none of their own."""

LONGEST_WORD = 1000  # characters; byte-pair encoding takes their square in time
LOOKED_AT = 16  # samples, before a source is taken for one without tags or false captions
UNTAGGED = ("layout", "stored")  # false captions that are made without tags


@dataclass(frozen=True)
class RowCaptions:
    """The captions of one row: P true ones, and K false ones.

    Attributes:
        positives: The true captions.
        negatives: A false caption of each kind, None where none could be made.
        retagged: Captions that were to have stored tags, had none of their own, and were tagged.
        shortened: True captions that leave images out, for want of context.
    """

    positives: tuple[str, ...]
    negatives: tuple[HardNegative | None, ...]
    retagged: int = 0
    shortened: int = 0


def check_captions(sample: Sample) -> None:
    """Raise `DataError` where a sample has no first caption, or one that is no text."""
    if not sample.captions or not has_words(sample.captions[0]):
        raise DataError(f"sample {sample.key!r} has no caption; drop it from the data")
    texts = sample.captions + sample.negatives
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"sample {sample.key!r}: a caption holds half a character ({error.reason}); mend it"
        ) from error
    for caption in texts:
        longest = max(map(len, caption.split()), default=0) if len(caption) > LONGEST_WORD else 0
        if longest > LONGEST_WORD:
            raise DataError(
                f"sample {sample.key!r}: a caption holds a word of {longest} characters, more than "
                f"{LONGEST_WORD}; drop it from the data"
            )


class Captioner:
    """Makes the captions of every row, as the settings say.

    Args:
        config: The group `captions`.
        room: How long the joined captions of composites may be, None where what is too long is cut.
    """

    def __init__(self, config: CaptionsConfig, room: TokenBudget | None = None) -> None:
        self.config, self.room = config, room
        self._phrases = remaining_phrases(config.layout_held_out)
        self._tagger: Tagger | None = None

    def negative_kinds(self, kind: Kind) -> tuple[str, ...]:
        """Return the name of each of the K false captions of a row."""
        return self.config.negative_kinds(kind)

    def _uses_tags(self, kind: Kind) -> bool:
        return any(name not in UNTAGGED for name in self.negative_kinds(kind))

    def check(self, kind: Kind, source: SampleSource) -> None:
        """Raise `ConfigError` where tags or false captions are to be had, and cannot.

        They are to be stored and are not, or no tagger is there.
        """
        if "stored" in self.negative_kinds(kind) and not _any(source, lambda s: bool(s.negatives)):
            raise ConfigError(
                "captions.single_negative=stored, and the first samples carry no false captions; "
                "pack them from a file that has some (clic-data pack train_neg_clip.tsv ...), or "
                "use captions.single_negative=swap"
            )
        if not self._uses_tags(kind):
            return
        if self.config.tagger != "stored":
            make_tagger(self.config.tagger)
            return
        if not _any(source, lambda sample: sample.tags is not None):
            raise ConfigError(
                f"captions.tagger=stored, and the first samples carry no tags; use "
                f"captions.tagger={FALLBACK}, or store tags (clic-data annotate)"
            )

    def make(
        self,
        kind: Kind,
        samples: Sequence[Sample],
        rng: np.random.Generator,
        places: Sequence[Place] = (),
    ) -> RowCaptions:
        """Return the captions of one row.

        Args:
            kind: Of the row.
            samples: Its samples, the primary one first; each has passed `check_captions`.
            rng: Draws sentences, orders and negatives.
            places: Of a composite, where each sample's image lies.
        """
        captions = [self._cased(sample.captions) for sample in samples]
        first = [sentences[0] for sentences in captions]
        tokens, retagged = self._tokens(samples, first) if self._uses_tags(kind) else ([], 0)
        if kind == "single":
            negatives = self._single_negatives(samples[0], captions[0], tokens, rng)
            return RowCaptions((first[0],), negatives, retagged)
        composite = self._composite(captions, places, rng).within(self.room)
        positives = composite_positives(composite, self.config.composite_positives, rng, self.room)
        negatives = tuple(
            self._composite_negative(name, composite, tokens, positives.texts, rng)
            for name in self.negative_kinds(kind)
        )
        return RowCaptions(positives.texts, negatives, retagged, positives.shortened)

    def _single_negatives(
        self,
        sample: Sample,
        captions: Sequence[str],
        tokens: Sequence[tuple[Token, ...]],
        rng: np.random.Generator,
    ) -> tuple[HardNegative | None, ...]:
        name = self.config.single_negative
        if name == "none":
            return ()
        if name == "stored":
            return (stored_negative(self._cased(sample.negatives), rng, captions),)
        weights = self.config.mixture if name == "mixture" else {name: 1.0}
        return (single_negative(captions[0], tokens[0], rng, weights, captions[1:]),)

    def _composite(
        self,
        captions: Sequence[Sequence[str]],
        places: Sequence[Place],
        rng: np.random.Generator,
    ) -> Composite:
        """Return a composite with what its caption says: the sentences, or the layout."""
        share = self.config.layout_share
        if share > 0 and rng.random() < share:
            period = rng.random() < self.config.layout_period
            return layout_composite(captions, places, self._phrases, rng, period)
        return sentence_composite(captions, places)

    def _composite_negative(
        self,
        name: str,
        composite: Composite,
        tokens: Sequence[tuple[Token, ...]],
        true: Sequence[str],
        rng: np.random.Generator,
    ) -> HardNegative | None:
        if name == "layout":
            return layout_negative(composite, rng)
        if self.config.repair_negatives:
            return word_swap(composite, tokens, rng, true)
        return cross_swap(composite.captions, tokens, rng, repair=False)

    def _cased(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(lower, texts)) if self.config.lowercase else texts

    def _tokens(
        self, samples: Sequence[Sample], captions: Sequence[str]
    ) -> tuple[list[tuple[Token, ...]], int]:
        """Return the tokens of each first caption, and how many were to be stored and were not."""
        if self.config.tagger != "stored":
            return [self._tagged(self.config.tagger, caption) for caption in captions], 0
        found = [_stored(s, caption) for s, caption in zip(samples, captions, strict=True)]
        tokens = [
            self._tagged(FALLBACK, caption) if stored is None else stored
            for stored, caption in zip(found, captions, strict=True)
        ]
        return tokens, found.count(None)

    def _tagged(self, name: str, caption: str) -> tuple[Token, ...]:
        if self._tagger is None:  # made in the process that uses it, so that workers can be spawned
            self._tagger = make_tagger(name)
        return self._tagger(caption)


def _any(source: SampleSource, has: Callable[[Sample], bool]) -> bool:
    """Return whether one of the first samples, of any source of a mix, has what is asked for."""
    first = 0
    for part in source.parts():
        for index in range(first, first + min(LOOKED_AT, part.count)):
            try:
                if has(source.read(index)):
                    return True
            except UnavailableError:
                raise
            except (DataError, OSError):
                continue  # whoever builds the batch replaces and counts it
        first += part.count
    return False


def _stored(sample: Sample, caption: str) -> tuple[Token, ...] | None:
    """Return the stored tokens of the first caption, None without any, or with another's."""
    if not sample.tags:
        return None
    # The tags are those of the caption as it was stored, maybe not yet lower-cased.
    tokens = tuple(t._replace(text=caption[t.start : t.end]) for t in sample.tags[0])
    pairs = zip(tokens, sample.tags[0], strict=True)
    return tokens if all(new.text in (old.text, lower(old.text)) for new, old in pairs) else None
