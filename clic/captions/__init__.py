"""True and false captions as text: joining, tagging, positives and hard negatives."""

from __future__ import annotations

from clic.captions.negatives import (
    GENERATORS,
    composite_negative,
    cross_swap,
    hard_negatives,
    replace,
    single_negative,
    stored_negative,
    swap,
)
from clic.captions.positives import composite_positives
from clic.captions.sentences import join
from clic.captions.tagging import TAGGERS, Tagger, make_tagger

__all__ = [
    "GENERATORS",
    "TAGGERS",
    "Tagger",
    "composite_negative",
    "composite_positives",
    "cross_swap",
    "hard_negatives",
    "join",
    "make_tagger",
    "replace",
    "single_negative",
    "stored_negative",
    "swap",
]
