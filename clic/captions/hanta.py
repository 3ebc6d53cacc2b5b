"""The default tagger, HanTa (Wartena 2019): an HMM over morphemes, which pip installs with clic."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

from clic.captions.lexicon import WORDS
from clic.captions.text import fold, lower
from clic.types import Token

# Increased with every change of tags or lemmas: stored tags record it beside HanTa's own version.
_RULES = 2

# One token: an address or a file's name, a number, a word (hyphens and apostrophes inside, its
# clitic cut off), a clitic, or one other mark.
_CLITIC = r"['\u2019](?:s|re|ve|ll|d|m)(?![^\W_])"
_ADDRESS = (
    r"(?:(?:https?://|www\.)\S*[^\W_]"
    r"|[\w.+@-]{1,100}\.(?:jpe?g|png|gif|webp|com|org|net)(?![^\W_]))"
)
_TOKEN = re.compile(
    rf"{_ADDRESS}"
    r"|\d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?(?![^\W_])"
    r"|n['\u2019]t(?![^\W_])"
    rf"|{_CLITIC}"
    r"|[^\W_]+?(?=n['\u2019]t(?![^\W_]))"
    rf"|[^\W_]+(?:(?:-|(?!{_CLITIC})['\u2019])[^\W_]+)*"
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
_SINGULAR = frozenset(("a", "an", "this", "another", "each", "every"))
_PLACES = frozenset(("above", "below", "behind", "inside", "outside", "underneath", "past"))
_CLITICS = {"n't": "PART", "'s": "PART", **dict.fromkeys(("'re", "'ve", "'ll", "'d", "'m"), "AUX")}
# Marks that HanTa does not know, and the equivalents that it does.
_KNOWN_MARKS = {"\u2013": "\u2014", "\u2015": "\u2014", "\u2026": "..."}
_NOTHING = Token("", 0, 0, "", "")
_AUXILIARY = ("VB", "VD", "VH")

# HanTa's time grows with the cube of a word's length, and on long texts its scores fall below its
# floor. So only the end of a longer word is used, a longer text is tagged in pieces, and words
# that no text tower reads are not tagged at all.
_LONGEST_WORD = 32
_LONGEST_TEXT = 64
_MOST_WORDS = 512

# HanTa's own constants: the tag before a text, its two ends, the lowest score and the beam width.
_EMPTY, _START, _END = 0, 1, 2
_FLOOR = -1e6
_BEAM = 5

State = tuple[int, int]


def tokenize(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) offsets of the words, clitics and marks of a text."""
    return [match.span() for match in _TOKEN.finditer(text)]


def universal(tag: str) -> str:
    """Return the universal POS of a BNC C5 tag, ``X`` for an unknown one."""
    return "AUX" if tag[:2] in _AUXILIARY else _UNIVERSAL.get(tag, "X")


class HantaTagger:
    """Tags with HanTa; a pure function of the text, whatever its case.

    The model (2 MB, inside the pip package) is loaded once per process, at the first call.
    """

    name = "hanta"

    @property
    def version(self) -> str:
        """Version of HanTa and of the rules on top of it."""
        return f"{version('HanTa')}+{_RULES}"

    def __call__(self, text: str) -> tuple[Token, ...]:
        """Return the tokens of any `text`; words from the 513th on are tagged X."""
        folded = fold(text)
        spans = tokenize(folded.text)
        low = lower(folded.text)
        words = [low[start:end][-_LONGEST_WORD:] for start, end in spans]
        tagged: list[tuple[str, str]] = []
        for i in range(0, min(len(words), _MOST_WORDS), _LONGEST_TEXT):
            tagged += _tag(words[i : i + _LONGEST_TEXT])
        tagged += [(_mark(word) or "X", word) for word in words[_MOST_WORDS:]]
        tokens = [
            Token(folded.text[start:end], start, end, pos, lemma)
            for (start, end), (pos, lemma) in zip(spans, tagged, strict=True)
        ]
        return folded.restore(text, _correct(tokens))


class _Tables(NamedTuple):
    """The parts of HanTa's model that the search needs."""

    transitions: dict[State, dict[int, float]]
    order: dict[int, int]  # of the tags, which breaks ties between scores


def _tag(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return (universal POS, lemma) for each of at most `_LONGEST_TEXT` lower-case words."""
    tags = best_tags([_KNOWN_MARKS.get(word, word) for word in words])
    return [_describe(word, tag) for word, tag in zip(words, tags, strict=True)]


def best_tags(words: Sequence[str]) -> list[int]:
    """Return the numbers of the most likely tags of a text (Viterbi, second order).

    These are the tags of HanTa's ``tag_sent(words, casesensitive=False)`` (for all of 5,071 words
    of SugarCrepe++), at 98,000 words/s on one core instead of 7,600: each word is looked up once,
    and only its own tags are tried.

    Args:
        words: Lower-case words.
    """
    transitions = _tables().transitions
    row: dict[State, float] = {(_EMPTY, _START): 0.0}
    steps: list[dict[State, State]] = []
    for word in words:
        candidates = _candidates(word)
        bound = sorted(row.values(), reverse=True)[_BEAM] - 1 if len(row) > _BEAM else _FLOOR
        new: dict[State, float] = {}
        back: dict[State, State] = {}
        best = new.get
        for state, score in row.items():
            if score < bound:
                continue
            following = transitions[state]
            middle = state[1]
            for tag, own in candidates:
                total = score + following[tag] + own
                reached = (middle, tag)
                if total > best(reached, _FLOOR):
                    new[reached] = total
                    back[reached] = state
        steps.append(back)
        row = new
    return _trace(row, steps)


def _trace(row: dict[State, float], steps: list[dict[State, State]]) -> list[int]:
    """Return the tags on the path to the best state of the last row."""
    if not steps:
        return []
    transitions = _tables().transitions
    state = max(row, key=lambda state: row[state] + transitions[state][_END])
    tags = []
    for back in reversed(steps):
        tags.append(state[1])
        state = back[state]
    return tags[::-1]


@lru_cache(maxsize=1)
def _model() -> Any:
    from HanTa.HanoverTagger import HanoverTagger  # 0.1 s, so only when a caption is tagged

    return HanoverTagger("morphmodel_en.pgz")


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    transitions = _model().LP_trans_word
    tags = [tag for tag in transitions[_EMPTY, _START] if tag != _END]
    return _Tables(transitions, {tag: number for number, tag in enumerate(tags)})


@lru_cache(maxsize=65536)
def _candidates(word: str) -> tuple[tuple[int, float], ...]:
    """Return the tags that a word may have with HanTa's log p(word | tag), up to a constant."""
    order = _tables().order
    scores = dict(_model()._tag_word(word, cutoff=5, casesensitive=False, conditional=True))
    known = [(tag, score) for tag, score in scores.items() if tag in order]
    # For a word that the model cannot spell, all tags are equally likely.
    return tuple(sorted(known, key=lambda pair: order[pair[0]])) or tuple((t, 0.0) for t in order)


@lru_cache(maxsize=65536)
def _describe(word: str, tag: int) -> tuple[str, str]:
    """Return (universal POS, lemma) of a word under HanTa's tag number."""
    if mark := _mark(word):
        return mark, word
    model = _model()
    pos = universal(model.int2tag[tag])
    if pos not in ("NOUN", "VERB", "ADJ", "ADV", "AUX"):
        return pos, word
    return pos, model._analyze(word, tag, taglevel=1)[0] or word


def _mark(word: str) -> str:
    """Return ``PUNCT`` or ``SYM`` if the token is not a word, else the empty string."""
    if len(word) > 1:
        return ""
    category = unicodedata.category(word)
    if category[0] == "P":
        return "PUNCT"
    return "" if category[0] in "LN" else "SYM"


def _correct(tokens: list[Token]) -> list[Token]:
    """Correct what the tagger often gets wrong in captions.

    A colour before a noun is an adjective ("an orange cat"). "left" is a noun in "the left of",
    and a preposition in "a circle left of", as is "next" in "next to" and "above" in "is above a".
    An apparent plural in "a cook chops onions" is a verb, and an apparent name in "a giraffe" a
    noun. Parts of words ("n't" and the "ca" before it) and addresses never get a tag that allows
    swapping.
    """
    for i in range(len(tokens) - 1, -1, -1):
        token = tokens[i]
        word = token.text.lower()
        before = tokens[i - 1].pos if i else ""
        following = tokens[i + 1] if i + 1 < len(tokens) else _NOTHING
        after = following.text.lower()
        if word in _CLITICS:
            if token.pos not in ("PART", "AUX"):
                tokens[i] = token._replace(pos=_CLITICS[word])
        elif after == "n't" and following.start == token.end:
            tokens[i] = token._replace(pos="AUX")
        elif "." in word[:-1] and re.fullmatch(_ADDRESS, word):
            tokens[i] = token._replace(pos="X")
        elif word in WORDS["colours"] and token.pos in ("NOUN", "PROPN", "VERB"):
            if following.pos in ("NOUN", "ADJ"):
                tokens[i] = token._replace(pos="ADJ", lemma=word)
        elif word in ("left", "right") and after == "of":
            named = before in ("DET", "ADJ", "PRON")
            tokens[i] = token._replace(pos="NOUN" if named else "ADP", lemma=word)
        elif (
            (word == "next" and after == "to")
            or (word == "to" and i and tokens[i - 1].text.lower() == "next")
            or (token.pos == "ADV" and word in _PLACES and following.pos in ("DET", "NUM"))
        ):
            tokens[i] = token._replace(pos="ADP", lemma=word)
        elif token.pos == "PROPN" and before in ("DET", "NUM", "ADJ"):
            if following.pos not in ("NOUN", "PROPN"):
                number = "NN2" if word.endswith("s") else "NN1"
                tokens[i] = token._replace(pos="NOUN", lemma=_lemma(word, number))
        elif _is_plural(token) and following.pos not in ("PUNCT", "") and _ends_singular(tokens, i):
            tokens[i] = token._replace(pos="VERB", lemma=_lemma(word, "VVZ"))
    return tokens


def _lemma(word: str, tag: str) -> str:
    return _describe(word, _model().tag2int[tag])[1]


def _is_plural(token: Token) -> bool:
    return token.pos == "NOUN" and token.text[-1] in "sS" and token.text.lower() != token.lemma


def _ends_singular(tokens: Sequence[Token], end: int) -> bool:
    """Return whether a singular noun phrase ("a cook") ends before token `end`."""
    last = tokens[end - 1]
    if end < 2 or last.pos not in ("NOUN", "PROPN") or _is_plural(last):
        return False
    if last.text.lower() in ("couple", "dozen") or last.text.endswith("ing"):
        return False
    i = end - 2
    while i >= 0 and tokens[i].pos in ("NOUN", "PROPN", "ADJ"):
        i -= 1
    return i >= 0 and tokens[i].text.lower() in _SINGULAR
