"""What a noun phrase of a caption belongs to: small rules in the place of a parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from clic.captions.phrases import NounPhrase
from clic.captions.words import (
    ANIMATE,
    GOALS,
    HELD_IN,
    INTO_OBJECT,
    MEASURES,
    NEIGHBOURS,
    OF_THE_ACT,
    PARTICLES,
    PICTURE_NOUNS,
    PLACING,
    RELATIVE,
    RIDDEN,
    TAKEN_UP,
    TIMES,
    TOOLS,
    WORN,
)
from clic.types import Token

_PARTICIPLES = frozenset(("made", "held", "built", "hung", "kept", "set", "cut", "caught", "left"))
_STOPS = frozenset((".", "!", "?", ";"))


class Relation(NamedTuple):
    """`subject` and `obj` are the head nouns' tokens, `words` those that relate them."""

    subject: int
    words: tuple[int, ...]
    obj: int


@dataclass
class Reader:
    """Reads a caption from left to right, one noun phrase after another.

    Attributes:
        tokens: The caption.
        letters: Their kinds.
        subjects: Heads of the clause's subject, several where "and" joins them.
        latest: Heads of the latest noun phrase and of those that it is joined to.
        inner: Heads behind an "of" of the latest.
        how: The relation words that led to `latest`, none where it is the subject.
        source: What those relate it to.
        actors: Whose act the latest verb is.
        fronted: The preposition that the sentence begins with.
        finite: Whether the subject has its verb, "sits" or "is sitting".
    """

    tokens: Sequence[Token]
    letters: list[str]
    relations: list[Relation] = field(default_factory=list)
    predicates: list[tuple[int, int]] = field(default_factory=list)
    subjects: list[int] = field(default_factory=list)
    latest: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    how: tuple[int, ...] = ()
    source: list[int] = field(default_factory=list)
    actors: list[int] = field(default_factory=list)
    fronted: tuple[int, ...] = ()
    finite: bool = False

    def read(self, start: int, phrase: NounPhrase) -> None:
        """Relate a noun phrase to what was read, by the tokens from `start` to it."""
        self.predicate(start, phrase.first)
        gap = range(start, phrase.first)
        pronoun = [i for i in gap if self.tokens[i].pos == "PRON" and not self._is_relative(i)]
        if pronoun:
            gap = range(pronoun[-1] + 1, phrase.first)
        words = self._relating(gap)
        if not self.latest or any(self.tokens[i].text in _STOPS for i in gap):
            self._begin(phrase)
            self.fronted = words if words and self.letters[words[0]] == "P" else ()
        elif self.fronted and any(self.letters[i] == "K" for i in gap):
            self._follow_fronted(phrase)
        elif words and not (pronoun and self.letters[words[0]] == "V"):
            self._relate(phrase, words, range(gap[0], words[0]))
        elif gap and not (words or pronoun) and all(self.letters[i] in "CKR" for i in gap):
            self._join(phrase)
        else:
            self._begin(phrase)  # of a clause of its own: "as he rides a horse"

    def predicate(self, start: int, end: int) -> None:
        """Note adjectives behind "is" ("the dog is big and brown") and in "a truck full of hay"."""
        if start + 1 < end and self.letters[start : start + 2] == ["A", "P"]:
            self.predicates += [(start, head) for head in self._focus()]
        seen = False
        for i in range(start, end):
            if self.tokens[i].pos == "AUX":
                seen = True
            elif seen and self.letters[i] == "A":
                that = any(self._is_relative(k) for k in range(start, i))
                self.predicates += [(i, h) for h in (self._focus() if that else self.subjects)]
            elif self.letters[i] not in "RCK" and self.tokens[i].pos != "PART":
                seen = False

    def _begin(self, phrase: NounPhrase) -> None:
        self.subjects = self.latest = self.actors = [phrase.head]
        self.how, self.source, self.inner, self.fronted = (), [], [], ()
        self.finite = False

    def _follow_fronted(self, phrase: NounPhrase) -> None:
        """Begin with what a phrase in front says the place of: "in a room, a man sleeps"."""
        place, words = self.subjects, self.fronted
        self._begin(phrase)
        for head in place:
            self._add([phrase.head], words, head)

    def _relating(self, gap: Sequence[int]) -> tuple[int, ...]:
        """Return the words that relate: from the last verb on, or the last prepositions."""
        words: list[int] = []
        for i in gap:
            kind = self.letters[i]
            if kind == "V":
                words = [i]
            elif kind == "P":
                words.append(i)
            elif words and (kind in "DMA" or (kind in "CK" and self.letters[words[0]] != "V")):
                words = []
        return tuple(words)

    def _relate(self, phrase: NounPhrase, words: tuple[int, ...], before: Sequence[int]) -> None:
        head = phrase.head
        if len(words) == 1 and self._form(words[0]) == "of":
            self._add_inner(words, head)
            return
        if self.letters[words[0]] == "V":
            self.source = self.actors = self._actors(words, before)
        else:
            self.source, words = self._attached(words, before, phrase)
        self.how = words
        self._add(self.source, words, head)
        self.latest, self.inner = [head], []
        if self._has(self.source, PICTURE_NOUNS):
            self._begin(phrase)  # "the image shows a dog": it is about the dog from here on

    def _add(self, sources: Sequence[int], words: tuple[int, ...], head: int) -> None:
        self.relations += [Relation(source, words, head) for source in sources]

    def _add_inner(self, words: tuple[int, ...], head: int) -> None:
        """Take in the noun behind an "of"."""
        owner = (self.inner or self.latest)[-1:]
        self._add(owner, words, head)
        if self._has(owner, PICTURE_NOUNS):
            self.subjects = self.latest = self.actors = [head]
        else:
            self.inner = [head]

    def _focus(self) -> list[int]:
        """Return what the next words are about: a plate of food, but the door of a car."""
        measured = not self.inner or self._has(self.latest[-1:], MEASURES)
        return self.latest if measured else self.inner

    def _actors(self, words: tuple[int, ...], before: Sequence[int]) -> list[int]:
        """Return whose verb it is."""
        verb, form, focus = self.tokens[words[0]], self._form(words[0]), self._focus()
        relative = [self._form(i) for i in before if self._is_relative(i)]
        if relative:
            person = relative[-1] == "who" and self._has(self.subjects, ANIMATE)
            return self.subjects if person and not self._has(focus, ANIMATE) else focus
        if any(self.letters[i] in "CK" or self.tokens[i].pos == "SCONJ" for i in before):
            return self.actors or self.subjects
        seen = bool(self.how) and self._is_verb(self.how) and form == verb.lemma
        if seen and self._has(focus, ANIMATE):
            return focus  # "they watch a man throw a ball"
        participle = form.endswith(("ing", "ed", "en")) or form in _PARTICIPLES
        if not participle or any(self.tokens[i].pos == "AUX" for i in before):
            self.finite = True
            return self.subjects
        if self.how and self._has(self.latest, WORN):
            return self.subjects
        if not self.how or not form.endswith("ing") or self._has(focus, ANIMATE):
            return focus
        return self.subjects if self._has(self.subjects, ANIMATE) else focus

    def _attached(
        self, words: tuple[int, ...], before: Sequence[int], phrase: NounPhrase
    ) -> tuple[list[int], tuple[int, ...]]:
        """Return what a preposition says the place of, and the words for it.

        An act without an object keeps its verb: glasses "stand on" a counter.
        """
        preposition, focus = " ".join(map(self._form, words)), self._focus()
        if any(self.tokens[i].pos == "AUX" for i in before):
            self.finite = True
            return self.subjects, words
        if not self.how:
            return focus, words
        if any(self.letters[i] in "CK" for i in before):
            return self.source, words
        act = self._is_verb(self.how)
        direct = self._has_object()
        verb = self.how[:1] if act and not direct else ()
        own = self.tokens[phrase.first].pos == "PRON"  # "a phone to her ear"
        if direct and (
            own or (preposition in ("in", "under") and self._has([phrase.head], HELD_IN))
        ):
            return focus, words
        if self._is_of_the_act(preposition, phrase):
            return self.subjects, words
        if self._has([phrase.head], TIMES):
            return self.actors, verb + words
        if direct:
            placed = preposition == "on" and self.tokens[self.how[0]].lemma in PLACING
            low = placed or preposition in INTO_OBJECT or preposition in OF_THE_ACT
            return (focus if low else self.source), words
        if self._has(self.latest, WORN) or (act and self._form(self.how[-1]) in ("with", "by")):
            return self.source, words
        if act and preposition in GOALS:
            return self.source, words  # "rolls down the street towards a tunnel"
        near = " ".join(self._form(i) for i in self.how if self.letters[i] == "P") in NEIGHBOURS
        if near and preposition in ("in", "on", "at"):
            return self.source, verb + words
        return focus, words

    def _is_of_the_act(self, preposition: str, phrase: NounPhrase) -> bool:
        """Return whether a preposition says which way, by whom or with what one acts."""
        animate, direct = self._has(self.subjects, ANIMATE), self._has_object()
        if preposition == "by" and self._is_verb(self.how) and not direct:
            return self._has([phrase.head], ANIMATE)
        if preposition in OF_THE_ACT:
            return animate or not direct
        tool = preposition == "with" and self._has([phrase.head], TOOLS)
        ridden = preposition == "on" and self._has([phrase.head], RIDDEN)
        return animate and (ridden or (tool and self._is_verb(self.how)))

    def _join(self, phrase: NounPhrase) -> None:
        """Take in a noun phrase behind "and" or a comma."""
        determined = self.letters[phrase.first] in "DM"
        if self.how and self._starts_clause(phrase, determined):
            self._begin(phrase)  # "a man on a horse and a woman on a bicycle"
        elif self.inner and not determined:
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
        """Return whether a joined noun phrase has words of its own behind it."""
        i = phrase.last
        if i == len(self.tokens) or self._form(i) == "of":
            return False
        if self.letters[i] == "P":  # in "with a plate and a cup on it" it has none
            while i < len(self.tokens) and self.letters[i] == "P":
                i += 1
            bare = i < len(self.tokens) and self.tokens[i].pos == "PRON" and self.letters[i] != "D"
            return determined and not bare
        if self.tokens[i].pos == "AUX":
            # "a man in a hat and a scarf is asleep": the verb that the subject still lacks
            return self.finite
        if self.letters[i] != "V" or self.finite or not determined:
            return self.letters[i] == "V" and self.finite
        return not (self._is_verb(self.how) or self._has(self.latest, WORN))

    def _is_relative(self, i: int) -> bool:
        return self._form(i) in RELATIVE

    def _is_verb(self, words: Sequence[int]) -> bool:
        return bool(words) and self.letters[words[0]] == "V"

    def _has_object(self) -> bool:
        """Return whether the latest verb took its noun without a preposition."""
        if not self._is_verb(self.how):
            return False
        taken = self.tokens[self.how[0]].lemma in TAKEN_UP and self._form(self.how[-1]) in PARTICLES
        return len(self.how) == 1 or (len(self.how) == 2 and taken)

    def _form(self, i: int) -> str:
        return self.tokens[i].text.lower()

    def _has(self, heads: Sequence[int], words: frozenset[str]) -> bool:
        return any(self.tokens[head].lemma.lower() in words for head in heads)
