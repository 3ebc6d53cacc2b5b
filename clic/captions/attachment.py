"""Attaches prepositional phrases to nouns and verbs, by small rules instead of a parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clic.captions.lexicon import WORDS
from clic.captions.phrases import PARTICIPLE, NounPhrase
from clic.types import Token

_WEARING = frozenset(("in", "with"))
_RELATIVE = frozenset(("that", "which", "who", "whom"))


@dataclass
class Clause:
    """The part of a clause that has been read.

    Attributes:
        tokens: The caption's tokens.
        letters: The kind of each token, as `letters_of` gives them, with P and V for prepositions
            and verbs.
        forms: The text of each token in lower case.
        subjects: Heads of the clause's subject, several if "and" joins them.
        latest: Heads of the latest noun phrase and of those that it is joined to.
        inner: Heads after an "of" that follows the latest.
        how: The words that relate `latest` to `source`, empty if it is the subject.
        source: The heads that `latest` is related to.
        verb: The words of the latest relation that has a verb.
        actors: The heads that do what `verb` says.
        finite: Whether the subject has its finite verb, "sits" or "is sitting".
    """

    tokens: Sequence[Token]
    letters: list[str]
    forms: list[str]
    subjects: list[int] = field(default_factory=list)
    latest: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    how: tuple[int, ...] = ()
    source: list[int] = field(default_factory=list)
    verb: tuple[int, ...] = ()
    actors: list[int] = field(default_factory=list)
    finite: bool = False

    def has(self, heads: Sequence[int], *lists: str) -> bool:
        """Return whether one of the heads is in one of the lists of `WORDS`."""
        return any(self.tokens[head].lemma in WORDS[name] for head in heads for name in lists)

    def is_relative(self, i: int) -> bool:
        """Return whether a token may begin a relative clause."""
        return self.forms[i] in _RELATIVE

    def is_verb(self, words: Sequence[int]) -> bool:
        """Return whether relation words begin with a verb."""
        return bool(words) and self.letters[words[0]] == "V"

    def takes_object(self, words: Sequence[int]) -> bool:
        """Return whether relation words are a verb with a direct object."""
        if not self.is_verb(words):
            return False
        if len(words) != 2 or self.forms[words[1]] not in WORDS["particles"]:
            return len(words) == 1
        return self.tokens[words[0]].lemma in WORDS["taken_up"]  # "picks up"

    def is_participle(self, i: int) -> bool:
        """Return whether a verb's form may be a participle."""
        # The ending alone does not make "feed" or "sing" a participle.
        regular = self.forms[i].endswith(PARTICIPLE) and self.forms[i] != self.tokens[i].lemma
        return regular or self.forms[i] in WORDS["irregular_participles"]

    def ends_passive(self, i: int) -> bool:
        """Return whether a participle ends its clause like an adjective: "the door is closed"."""
        if self.letters[i] != "V" or not self.is_participle(i) or self.forms[i].endswith("ing"):
            return False
        return i + 1 == len(self.tokens) or self.tokens[i + 1].pos in ("PUNCT", "CCONJ")

    def act(self) -> tuple[int, ...]:
        """Return the verb that a further preposition belongs to, empty if it has an object.

        Glasses "stand on" a counter; a man who carries a box through a door is "through" it.
        """
        if not self.verb or self.takes_object(self.verb):
            return ()
        rest = [self.forms[i] for i in self.verb[1:]]
        particle = len(rest) == 2 and rest[0] in WORDS["particles"]
        if particle and " ".join(rest) not in WORDS["phrasal_prepositions"]:
            return self.verb[:2]  # "falls down on the ice after a collision"
        return self.verb[:1]

    def focus(self) -> list[int]:
        """Return what the next words describe: "plate" of food, but the door of a "car"."""
        measured = not self.inner or self.has(self.latest[-1:], "measures")
        return self.latest if measured else self.inner


def attach(
    clause: Clause, words: tuple[int, ...], before: Sequence[int], phrase: NounPhrase
) -> tuple[list[int], tuple[int, ...]]:
    """Return the heads that a prepositional phrase attaches to, and the words of that relation.

    Args:
        clause: What was read before it.
        words: The preposition, or an adjective and its "of".
        before: Tokens between the latest noun phrase and the preposition.
        phrase: The noun phrase after the preposition.
    """
    preposition = " ".join(map(clause.forms.__getitem__, words))
    if any(clause.tokens[i].pos == "AUX" for i in before):
        clause.finite = True
        return clause.subjects, words
    if not clause.how or clause.letters[words[0]] == "A":
        return clause.focus(), words
    if any(clause.letters[i] in "CK" for i in before):
        return clause.source, words
    worn = preposition in _WEARING and clause.has([phrase.head], "worn")
    if worn and clause.has(clause.latest, "animate"):
        return clause.focus(), words  # "walked by a woman in a coat"
    if _is_of_actors(clause, preposition, phrase):
        people = clause.has(clause.actors, "animate") or not clause.has(clause.subjects, "animate")
        return (clause.actors, clause.act() + words) if people else (clause.subjects, words)
    if clause.takes_object(clause.how):
        low = _is_of_object(clause, preposition, phrase)
        return (clause.focus() if low else clause.source), words
    if clause.has(clause.latest, "worn"):
        return clause.source, words
    if preposition in WORDS["goals"] and clause.forms[clause.how[-1]] == "from":
        return clause.source, words  # "pours milk from a jug into a glass"
    if clause.is_verb(clause.how):
        last = clause.forms[clause.how[-1]]
        passive = not (clause.finite or clause.forms[clause.how[0]].endswith("ing"))
        if last == "with" and clause.tokens[phrase.first].pos == "PRON":
            return clause.focus(), words  # "with a cat on his lap"
        if passive and last in ("with", "by"):
            return clause.source, words
        if last == "with":
            return clause.source, clause.act() + words
        if _is_of_act(clause, preposition, phrase):
            return clause.source, clause.act() + words
    led = " ".join(clause.forms[i] for i in clause.how if clause.letters[i] == "P")
    ridden = clause.has(clause.latest, "animate") and clause.has([phrase.head], "ridden")
    if led in WORDS["neighbours"] and preposition in ("in", "on", "at") and not ridden:
        return clause.source, clause.act() + words
    return clause.focus(), words


def _is_of_actors(clause: Clause, preposition: str, phrase: NounPhrase) -> bool:
    """Return whether a preposition says when, where to, by whom or with what someone acts."""
    head = [phrase.head]
    animate, direct = clause.has(clause.subjects, "animate"), clause.takes_object(clause.how)
    own = clause.tokens[phrase.first].pos == "PRON"
    placed = bool(clause.verb) and clause.tokens[clause.verb[0]].lemma in WORDS["placing"]
    if clause.has(head, "times"):
        return True
    if own and direct and preposition != "with" and not clause.has(head, "animate", "tools"):
        return False  # "a phone to her ear"
    if preposition in ("in", "under") and direct and clause.has(head, "held_in"):
        return False
    if preposition == "by" and clause.is_verb(clause.how) and not direct:
        passive = clause.finite and clause.forms[clause.how[0]].endswith(("ed", "en"))
        done = passive and clause.tokens[clause.how[0]].lemma not in WORDS["postures"]
        return done or clause.has(head, "animate")
    if preposition in WORDS["of_the_act"]:
        return animate or not direct
    if preposition == "for" and clause.takes_object(clause.verb) and clause.has(head, "animate"):
        return clause.forms[clause.how[-1]] in WORDS["goals"]  # "pours tea into a cup for a guest"
    if preposition == "with" and clause.verb:
        return _is_means(clause, phrase, own)
    ridden = preposition == "on" and clause.has(head, "ridden") and not placed
    return animate and ridden and not clause.has(clause.latest, "animate")


def _is_means(clause: Clause, phrase: NounPhrase, own: bool) -> bool:
    """Return whether "with" introduces a tool, or someone who acts along."""
    head, direct = [phrase.head], clause.takes_object(clause.verb)
    verb = clause.tokens[clause.verb[0]].lemma
    animate = clause.has(clause.subjects, "animate")
    if clause.has(head, "animate"):
        return own or (animate and not clause.has(clause.latest, "animate"))
    gesture = clause.is_verb(clause.how) and not direct and not clause.has(clause.latest, "animate")
    if (own or (animate and gesture)) and clause.has(head, "worn"):
        return True  # "crosses the street with her arms raised"
    if clause.has(head, "tools"):
        return (animate or direct) and verb not in WORDS["keeping"]
    return clause.takes_object(clause.how) and verb in WORDS["worked_with"]


def _is_of_object(clause: Clause, preposition: str, phrase: NounPhrase) -> bool:
    """Return whether a preposition describes the object of a verb, not its subject."""
    verb = clause.tokens[clause.how[0]].lemma
    if verb in WORDS["watching"]:
        return preposition != "from"
    if verb in WORDS["surrounding"]:
        return True
    if preposition == "over" and verb in WORDS["riding"]:
        return False
    if preposition in ("in", "under") and clause.has([phrase.head], "held_in"):
        return True
    if preposition in ("in", "on", "inside") and clause.has([phrase.head], "surfaces"):
        return True
    own = clause.tokens[phrase.first].pos == "PRON"
    if (preposition == "on" and verb in WORDS["placing"]) or (
        preposition == "at" and verb in WORDS["aiming"]
    ):
        return True
    return own or preposition in WORDS["into_object"] | WORDS["of_the_act"]


def _is_of_act(clause: Clause, preposition: str, phrase: NounPhrase) -> bool:
    """Return whether a second preposition after an intransitive verb belongs to the verb, too."""
    if preposition in WORDS["goals"] or preposition == "without":
        return True  # "rolls down the street towards a tunnel"
    if preposition in ("in", "on") and clause.has(clause.latest, "tools"):
        return True  # "sings into a microphone on a stage"
    if preposition == "in front of":
        return clause.has([phrase.head], "animate")
    return preposition == "at" and not clause.has(clause.latest, "animate")
