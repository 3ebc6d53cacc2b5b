"""ARO's COCO-Order and Flickr30k-Order (arXiv 2210.01936): a caption against four shuffles of it.

The published code makes the shuffles anew for each run (spaCy's and NLTK's words, global random
state). Here they are a pure function of the caption's position: the same words (those of the
package's own tagger) in an order drawn by a generator, so two runs agree everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clic import seeding
from clic.captions.tagging import make_tagger
from clic.evaluation.benchmarks import retrieval
from clic.evaluation.benchmarks.reading import GridBuilder
from clic.evaluation.cases import Grids
from clic.types import Token

TAGGER = "hanta"
MAX_WORDS = 30
NOUNS = ("NOUN", "PROPN")
ADJECTIVES = ("ADJ",)
_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_SPACES = re.compile(r"\s{2,}")
Shuffle = Callable[[Sequence[Token], np.random.Generator], list[str]]


def load_coco_order(data_root: Path) -> Grids:
    """Return COCO-Order: each caption of the Karpathy test split, 25,010 rows."""
    path = data_root / retrieval.KARPATHY_COCO
    folder = data_root / retrieval.KARPATHY_COCO_IMAGES
    return _load(path, retrieval.read_karpathy(path, folder))


def load_flickr30k_order(data_root: Path) -> Grids:
    """Return Flickr30k-Order: each caption of the Karpathy test split, 5,000 rows."""
    path = data_root / retrieval.KARPATHY_FLICKR
    return _load(path, retrieval.read_karpathy(path, data_root / retrieval.FLICKR_IMAGES))


def _load(path: Path, gallery: retrieval.Gallery) -> Grids:
    tagger = make_tagger(TAGGER)
    builder = GridBuilder(path, ["five_options"])
    rows = [(image, caption) for image, captions in gallery for caption in captions]
    for number, (image, caption) in enumerate(rows):
        options = perturbations(tagger(caption), number)
        builder.add("five_options", [image], [plain(caption), *map(plain, options)])
    return builder.table("choice")


def perturbations(tokens: Sequence[Token], number: int) -> list[str]:
    """Return the four false captions of the caption at a position.

    Nouns among themselves and adjectives among themselves; all other words among themselves; the
    words within each three; the threes. They may happen to be the caption itself, which then is a
    tie, and wrong.
    """
    random = seeding.generator(0, "order", slot=number)
    return [" ".join(shuffle(tokens, random)) for shuffle in SHUFFLES]


def plain(caption: str) -> str:
    """Return a caption as the published code feeds it: lower case, little punctuation, 30 words."""
    text = _SPACES.sub(" ", _PUNCTUATION.sub(" ", caption.lower()))
    return " ".join(text.strip("\n ").split(" ")[:MAX_WORDS])


def _nouns_and_adjectives(tokens: Sequence[Token], random: np.random.Generator) -> list[str]:
    words = _permuted([token.text for token in tokens], _where(tokens, NOUNS), random)
    return _permuted(words, _where(tokens, ADJECTIVES), random)


def _all_but_nouns_and_adjectives(
    tokens: Sequence[Token], random: np.random.Generator
) -> list[str]:
    kept = set(_where(tokens, NOUNS + ADJECTIVES))
    others = [i for i in range(len(tokens)) if i not in kept]
    return _permuted([token.text for token in tokens], others, random)


def _within_threes(tokens: Sequence[Token], random: np.random.Generator) -> list[str]:
    return [word for three in _threes(tokens) for word in random.permutation(three).tolist()]


def _threes_shuffled(tokens: Sequence[Token], random: np.random.Generator) -> list[str]:
    threes = _threes(tokens)
    return [word for i in random.permutation(len(threes)) for word in threes[i]]


SHUFFLES: tuple[Shuffle, ...] = (
    _nouns_and_adjectives,
    _all_but_nouns_and_adjectives,
    _within_threes,
    _threes_shuffled,
)


def _where(tokens: Sequence[Token], tags: Sequence[str]) -> list[int]:
    return [i for i, token in enumerate(tokens) if token.pos in tags]


def _permuted(words: list[str], where: list[int], random: np.random.Generator) -> list[str]:
    """Return the words with those at the given places permuted."""
    result = list(words)
    for i, j in zip(where, random.permutation(len(where)), strict=True):
        result[i] = words[where[j]]
    return result


def _threes(tokens: Sequence[Token]) -> list[list[str]]:
    words = [token.text for token in tokens]
    return [words[i : i + 3] for i in range(0, len(words), 3)]
