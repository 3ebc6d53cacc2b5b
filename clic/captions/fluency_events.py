"""What `clic.captions.fluency` counts in a caption: words in sequence, its gist, pairs of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clic.captions.lexicon import WORDS, Lexicon
from clic.captions.phrases import NOMINAL, head_from, subject
from clic.captions.text import fold_tokens, lower
from clic.types import Token

ORDER = 3  # length of a counted sequence, in words or parts of a gist
_START, _END = "<s>", "</s>"
_JOINTS = frozenset(("ADP", "CCONJ", "SCONJ"))
_BETWEEN = frozenset(("ADV", "PART"))  # tags that may be between a word and its preposition
_GOVERNORS = NOMINAL | {"VERB"}

Context = tuple[str, ...]


class Event(NamedTuple):
    """A word that was found in a context.

    Attributes:
        kind: "words", "gist", "kinds" or "pairs".
        contexts: Ever narrower contexts; the first is shared by all words of its kind.
        word: The word found there.
    """

    kind: str
    contexts: tuple[Context, ...]
    word: str


def events(tokens: Sequence[Token], lexicon: Lexicon) -> Iterator[Event]:
    """Yield the events of one caption.

    - `words`: each word after the two before it.
    - `gist`: the same for a summary of the caption: each noun's kind (people, animals, clothes, a
      place, ...; the noun itself if the lexicon knows no kind), each verb's lemma,
      and the prepositions, conjunctions and commas between them.
    - `pairs`: an adjective or number and its noun, two nouns in a row, a verb and its subject, a
      verb and its object, a preposition (with and without the noun or verb before it) and its noun.
    - `kinds`: the same pairs, with the kind of the second word in its place.

    Args:
        tokens: The caption's tokens, in any case.
        lexicon: Knows the kinds of things.
    """
    reader = _Reader(fold_tokens(tokens), lexicon)
    yield from _sequence("words", reader.words)
    yield from _sequence("gist", reader.gist())
    for relation, first, its_kind, second in reader.pairs():
        for kind, word in (("kinds", reader.kind(second)), ("pairs", reader.lemmas[second])):
            wide = (kind, relation)
            yield Event(kind, (wide, (*wide, "", its_kind), (*wide, first)), word)


def _sequence(kind: str, words: Sequence[str]) -> Iterator[Event]:
    padded = [_START] * (ORDER - 1) + [*words, _END]
    for i in range(ORDER - 1, len(padded)):
        yield Event(kind, tuple([(kind, *padded[i - n : i]) for n in range(ORDER)]), padded[i])


class _Reader:
    """One caption, read word by word."""

    def __init__(self, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self._tokens, self._lexicon = tokens, lexicon
        self.words = [lower(token.text) for token in tokens]
        self.lemmas = [lower(token.lemma) for token in tokens]

    def kind(self, i: int) -> str:
        """Return the kind of a thing, or the word's lemma if none is known."""
        pos, word = self._tokens[i].pos, self.words[i]
        if pos == "NUM":
            return "number"
        if pos == "ADJ" and word in WORDS["colours"]:
            return "colour"
        if pos not in NOMINAL:
            return self.lemmas[i]
        thing = self._lexicon.thing(word)
        return thing.kind or ("place" if thing.place else self.lemmas[i])

    def gist(self) -> list[str]:
        """Return the caption's summary, with only the last of several nouns in a row."""
        told = []
        for i, token in enumerate(self._tokens):
            if token.pos in NOMINAL:
                if not self._nominal(i + 1):
                    told.append(self.kind(i))
            elif token.pos == "VERB":
                told.append(self.lemmas[i])
            elif token.pos in _JOINTS or self.words[i] in (",", "."):
                told.append(self.words[i])
        return told

    def pairs(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield relation, first word, its kind, and the number of the second word."""
        tokens, words, lemmas = self._tokens, self.words, self.lemmas
        animate = self._lexicon.classes["animate"]
        for i, token in enumerate(tokens):
            if token.pos in ("ADJ", "NUM"):
                noun = head_from(tokens, words, i + 1)
                if noun >= 0:
                    yield "modifier", words[i], self.kind(i), noun
            elif token.pos in NOMINAL:
                if self._nominal(i + 1):
                    yield "compound", lemmas[i], self.kind(i), i + 1
            elif token.pos == "VERB":
                who, what = subject(tokens, words, i, animate), head_from(tokens, words, i + 1)
                if who >= 0:
                    yield "subject", lemmas[i], lemmas[i], who
                if what >= 0:
                    yield "object", lemmas[i], lemmas[i], what
            elif token.pos == "ADP":
                yield from self._of_preposition(i)

    def _of_preposition(self, i: int) -> Iterator[tuple[str, str, str, int]]:
        noun = head_from(self._tokens, self.words, i + 1)
        if noun < 0:
            return
        word = self.words[i]
        yield "preposition", word, word, noun
        before = i - 1
        while before >= 0 and self._tokens[before].pos in _BETWEEN:
            before -= 1
        if before >= 0 and self._tokens[before].pos in _GOVERNORS:
            yield "governor", f"{self.lemmas[before]} {word}", f"{self.kind(before)} {word}", noun

    def _nominal(self, i: int) -> bool:
        return i < len(self._tokens) and self._tokens[i].pos in NOMINAL
