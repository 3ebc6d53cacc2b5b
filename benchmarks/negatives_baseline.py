"""A plain WordNet co-hyponym rule, the baseline for the lexicon in the hand count.

A noun, verb or adjective of the caption that WordNet knows, chosen uniformly, is replaced by a
co-hyponym of its first sense (another lemma under the same direct hypernym; for adjectives an
antonym or a lemma of a neighbouring cluster), drawn in proportion to tag counts plus one, in the
form and case of the original. The rule has no frequency floor and no lists, and ignores context.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from lemminflect import getAllLemmas, getInflection

from clic.captions.text import Change, apply_edits, make_edits
from clic.types import HardNegative, Token

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from lexicon.wordnet import WordNet

_TAGS = {"NOUN": ("NN", "NNS"), "VERB": ("VB", "VBZ", "VBG", "VBD", "VBN"), "ADJ": ("JJ",)}
_SIMILAR = ("&", "!")


class PlainRule:
    """The rule, over one WordNet folder."""

    def __init__(self, folder: Path) -> None:
        self._wordnet = WordNet(folder)
        self._siblings = lru_cache(maxsize=None)(self._find_siblings)

    def __call__(
        self, caption: str, tokens: Sequence[Token], rng: np.random.Generator
    ) -> HardNegative | None:
        """Return the caption with one word replaced, or None if no word has a co-hyponym."""
        for place in rng.permutation([i for i, t in enumerate(tokens) if t.pos in _TAGS]):
            word, pos = tokens[place].text.lower(), tokens[place].pos
            lemma = next(iter(getAllLemmas(word, upos=pos).get(pos, ())), word)
            words, weights = self._siblings(lemma, pos)
            if not words:
                continue
            chosen = words[rng.choice(len(words), p=weights)]
            text = _inflected(chosen, word, lemma, pos)
            edits = make_edits(caption, tokens, [Change(int(place), int(place) + 1, text)])
            return HardNegative(apply_edits(caption, edits), "plain", edits)
        return None

    def _find_siblings(self, lemma: str, pos: str) -> tuple[list[str], np.ndarray]:
        senses = self._wordnet.senses.get((lemma, pos), ())
        words = sorted({w for w in self._around(senses[0]) if w != lemma}) if senses else []
        counts = np.array([self._wordnet.count(word, pos) + 1 for word in words], float)
        return [word.replace("_", " ") for word in words], counts / max(counts.sum(), 1)

    def _around(self, sense) -> Iterator[str]:
        synsets, own = self._wordnet.synsets, set(sense.words)
        if sense.key[0] == "ADJ":
            near = [synsets[p.target] for p in sense.pointers if p.symbol in _SIMILAR]
        else:
            near = [
                synsets[p.target]
                for above in self._wordnet.hypernyms(sense)
                for p in above.pointers
                if p.symbol in ("~", "~i") and p.target != sense.key
            ]
        yield from (w for synset in near for w in synset.words if w not in own)


def _inflected(new: str, old: str, lemma: str, pos: str) -> str:
    """Inflect `new` as `old` is inflected from `lemma`."""
    for tag in _TAGS[pos]:
        if old != lemma and old in getInflection(lemma, tag):
            first, space, rest = new.partition(" ") if pos == "VERB" else ("", "", new)
            if pos == "VERB":
                return next(iter(getInflection(first, tag)), first) + space + rest
            *front, last = new.split(" ")
            return " ".join([*front, next(iter(getInflection(last, tag)), last)])
    return new
