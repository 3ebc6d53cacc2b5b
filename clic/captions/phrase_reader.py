"""Reads the noun phrases of a caption from left to right, and relates each to an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from clic.captions.attachment import Clause, attach
from clic.captions.lexicon import WORDS
from clic.captions.phrases import NounPhrase

_SINGULAR = frozenset(("is", "was", "has"))
_PLURAL = frozenset(("are", "were", "have"))
_HIGH = frozenset(("high", "low", "close", "deep", "far"))  # adverbs after a verb
_STOPS = frozenset((".", "!", "?", ";"))


class Relation(NamedTuple):
    """Token numbers of two head nouns, `subject` and `obj`, and of the words that relate them."""

    subject: int
    words: tuple[int, ...]
    obj: int


class Front(NamedTuple):
    """A place named before the subject: its preposition, its heads, and where the subject ends."""

    words: tuple[int, ...]
    places: list[int]
    start: int


@dataclass
class PhraseReader(Clause):
    """Reads a caption, one noun phrase after another.

    Attributes:
        relations: The relations found.
        predicates: (modifier, noun) pairs found after "is".
        opening: The relating words before the first noun of the sentence.
        front: The place that it introduces, until the subject's verb is known.
        others: Earlier subjects that "and" joins to the present one, and that also lack a verb.
    """

    relations: list[Relation] = field(default_factory=list)
    predicates: list[tuple[int, int]] = field(default_factory=list)
    opening: tuple[int, ...] = ()
    front: Front | None = None
    others: list[int] = field(default_factory=list)

    def read(self, start: int, phrase: NounPhrase) -> None:
        """Relate a noun phrase to what was read, by the tokens from `start` up to the phrase."""
        self.predicate(start, phrase.first)
        gap = range(start, phrase.first)
        pronoun = [i for i in gap if self.tokens[i].pos == "PRON" and not self.is_relative(i)]
        opening = bool(self.opening)
        if pronoun:
            gap = range(pronoun[-1] + 1, phrase.first)
        words = self._relating(gap)
        if not self.latest or any(self.tokens[i].text in _STOPS for i in gap):
            self._begin(phrase)
            self.opening = words
        elif opening and all(self.letters[i] in "KRC" for i in gap):
            self._follow(phrase)
        elif opening and self._is_inverted(gap, words):
            self._invert(phrase, words)
        elif words and self._opens_clause(gap, words, phrase):
            self._begin(phrase)
            self.opening = words
        elif words and not (pronoun and self.letters[words[0]] == "V"):
            self._relate(phrase, words, range(gap[0], words[0]))
        elif gap and not (words or pronoun) and all(self.letters[i] in "CKR" for i in gap):
            self._join(phrase)
        elif not gap and self.takes_object(self.how) and self.has(self.latest, "animate"):
            self._add(self.source, self.how, phrase.head)  # "hands a boy a ball"
            self.latest, self.inner = [phrase.head], []
        else:
            if not words and any(self.is_relative(i) for i in gap):
                self._add_antecedent(phrase)
            self._begin(phrase)  # of a clause of its own: "as he rides a horse"

    def predicate(self, start: int, end: int) -> None:
        """Note adjectives after "is" ("the dog is big and brown") and in "a truck full of hay"."""
        if start + 1 < end and self.letters[start : start + 2] == ["A", "P"]:
            self.predicates += [(start, head) for head in self.focus()]
        seen = self._is_apposition(start, end)
        for i in range(start, end):
            if self.tokens[i].pos == "AUX":
                seen = True
            elif self.letters[i] == "V" and self.tokens[i].lemma in WORDS["copulas"]:
                seen = self.forms[min(i + 1, end - 1)] not in _HIGH
            elif seen and (self.letters[i] == "A" or self.ends_passive(i)):
                that = any(self.is_relative(k) for k in range(start, i))
                self.predicates += [(i, h) for h in (self.focus() if that else self.subjects)]
            elif self.letters[i] not in "RCKV" and self.tokens[i].pos != "PART":
                seen = False

    def _is_apposition(self, start: int, end: int) -> bool:
        """Return whether adjectives are set off by commas: "the runner, exhausted and sweaty,"."""
        if not self.latest or self.letters[start : start + 1] != ["K"]:
            return False
        i = start + 1
        while i < end and (self.letters[i] in "RAC" or self.ends_passive(i)):
            i += 1
        closed = i == len(self.tokens) or self.tokens[i].pos == "PUNCT"
        return closed and self.letters[i - 1] in "AV"

    def close(self, end: int) -> None:
        """End the clause at token `end`, and relate its subject to the place named before it."""
        if self.front is not None:
            words, places, start = self.front
            verb = self._bare_verb(start, end) if self.letters[words[0]] == "P" else ()
            for place in places:
                self._add(self.subjects, verb + words, place)
        self.front = None

    def _begin(self, phrase: NounPhrase) -> None:
        self.close(phrase.first)
        self.subjects = self.latest = self.actors = [phrase.head]
        self.how, self.verb, self.opening = (), (), ()
        self.source, self.inner, self.others = [], [], []
        self.finite = False

    def _follow(self, phrase: NounPhrase) -> None:
        """Begin a clause after the place that opens it: "in a room, a man sleeps"."""
        words, places = self.opening, self.subjects
        self._begin(phrase)
        self.front = Front(words, places, phrase.last)

    def _opens_clause(self, gap: Sequence[int], words: tuple[int, ...], phrase: NounPhrase) -> bool:
        """Return whether a place opens a new clause: "and in the back two boats sail"."""
        joined = self.letters[gap[0]] in "CK" and self.letters[words[0]] == "P"
        return joined and "".join(self.letters[phrase.last : phrase.last + 1]) in ("D", "M", "N")

    def _is_inverted(self, gap: Sequence[int], words: tuple[int, ...]) -> bool:
        """Return whether the subject follows its verb: "on the wall hangs a clock"."""
        if self.letters[self.opening[0]] != "P" or self.is_verb(self.how):
            return False
        if words:
            return len(words) == 1 and words[0] == gap[0] and self.letters[words[0]] == "V"
        return bool(gap) and self.tokens[gap[0]].pos == "AUX"

    def _invert(self, phrase: NounPhrase, verb: tuple[int, ...]) -> None:
        words, places = verb + self.opening, self.subjects
        self._begin(phrase)
        self.finite = True
        for place in places:
            self._add([phrase.head], words, place)

    def _bare_verb(self, start: int, end: int) -> tuple[int, ...]:
        """Return the finite verb of a range of tokens if it has no object, else ()."""
        for i in range(start, end):
            finite = not self.is_participle(i) or self.tokens[i - 1].pos == "AUX"
            if self.letters[i] == "V" and finite:
                following = self.letters[i + 1 : i + 2]
                return (i,) if not following or following[0] not in "DMANo" else ()
        return ()

    def _relating(self, gap: Sequence[int]) -> tuple[int, ...]:
        """Return the relating words: those from the last verb on, or the last prepositions."""
        words: list[int] = []
        for i in gap:
            kind = self.letters[i]
            if kind == "V" or (kind == "A" and self.forms[min(i + 1, gap[-1])] == "of"):
                words = [i]
            elif kind == "P":
                words.append(i)
            elif kind == "A" and len(words) == 1 and self.letters[words[0]] == "V":
                pass  # "flies high above a beach"
            elif words and (kind in "DMA" or (kind in "CK" and self.letters[words[0]] != "V")):
                words = []
            elif kind == "o" and self.forms[i] == "as":
                words = []  # "a crowd cheers as a man jumps"
        return tuple(words)

    def _relate(self, phrase: NounPhrase, words: tuple[int, ...], before: Sequence[int]) -> None:
        head = phrase.head
        if len(words) == 1 and self.forms[words[0]] == "of":
            self._add_inner(words, head)
            return
        if self.is_verb(words):
            self.source = self.actors = self._actors(words, before)
            self.verb = words
        else:
            self.source, words = attach(self, words, before, phrase)
        self.how = words
        self._add(self.source, words, head)
        self.latest, self.inner = [head], []
        if self.has(self.source, "picture_nouns"):
            self._begin(phrase)  # "the image shows a dog": from here on it is about the dog

    def _add(self, sources: Sequence[int], words: tuple[int, ...], head: int) -> None:
        self.relations += [Relation(source, words, head) for source in sources]

    def _add_inner(self, words: tuple[int, ...], head: int) -> None:
        """Add the noun after an "of"."""
        owner = (self.inner or self.latest)[-1:]
        self._add(owner, words, head)
        if self.has(owner, "picture_nouns"):
            self.subjects = self.latest = self.actors = [head]
            self.how = self.verb = ()
        else:
            self.inner = [head]

    def _add_antecedent(self, phrase: NounPhrase) -> None:
        """Relate the subject of a relative clause to its antecedent: "a cup that a man holds"."""
        verb = self._bare_verb(phrase.last, min(phrase.last + 3, len(self.tokens)))
        if verb and "P" not in self.letters[verb[0] + 1 : verb[0] + 2]:
            self._add([phrase.head], verb, self.focus()[-1])

    def _actors(self, words: tuple[int, ...], before: Sequence[int]) -> list[int]:
        """Return the heads that do what the verb says."""
        focus = self.focus()
        relative = [self.forms[i] for i in before if self.is_relative(i)]
        if relative:
            person = relative[-1] == "who" and self.has(self.subjects, "animate")
            if person and not self.has(focus, "animate"):
                return self.subjects
            return focus[-1:] if self._number(words, before) == "singular" else focus
        infinitive = any(self.forms[i] == "to" for i in before) and self.takes_object(self.how)
        if infinitive and self.has(self.latest, "animate"):
            return self.latest  # "teaches a girl how to ride a bicycle"
        if any(self.letters[i] in "CK" or self.tokens[i].pos == "SCONJ" for i in before):
            return self.actors or self.subjects
        seen = self.is_verb(self.how) and self.forms[words[0]] == self.tokens[words[0]].lemma
        if seen and self.has(focus, "animate"):
            return focus  # "they watch a man throw a ball"
        auxiliary = any(self.tokens[i].pos == "AUX" and self.forms[i] != "being" for i in before)
        if auxiliary or not self.is_participle(words[0]):
            self._be_finite(self._number(words, before))
            return self.subjects
        return self._of_participle(words[0], focus)

    def _of_participle(self, verb: int, focus: list[int]) -> list[int]:
        """Return the heads that a participle after a noun phrase describes."""
        lemma = self.tokens[verb].lemma
        if self.how and (self.has(self.latest, "worn") or lemma in WORDS["lifeless"]):
            return focus if lemma in WORDS["lifeless"] else self.subjects
        if self.how and lemma in WORDS["lively"] and not self.has(focus, "animate"):
            return self.subjects
        if not self.how or not self.forms[verb].endswith("ing") or self.has(focus, "animate"):
            return focus
        return self.subjects if self.has(self.subjects, "animate") else focus

    def _be_finite(self, number: str) -> None:
        """Mark the verb as found; a plural verb also takes the subjects that "and" joins."""
        if not self.finite and number == "plural":
            self.subjects = [*self.others, *self.subjects]
        self.finite, self.others = True, []

    def _number(self, words: Sequence[int], before: Sequence[int]) -> str:
        """Return "singular" or "plural" if a finite verb or its auxiliary shows it, else ""."""
        auxiliary = [self.forms[i] for i in before if self.tokens[i].pos == "AUX"][:1]
        if auxiliary:
            plural = "plural" if auxiliary[0] in _PLURAL else ""
            return "singular" if auxiliary[0] in _SINGULAR else plural
        verb = self.tokens[words[0]]
        if self.forms[words[0]] == verb.lemma:
            return "plural"
        return "singular" if verb.text.lower().endswith("s") else ""

    def _join(self, phrase: NounPhrase) -> None:
        """Add a noun phrase after "and" or a comma."""
        determined = self.letters[phrase.first] in "DM"
        if self.how and self._starts_clause(phrase, determined):
            others = [] if self.finite else [*self.others, *self.subjects]
            self._begin(phrase)  # "a man on a horse and a woman on a bicycle"
            self.others = others
        elif self.inner and not determined and self.forms[phrase.last : phrase.last + 1] != ["of"]:
            of = next(r for r in reversed(self.relations) if r.obj == self.inner[-1])
            self._add([of.subject], of.words, phrase.head)
            self.inner = [*self.inner, phrase.head]
        elif self.how:
            self._add(self.source, self.how, phrase.head)
            self.latest, self.inner = [*self.latest, phrase.head], []
        else:
            self.subjects = self.latest = self.actors = [*self.latest, phrase.head]
            self.inner = []

    def _starts_clause(self, phrase: NounPhrase, determined: bool) -> bool:
        """Return whether a joined noun phrase begins a clause, by the words after it."""
        i = phrase.last
        if i == len(self.tokens) or self.forms[i] == "of":
            return False
        if self.letters[i] == "P":  # "on it" in "with a plate and a cup on it" does not count
            while i < len(self.tokens) and self.letters[i] == "P":
                i += 1
            bare = i < len(self.tokens) and self.tokens[i].pos == "PRON" and self.letters[i] != "D"
            several = self.takes_object(self.how) or len(self.latest) > 1
            listed = several and not self.has([phrase.head], "animate")
            return determined and not (bare or listed)
        if self.tokens[i].pos == "AUX":
            # In "a man in a hat and a scarf is asleep" it is the verb that the man lacks.
            return self.finite
        if self.letters[i] != "V" or self.finite or not determined:
            return self.letters[i] == "V" and self.finite
        return not (self.is_verb(self.how) or self.has(self.latest, "worn"))
