"""True paraphrases of one caption by rules: other words, another order, the other voice.

To distinguish a caption from the same words in a false order, a model needs positives that are
reordered and reworded too; otherwise it learns that any other order is false. The rules keep the
meaning, and each avoids the cases in which it might not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from clic.captions.composites import bag_of_words
from clic.captions.inflection import gerund, past_participle, third_person
from clic.captions.lexicon import ARTICLES, WORDS, Lexicon, default_lexicon
from clic.captions.phrases import NounPhrase, is_plural, noun_phrases
from clic.captions.text import fold_tokens, indefinite_article
from clic.types import Token

_FRONTED, _PLURAL_OPENERS = WORDS["fronted_prepositions"], WORDS["plural_openers"]
_PREDICATES = WORDS["predicate_adjectives"] | WORDS["colours"]
_JOINTS = ("while", "as", "whilst")
_NEVER_REWORDED = ("be", "have", "do")

MAX_TOKENS = 48  # a caption, not a paragraph: rules look at the whole sentence
MAX_RULES = 3  # applied to one caption in a row

# Symmetric relations, and pairs of converse ones. ("By" is left out: "a car by a man" may have
# been drawn by him.)
_SYMMETRIC = ("next to", "beside", "near", "alongside", "close to", "adjacent to")
_CONVERSE = {
    "in front of": "behind", "behind": "in front of", "above": "below", "below": "above",
    "on top of": "underneath", "underneath": "on top of", "over": "under", "under": "over",
    "left of": "right of", "right of": "left of",
    "to the left of": "to the right of", "to the right of": "to the left of",
}  # fmt: skip
_RELATIONS = {**{each: each for each in _SYMMETRIC}, **_CONVERSE}
_BE = {"is": False, "are": True}
# Closed-class rewordings; open classes have their synonyms in the lexicon.
_REWORDED = {
    "next to": ("beside", "alongside"), "beside": ("next to",), "near": ("close to",),
    "close to": ("near",), "on top of": ("atop",), "atop": ("on top of",), "onto": ("on to",),
    "in front of": ("before",), "underneath": ("beneath", "under"), "beneath": ("under",),
    "while": ("as",), "as": ("while",), "wearing": ("dressed in",), "dressed in": ("wearing",),
    "sitting": ("seated",), "a couple of": ("two",), "two": ("a pair of",),
    "a group of": ("several",), "toward": ("towards",), "towards": ("toward",),
}  # fmt: skip

Words = list[Token]


class _Caption(NamedTuple):
    """A caption between two rules."""

    tokens: Words
    phrases: list[NounPhrase]
    lexicon: Lexicon
    rng: np.random.Generator

    def words(self, first: int = 0, last: int | None = None) -> list[str]:
        return [token.text for token in self.tokens[first:last]]

    def end(self) -> int:
        """Return the number of tokens before the final period."""
        n = len(self.tokens)
        return n - 1 if n and self.tokens[-1].text in (".", "!") else n

    def starts_at(self, first: int) -> NounPhrase | None:
        """Return the noun phrase that starts at a token."""
        return next((phrase for phrase in self.phrases if phrase.first == first), None)

    def plural(self, phrase: NounPhrase) -> bool:
        return (
            is_plural(self.tokens[phrase.head]) or self.tokens[phrase.first].text in _PLURAL_OPENERS
        )


_AFTER_SUBJECT = frozenset(("VERB", "AUX", "ADP", "PUNCT"))
_NOMINAL_PARTS = frozenset(("DET", "ADJ", "NOUN", "PROPN", "NUM", "ADP", "CCONJ"))


def paraphrase(
    caption: str,
    tokens: Sequence[Token],
    rng: np.random.Generator,
    lexicon: Lexicon | None = None,
) -> str | None:
    """Reword a caption, in another order and other words with the same meaning.

    Up to `MAX_RULES` rules are applied in a row: parts around "and" or "while" change places, a
    place moves to the front, a relation is stated from its other side, the active voice becomes
    the passive, an adjective becomes a relative clause, and synonyms replace words. Each rule is
    drawn at random, then the place where it applies.

    Args:
        caption: A true caption of one sentence.
        tokens: Its tokens.
        rng: Draws the rules.
        lexicon: Knows synonyms and kinds of things, by default clic's own.

    Returns:
        The paraphrase in lower case, or None if no rule applies.
    """
    if not tokens or len(tokens) > MAX_TOKENS:
        return None
    lexicon = lexicon or default_lexicon()
    current = [_plain(t.text.lower(), t.pos, t.lemma) for t in fold_tokens(tokens)]
    original = _text(current)
    left = list(_RULES)
    applied = 0
    while left and applied < MAX_RULES:
        rule = left.pop(int(rng.integers(len(left))))
        known = _Caption(current, noun_phrases(current), lexicon, rng)
        found = list(rule(known))
        if found:
            current = found[int(rng.integers(len(found)))]
            applied += 1
    text = _text(current)
    return text if text != original else None


def nearest_caption(caption: str, others: Sequence[str], least: float = 0.3) -> str | None:
    """Return the caption of the same image that shares the most words with the given one.

    Two captions of an image often describe different things; those that share many words mostly
    say the same, and are then paraphrases that no rule would have made.

    Args:
        caption: One of the image's captions.
        others: The others.
        least: Smallest share of common words among all words of the two (Jaccard index).

    Returns:
        The nearest of them, or None if none is near enough or all have the same words.
    """
    own = bag_of_words(caption)
    shares = {}
    for other in others:
        words = bag_of_words(other)
        share = len(own & words) / max(1, len(own | words))
        if least <= share < 1:
            shares[other] = share
    return max(shares, key=shares.__getitem__) if shares else None


def _plain(text: str, pos: str, lemma: str | None = None) -> Token:
    return Token(text, 0, 0, pos, lemma or text)


def _fixed(text: str, pos: str = "ADP") -> Words:
    """Return the words of an inserted text, all with one tag."""
    return [_plain(word, pos) for word in text.split()]


def _text(tokens: Sequence[Token]) -> str:
    """Join words into a caption, with "a" or "an" to fit the next word."""
    parts: list[str] = []
    for i, token in enumerate(tokens):
        word = token.text
        if word in ("a", "an") and token.pos == "DET" and i + 1 < len(tokens):
            word = indefinite_article(tokens[i + 1].text)
        glued = word in (".", ",", "!", "?", ";", ":") or (token.pos == "PART" and "'" in word)
        parts.append(word if glued or not parts else " " + word)
    return "".join(parts)


def _conjuncts(caption: _Caption) -> Iterator[Words]:
    """ "A and B" becomes "B and A" if both are things of one kind, or open the sentence."""
    tokens = caption.tokens
    for one, two in pairwise(caption.phrases):
        if two.first != one.last + 1 or tokens[one.last].text != "and":
            continue
        kinds = [caption.lexicon.thing(tokens[p.head].text).kind for p in (one, two)]
        opened = [tokens[p.first].pos in ("DET", "NUM") for p in (one, two)]
        opens = one.first == 0 and two.last < len(tokens) and tokens[two.last].pos in _AFTER_SUBJECT
        if opened[0] == opened[1] and (opens or (kinds[0] and kinds[0] == kinds[1])):
            yield _exchange(tokens, (one.first, one.last), (two.first, two.last))


def _listed_adjectives(caption: _Caption) -> Iterator[Words]:
    """ "Black and white" becomes "white and black"."""
    tokens = caption.tokens
    for i in range(1, len(tokens) - 1):
        if tokens[i].text == "and" and tokens[i - 1].pos == tokens[i + 1].pos == "ADJ":
            yield _exchange(tokens, (i - 1, i), (i + 1, i + 2))


def _clauses(caption: _Caption) -> Iterator[Words]:
    """ "A does this while B does that" becomes "while B does that, A does this"."""
    tokens, end = caption.tokens, caption.end()
    for i in range(2, end - 2):
        joint = tokens[i].text
        if joint not in _JOINTS and joint != "and":
            continue
        first, second = caption.starts_at(0), caption.starts_at(i + 1)
        if second is None or second.last >= end or first is None or first.last >= i:
            continue
        before, after = tokens[:i], tokens[i + 1 : end]
        if before[-1].text == ",":
            before = before[:-1]
        acts = [sum(t.pos == "VERB" for t in part) for part in (before, after)]
        if not all(acts) or tokens[second.last].pos not in ("VERB", "AUX"):
            continue
        if joint == "and":
            animate = tokens[second.head].text in caption.lexicon.classes["animate"]
            if animate and acts == [1, 1] and tokens[first.last].pos in ("VERB", "AUX"):
                yield [*after, tokens[i], *before, *tokens[end:]]
        else:
            yield [tokens[i], *after, *_fixed(",", "PUNCT"), *before, *tokens[end:]]


def _fronted(caption: _Caption) -> Iterator[Words]:
    """ "A dog runs in the snow" becomes "in the snow, a dog runs"."""
    tokens, end = caption.tokens, caption.end()
    last = next((p for p in caption.phrases if p.last == end), None)
    if last is None or last.first < 3:
        return
    start = last.first - 1
    place = caption.lexicon.thing(tokens[last.head].text).place
    before = tokens[start - 1].pos
    if tokens[start].text in _FRONTED and (place or before == "VERB") and before != "ADP":
        rest = tokens[:start]
        if all(token.text not in ("and", ",", "while") for token in rest):
            yield [*tokens[start:end], *_fixed(",", "PUNCT"), *rest, *tokens[end:]]


def _other_side(caption: _Caption) -> Iterator[Words]:
    """ "A dog next to a cat" becomes "a cat next to a dog"; "in front of" becomes "behind"."""
    tokens, end = caption.tokens, caption.end()
    first = caption.starts_at(0)
    last = next((p for p in caption.phrases if p.last == end), None)
    if first is None or last is None or first == last:
        return
    middle = caption.words(first.last, last.first)
    be = middle[:1] if middle and middle[0] in _BE else []
    middle = middle[len(be) :]
    if middle and tokens[first.last + len(be)].lemma in WORDS["postures"]:
        middle = middle[1:]
    other = _RELATIONS.get(" ".join(middle))
    if other is not None and caption.lexicon.thing(tokens[last.head].text).place is False:
        copula = [_plain("are" if caption.plural(last) else "is", "AUX", "be")] if be else []
        head, tail = tokens[last.first : end], tokens[: first.last]
        yield [*head, *copula, *_fixed(other), *tail, *tokens[end:]]


def _passive(caption: _Caption) -> Iterator[Words]:
    """ "A dog chases a cat" becomes "a cat is chased by a dog"."""
    tokens, end = caption.tokens, caption.end()
    verbs = [i for i in range(1, end) if tokens[i].pos == "VERB"]
    if len(verbs) != 1 or caption.starts_at(0) is None:
        return
    verb = verbs[0]
    participle, what = past_participle(tokens[verb].lemma), caption.starts_at(verb + 1)
    if participle is None or what is None or tokens[what.first].pos == "PRON":
        return
    if any(token.text in ("and", ",", "while", "that", "who") for token in tokens[:end]):
        return
    who = tokens[: verb - 1] if tokens[verb - 1].text in _BE else tokens[:verb]
    if any(token.pos not in _NOMINAL_PARTS for token in who):
        return
    if what.last < end and tokens[what.last].text in ("of", "to"):
        return
    going_on = tokens[verb].text.endswith("ing")
    plural, stated = caption.plural(what), len(who) != verb or not going_on
    act = [_plain("are" if plural else "is", "AUX", "be")] if stated else []
    act += _fixed("being", "AUX") if going_on else []
    act += [_plain(participle, "VERB", tokens[verb].lemma), *_fixed("by")]
    yield [*tokens[what.first : what.last], *act, *who, *tokens[what.last :]]


def _relative(caption: _Caption) -> Iterator[Words]:
    """ "A red ball" becomes "a ball that is red"."""
    tokens = caption.tokens
    for phrase in caption.phrases:
        if phrase.last - phrase.first != 3 or tokens[phrase.first].text not in ARTICLES:
            continue
        article, adjective, noun = tokens[phrase.first : phrase.last]
        if adjective.text not in _PREDICATES:
            continue
        following = tokens[phrase.last].text if phrase.last < len(tokens) else "."
        if adjective.pos == "ADJ" and following not in ("of", "'s"):
            clause = [*_fixed("that", "PRON"), _plain("is", "AUX", "be"), adjective]
            yield [*tokens[: phrase.first], article, noun, *clause, *tokens[phrase.last :]]


def _tense(caption: _Caption) -> Iterator[Words]:
    """ "A dog is running", "a dog runs", "a dog running" and "there is a dog running"."""
    tokens, first = caption.tokens, caption.starts_at(0)
    if first is None or first.last + 1 >= caption.end():
        return
    plural, i = caption.plural(first), first.last
    there = tokens[0].text != "the" and all(t.pos != "AUX" for t in tokens[i + 1 :])
    be = _plain("are" if plural else "is", "AUX", "be")
    verb = tokens[i]
    if verb.text in _BE and tokens[i + 1].pos == "VERB" and tokens[i + 1].text.endswith("ing"):
        verb = tokens[i + 1]
        simple = verb.lemma if plural else third_person(verb.lemma)
        yield [*tokens[:i], _plain(simple, "VERB", verb.lemma), *tokens[i + 2 :]]
        if there:
            yield [*_fixed("there", "PRON"), be, *tokens[:i], *tokens[i + 1 :]]
    elif verb.pos == "VERB" and verb.text.endswith("ing"):
        if there:
            yield [*tokens[:i], be, *tokens[i:]]
            yield [*_fixed("there", "PRON"), be, *tokens]
    elif verb.pos == "VERB" and verb.text in (verb.lemma, third_person(verb.lemma)):
        act = _plain(gerund(verb.lemma), "VERB", verb.lemma)
        yield [*tokens[:i], be, act, *tokens[i + 1 :]]
        if there:
            yield [*_fixed("there", "PRON"), be, *tokens[:i], act, *tokens[i + 1 :]]


def _clothes(caption: _Caption) -> Iterator[Words]:
    """ "A man in a red hat" becomes "a man wearing a red hat", and the other way round."""
    tokens = caption.tokens
    for phrase in caption.phrases:
        i = phrase.first - 1
        if i < 1 or caption.lexicon.thing(tokens[phrase.head].text).kind != "kinds-clothes":
            continue
        if tokens[i].text == "in" and tokens[i - 1].pos == "NOUN":
            yield [*tokens[:i], _plain("wearing", "VERB", "wear"), *tokens[i + 1 :]]
        elif tokens[i].text == "wearing" and tokens[i - 1].pos == "NOUN":
            yield [*tokens[:i], *_fixed("in"), *tokens[i + 1 :]]


def _synonyms(caption: _Caption) -> Iterator[Words]:
    """Each word or phrase that has synonyms becomes one of them with probability 1/2."""
    tokens = list(caption.tokens)
    for size in (3, 2, 1):
        for i in range(len(tokens) - size + 1):
            others = _REWORDED.get(" ".join(token.text for token in tokens[i : i + size]), ())
            if others and caption.rng.random() < 0.5:
                other = others[int(caption.rng.integers(len(others)))]
                tokens[i : i + size] = _fixed(other, tokens[i].pos)
    for i, token in enumerate(tokens):
        if token.pos not in ("NOUN", "ADJ", "VERB") or token.text in WORDS["colours"]:
            continue
        if token.lemma in _NEVER_REWORDED or _in_name(tokens, i):
            continue
        if len(caption.lexicon.single.get(token.text, ())) != 1:
            continue  # a word of several senses: "catch" a ball, a bus
        synonyms = sorted(caption.lexicon.synonyms(token.text, token.pos) - {token.text})
        if synonyms and caption.rng.random() < 0.5:
            other = synonyms[int(caption.rng.integers(len(synonyms)))]
            tokens[i : i + 1] = _fixed(other, token.pos)
    if tokens != caption.tokens:
        yield tokens


def _in_name(tokens: Sequence[Token], i: int) -> bool:
    """Return whether a noun is part of a compound ("dog house"), which no synonym fits."""
    beside = [tokens[j].pos for j in (i - 1, i + 1) if 0 <= j < len(tokens)]
    return tokens[i].pos == "NOUN" and "NOUN" in beside


def _exchange(tokens: Words, one: tuple[int, int], two: tuple[int, int]) -> Words:
    """Return the tokens with two ranges exchanged, of which the first comes before the second."""
    (a, b), (c, d) = one, two
    return [*tokens[:a], *tokens[c:d], *tokens[b:c], *tokens[a:b], *tokens[d:]]


_RULES: tuple[Callable[[_Caption], Iterator[Words]], ...] = (
    _conjuncts,
    _listed_adjectives,
    _clauses,
    _fronted,
    _other_side,
    _passive,
    _relative,
    _tense,
    _clothes,
    _synonyms,
)
