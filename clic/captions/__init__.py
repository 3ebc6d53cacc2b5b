"""True and false captions as text: joining, tagging, positives and hard negatives."""

from __future__ import annotations

from clic.captions.composite_negatives import layout_negative, word_swap
from clic.captions.composites import composite_positives
from clic.captions.negatives import (
    GENERATORS,
    cross_swap,
    hard_negatives,
    replace,
    single_negative,
    stored_negative,
    swap,
)
from clic.captions.sentences import join
from clic.captions.tagging import TAGGERS, Tagger, make_tagger

__all__ = [
    "GENERATORS",
    "TAGGERS",
    "Tagger",
    "composite_positives",
    "cross_swap",
    "hard_negatives",
    "join",
    "layout_negative",
    "make_tagger",
    "replace",
    "single_negative",
    "stored_negative",
    "swap",
    "word_swap",
]
