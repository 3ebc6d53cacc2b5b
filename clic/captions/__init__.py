"""True and false captions as text.

In: an image's sentences and, for false captions, their tokens. Out: the positives of a composite,
and `HardNegative`s. Read `text` (spelling, joining, editing), `tagging` and `hanta`, then
`composites` and `composite_negatives` (CLIC), `negatives` with `swap` (NegCLIP) and `replace`
(CLoVe). They rely on `phrases`, `equivalence` and `lexicon`; `sentences` prepares dense captions.
"""

from clic.captions.composite_negatives import cross_swap, layout_negative, word_swap
from clic.captions.composites import composite_positives
from clic.captions.negatives import GENERATORS, hard_negatives, single_negative, stored_negative
from clic.captions.replace import replace
from clic.captions.swap import swap, swap_attributes
from clic.captions.tagging import TAGGERS, Tagger, make_tagger
from clic.captions.text import join

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
    "swap_attributes",
    "word_swap",
]
