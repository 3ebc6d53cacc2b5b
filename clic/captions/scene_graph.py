"""A light scene graph of a tagged caption: things, their modifiers, and relations between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clic.captions.lexicon import WORDS
from clic.captions.phrase_reader import PhraseReader, Relation
from clic.captions.phrases import PARTICIPLE, NounPhrase, is_plural, letters_of, phrases_of
from clic.captions.text import fold_tokens
from clic.types import Token

MAX_TOKENS = 256  # no text tower reads more; it also bounds the pairs of long lists

_HAVE = frozenset(("has", "have", "had", "having"))
_ADVERBS = (("side", "by", "side"), ("hand", "in", "hand"))
_MULTIWORD = [*(tuple(entry.split()) for entry in WORDS["phrasal_prepositions"]), *_ADVERBS]
_MULTIWORD.sort(key=len, reverse=True)


@dataclass(frozen=True)
class SceneGraph:
    """The things of a caption, their modifiers and relations, as token numbers.

    Attributes:
        phrases: The noun phrases in their order; each is a thing.
        modifiers: (modifier, head noun) pairs: adjectives, participles and numbers, before the
            noun or after "is". Determiners and the first nouns of compounds do not count.
        relations: (noun, preposition or verb, noun); a verb's preposition belongs to it.
    """

    phrases: tuple[NounPhrase, ...]
    modifiers: tuple[tuple[int, int], ...]
    relations: tuple[Relation, ...]


def scene_graph(tokens: Sequence[Token]) -> SceneGraph:
    """Return the scene graph of a caption.

    A pattern over the tags finds the noun phrases; the words between two of them then relate each
    phrase to an earlier one. There is no parser: small rules decide what a phrase attaches to
    (`PhraseReader`).

    Args:
        tokens: The caption's tokens, with universal POS.
    """
    tokens = fold_tokens(tokens[:MAX_TOKENS])
    letters = list(letters_of(tokens))
    forms = [token.text.lower() for token in tokens]
    _mark_prepositions(tokens, letters, forms)
    _mark_verbs(tokens, letters, forms)
    phrases = phrases_of("".join(letters))
    reader = PhraseReader(tokens, letters, forms)
    position = 0
    for phrase in phrases:
        reader.read(position, phrase)
        position = phrase.last
    reader.predicate(position, len(tokens))
    reader.close(len(tokens))
    inside = [
        (i, phrase.head)
        for phrase in phrases
        for i in range(phrase.first, phrase.head)
        if letters[i] in "AM"
    ]
    modifiers = sorted(inside + reader.predicates)
    return SceneGraph(tuple(phrases), tuple(modifiers), tuple(dict.fromkeys(reader.relations)))


def _mark_verbs(tokens: Sequence[Token], letters: list[str], forms: Sequence[str]) -> None:
    """Mark verbs that were tagged as nouns with V: "a duck swimming in", "two boys dance"."""
    finite = False
    for i in range(1, len(tokens)):
        if letters[i] == "V":
            finite = finite or not forms[i].endswith(PARTICIPLE) or forms[i] == tokens[i].lemma
        if letters[i] != "N" or letters[i - 1] != "N":
            continue
        word, following = forms[i], "".join(letters[i + 1 : i + 2])
        if _is_lone_verb(tokens, letters, i) and not (finite and following == "P"):
            verb = True
        elif not following or following not in "PDMAN":
            continue
        elif word.endswith("ing"):
            verb = tokens[i - 1].lemma in WORDS["animate"]
        else:
            likely = word in WORDS["taken_for_nouns"] or (letters[i + 1] == "D" and not finite)
            verb = likely and _is_plural_subject(tokens, letters, i - 1)
            verb = verb or (word in WORDS["singular_taken_for_nouns"] and not finite)
        if verb:
            letters[i] = "V"


def _is_lone_verb(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether a noun that follows a noun and ends its phrase can only be a verb."""
    following = tokens[i + 1].pos if i + 1 < len(tokens) else "PUNCT"
    if following not in ("ADP", "PUNCT", "CCONJ", "SCONJ", "PRON", "ADV"):
        return False
    before = tokens[i - 1]
    if tokens[i].lemma in WORDS["owned"]:
        return False
    if is_plural(tokens[i]):  # "a crowd of fans cheers"
        listed = i > 1 and letters[i - 2] == "N"
        return is_plural(before) and before.text.lower() not in WORDS["plurals"] and not listed
    if tokens[i].pos == "PROPN" and before.pos == "NOUN" and tokens[i].text.islower():
        return _is_plural_subject(tokens, letters, i - 1)  # "geese waddle past a barn"
    acting = is_plural(before) and before.lemma in WORDS["animate"]
    return acting and not _is_single(tokens, letters, i - 1)  # "two friends film him"


def _is_single(tokens: Sequence[Token], letters: Sequence[str], i: int) -> bool:
    """Return whether the noun phrase around a token begins with "a"."""
    while i and letters[i] in "NAM":
        i -= 1
    return tokens[i].text.lower() in ("a", "an")


def _is_plural_subject(tokens: Sequence[Token], letters: Sequence[str], head: int) -> bool:
    """Return whether a noun is plural, or joined to one before it."""
    first = head
    while first and letters[first - 1] in "NAMDP":
        first -= 1
    joined = first > 1 and letters[first - 2 : first] == ["N", "C"]
    return joined or is_plural(tokens[head]) or is_plural(tokens[_first_head(letters, first)])


def _first_head(letters: Sequence[str], first: int) -> int:
    """Return the first noun that ends a noun phrase: "soldiers" in "soldiers in uniform march"."""
    head = first
    while letters[head] != "N" or (letters[head + 1] == "N" and letters[head] == "N"):
        if letters[head] == "P" or head + 1 == len(letters) - 1:
            break  # a preposition, or the verb itself
        head += 1
    return head


def _mark_prepositions(tokens: Sequence[Token], letters: list[str], forms: Sequence[str]) -> None:
    """Mark prepositions, including those of several words ("in front of"), with P."""
    i = 0
    while i < len(tokens):
        words = next((w for w in _MULTIWORD if list(w) == forms[i : i + len(w)]), ())
        if words:
            letters[i : i + len(words)] = ("R" if words in _ADVERBS else "P") * len(words)
        elif tokens[i].pos == "ADP":
            clause = forms[i] == "as" and i and letters[i - 1] != "V"
            letters[i] = "o" if clause else "P"  # "as they wait", but "dressed as a pirate"
        elif forms[i] == "can" and _is_metal(tokens, i):
            letters[i] = "N"
        elif letters[i] == "o" and (tokens[i].pos == "VERB" or _has_object(tokens, i)):
            letters[i] = "V"
        elif letters[i] == "A" and forms[i].endswith("ing") and i and tokens[i - 1].pos == "AUX":
            letters[i] = "V"  # "is skateboarding"
        i += len(words) or 1


def _is_metal(tokens: Sequence[Token], i: int) -> bool:
    """Return whether "can" is a noun: no verb follows it."""
    return i + 1 == len(tokens) or tokens[i + 1].pos in ("ADP", "PUNCT", "CCONJ", "NOUN", "DET")


def _has_object(tokens: Sequence[Token], i: int) -> bool:
    """Return whether a form of "have" that was tagged as an auxiliary has an object."""
    if tokens[i].pos != "AUX" or tokens[i].text.lower() not in _HAVE:
        return False
    following = tokens[i + 1 : i + 3]
    return bool(following) and not any(t.pos in ("VERB", "AUX", "PART") for t in following)
