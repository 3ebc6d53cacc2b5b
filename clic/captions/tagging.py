"""Part-of-speech tags: a caption's words with offsets, universal POS and lemma."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from clic.captions.words import COLOUR_WORDS
from clic.errors import pick
from clic.types import Token

Tagger = Callable[[str], tuple[Token, ...]]

# One token: a number, a word (hyphens inside, its clitic cut off), a clitic, or one other mark.
_TOKEN = re.compile(
    r"\d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?(?![^\W_])"
    r"|n['\u2019]t(?![^\W_])"
    r"|['\u2019](?:s|re|ve|ll|d|m)(?![^\W_])"
    r"|[^\W_]+?(?=n['\u2019]t(?![^\W_]))"
    r"|[^\W_]+(?:-[^\W_]+)*"
    r"|\S",
    re.IGNORECASE,
)

# BNC C5 tags, as HanTa's English model gives them, to universal POS.
_UNIVERSAL = {
    "AJ0": "ADJ", "AJC": "ADJ", "AJS": "ADJ", "ORD": "ADJ",
    "AT0": "DET", "DT0": "DET",
    "AV0": "ADV", "AVP": "ADP", "AVQ": "SCONJ",
    "CJC": "CCONJ", "CJS": "SCONJ", "CJT": "SCONJ",
    "CRD": "NUM",
    "DPS": "PRON", "DTQ": "PRON", "EX0": "PRON",
    "PNI": "PRON", "PNP": "PRON", "PNQ": "PRON", "PNX": "PRON",
    "ITJ": "INTJ",
    "NN": "NOUN", "NN0": "NOUN", "NN1": "NOUN", "NN2": "NOUN", "NP0": "PROPN",
    "POS": "PART", "TO0": "PART", "XX0": "PART",
    "PRF": "ADP", "PRP": "ADP",
    "VVB": "VERB", "VVD": "VERB", "VVG": "VERB", "VVI": "VERB", "VVN": "VERB", "VVZ": "VERB",
    "VM0": "AUX",
}  # fmt: skip
_AUXILIARY = ("VB", "VD", "VH")

# HanTa's effort grows with the cube of a word's length and its scores run out on long texts;
# beyond these limits the end of the word decides, and the text is tagged in pieces.
_LONGEST_WORD = 32
_LONGEST_TEXT = 64


def tokenize(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) offsets of the words, clitics and marks of a text."""
    return [match.span() for match in _TOKEN.finditer(text)]


def universal(tag: str) -> str:
    """Return the universal POS of a BNC C5 tag, ``X`` for what it does not know."""
    return "AUX" if tag[:2] in _AUXILIARY else _UNIVERSAL.get(tag, "X")


class HantaTagger:
    """Tags with HanTa (Wartena 2019), an HMM over morphemes; a pure function of the text.

    Words are tagged in lower case, as training captions are, so that case changes no tag. The
    model (2 MB, inside the pip package) is loaded once per process, at the first call.
    """

    def __call__(self, text: str) -> tuple[Token, ...]:
        """Return the tokens of `text`; any text is fine, the empty one has none."""
        spans = tokenize(text)
        words = [text[start:end].lower()[-_LONGEST_WORD:] for start, end in spans]
        tagged: list[tuple[str, str]] = []
        for i in range(0, len(words), _LONGEST_TEXT):
            tagged += _tag(words[i : i + _LONGEST_TEXT])
        tokens = [
            Token(text[start:end], start, end, pos, lemma)
            for (start, end), (pos, lemma) in zip(spans, tagged, strict=True)
        ]
        return tuple(_correct(tokens))


def _tag(words: list[str]) -> list[tuple[str, str]]:
    """Return (universal POS, lemma) for each of at most `_LONGEST_TEXT` lower-case words."""
    tags = _model().tag_sent_viterbi(words, False)
    return [
        (mark, word) if (mark := _mark(word)) else _describe(word, tag)
        for word, tag in zip(words, tags, strict=True)
    ]


@lru_cache(maxsize=1)
def _model() -> Any:
    from HanTa.HanoverTagger import HanoverTagger  # 0.1 s, so only where a caption is tagged

    model = HanoverTagger("morphmodel_en.pgz")
    model.analyze_forward = lru_cache(maxsize=65536)(model.analyze_forward)
    return model


@lru_cache(maxsize=65536)
def _describe(word: str, tag: int) -> tuple[str, str]:
    """Return (universal POS, lemma) of a word under HanTa's tag number."""
    model = _model()
    pos = universal(model.int2tag[tag])
    if pos not in ("NOUN", "VERB", "ADJ", "ADV", "AUX"):
        return pos, word
    return pos, model._analyze(word, tag, taglevel=1)[0] or word


def _mark(word: str) -> str:
    """Return ``PUNCT`` or ``SYM`` where the token is no word, else the empty string."""
    if len(word) > 1:
        return ""
    category = unicodedata.category(word)
    if category[0] == "P":
        return "PUNCT"
    return "" if category[0] in "LN" else "SYM"


def _correct(tokens: list[Token]) -> list[Token]:
    """Mend what the tagger often gets wrong in captions: colours and directions.

    A colour in front of what it colours is an adjective ("an orange cat"), "left" in
    "the left of" is a noun, in "a circle left of", like "next" in "next to", a preposition.
    """
    for i in range(len(tokens) - 2, -1, -1):
        token, following = tokens[i], tokens[i + 1]
        word, after = token.text.lower(), following.text.lower()
        if word in COLOUR_WORDS and token.pos in ("NOUN", "PROPN", "VERB"):
            if following.pos in ("NOUN", "ADJ"):
                tokens[i] = token._replace(pos="ADJ", lemma=word)
        elif word in ("left", "right") and after == "of":
            named = i > 0 and tokens[i - 1].pos in ("DET", "ADJ", "PRON")
            tokens[i] = token._replace(pos="NOUN" if named else "ADP", lemma=word)
        elif word == "next" and after == "to":
            tokens[i] = token._replace(pos="ADP", lemma=word)
    return tokens


TAGGERS: dict[str, Callable[[], Tagger]] = {"hanta": HantaTagger}


def make_tagger(name: str) -> Tagger:
    """Return the tagger of that name.

    Raises:
        ConfigError: There is none.
    """
    return pick(TAGGERS, name, "captions.tagger")()
