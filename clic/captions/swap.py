"""NegCLIP's hard negative: two parts of one caption change places."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import ClassVar

import numpy as np

from clic.captions.equivalence import Meaning, Range, alike
from clic.captions.inflection import third_person
from clic.captions.lexicon import ARTICLES, WORDS, Lexicon, NounEntry, default_lexicon
from clic.captions.phrases import NOMINAL, head_from, is_plural, noun_phrases, phrase_start, subject
from clic.captions.text import Change, apply_edits, fold_tokens, make_edits, text_without_capital
from clic.types import HardNegative, Token

MAX_TOKENS = 64  # bounds the number of pairs; a text tower reads about as many tokens

_MIXED = 0.125  # fraction of draws that treat the second rank like the first, for variety

Pair = tuple[Range, Range]
Ranked = tuple[list[Pair], list[Pair], list[Pair]]

COLOURS = WORDS["colours"]
ATTRIBUTES = ("ADJ", "NUM")
_FORMS = frozenset(("NOUN", "ADJ", "NUM", "VERB", "ADV"))
# Forms of the verb after (or, with "there", before) a noun phrase whose number changes.
_TO_PLURAL = {"is": "are", "was": "were", "has": "have"}
_TO_SINGULAR = {plural: singular for singular, plural in _TO_PLURAL.items()}


def swap(
    caption: str,
    tokens: Sequence[Token],
    rng: np.random.Generator,
    lexicon: Lexicon | None = None,
    forms: Collection[str] | None = None,
) -> HardNegative | None:
    """Let two parts of a caption change places (NegCLIP; Yuksekgonul et al., arXiv 2210.01936).

    The parts are two nouns, adjectives, numbers, verbs, adverbs or noun phrases of the same form.
    Pairs whose swap could describe another picture (two people, two colours) take precedence over
    others in seven draws of eight, and these over noun phrases of unequal number. Within a rank
    each kind of part is equally likely, then each pair. A pair whose swap keeps the meaning (both
    sides of an "and" or of a symmetric relation, the adjectives of one noun) is rejected.

    Args:
        caption: A true caption.
        tokens: Its tokens.
        rng: Draws the pair.
        lexicon: Knows kinds of things and synonyms, by default clic's own.
        forms: Universal POS tags of the parts that may move; None allows all, and noun phrases.

    Returns:
        The false caption with its edits, or None if no pair gives one.
    """
    tokens = fold_tokens(tokens[:MAX_TOKENS])
    finder = _Finder(caption, tokens, lexicon or default_lexicon())
    draw = float(rng.random())
    ranks = finder.ranks(forms)
    if draw < _MIXED:
        draw /= _MIXED
        best, second, last = ranks
        ranks = [best + second, last]
    else:
        draw = (draw - _MIXED) / (1 - _MIXED)
    for groups in ranks:
        left = [group for group in groups if group]
        while left:
            draw *= len(left)
            group = left[int(draw)]
            draw = draw % 1.0 * len(group)
            pair = group.pop(int(draw))
            draw %= 1.0
            if not group:
                left.remove(group)
            made = finder.build(pair)
            if made is not None:
                return made
    return None


def swap_attributes(
    caption: str, tokens: Sequence[Token], rng: np.random.Generator
) -> HardNegative | None:
    """Let two adjectives or two numbers of a caption change places: a `swap` of attributes only.

    Few captions have two attributes, so most swaps exchange nouns; this one makes the others.
    Arguments and result are those of `swap`.
    """
    made = swap(caption, tokens, rng, forms=ATTRIBUTES)
    return replace(made, kind="swap_attributes") if made is not None else None


class _Finder:
    """The pairs of a caption that may change places."""

    def __init__(self, caption: str, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self._caption, self._tokens, self._lexicon = caption, tokens, lexicon
        self._words = [token.text.lower() for token in tokens]
        self._phrases = noun_phrases(tokens)
        self._classes = lexicon.classes
        self._meaning = Meaning(tokens, self._words, self._phrases, lexicon)
        self._things: dict[int, NounEntry] = {}  # of the movable nouns
        self._plural: dict[int, bool] = {}

    def ranks(self, forms: Collection[str] | None = None) -> list[tuple[list[Pair], ...]]:
        """Return the groups of pairs of each of three ranks, best first; see `swap` for `forms`."""
        places: dict[str, list[int]] = {}
        nouns = places["NOUN"] = []
        for i, token in enumerate(self._tokens):
            pos = token.pos
            if pos in _FORMS and self._movable(i, pos):
                places.setdefault(pos, []).append(i)
        self._things = {i: self._lexicon.thing(self._words[i]) for i in nouns}
        self._plural = {i: is_plural(self._tokens[i]) for i in nouns}
        groups: list[Ranked] = []
        for pos, indices in places.items():
            if len(indices) > 1 and (forms is None or pos in forms):
                ranked: Ranked = [], [], []
                rank = self._RANKS[pos]
                for i, j in combinations(indices, 2):
                    place = rank(self, i, j)
                    if place is not None:
                        ranked[place].append(((i, i + 1), (j, j + 1)))
                groups.append(ranked)
        if forms is None:
            groups.append(self._phrase_pairs())
        if not groups:
            return [(), (), ()]
        return list(zip(*groups, strict=True))

    def build(self, pair: Pair) -> HardNegative | None:
        """Return the caption with the two parts exchanged, or None if that keeps its meaning."""
        if self._meaning.survives(*pair):
            return None
        texts = [text_without_capital(self._caption, self._tokens, *part) for part in pair]
        if texts[0].lower() == texts[1].lower():
            return None
        changes = [Change(*pair[0], texts[1]), Change(*pair[1], texts[0])]
        one, other = (self._plural.get(part[1] - 1) for part in pair)
        if one != other:  # nouns; other words have no known number
            changes += [
                *self._agreement(pair[0], bool(other)),
                *self._agreement(pair[1], bool(one)),
            ]
        edits = make_edits(self._caption, self._tokens, changes)
        return HardNegative(apply_edits(self._caption, edits), "swap", edits)

    def _agreement(self, part: Range, plural: bool) -> Iterator[Change]:
        """Yield the change of the verb that must agree with a noun phrase of another number."""
        first, last = part
        table = _TO_PLURAL if plural else _TO_SINGULAR
        if first > 1 and self._words[first - 2] == "there" and self._words[first - 1] in table:
            yield Change(first - 1, first, table[self._words[first - 1]])
        if last == len(self._words):
            return
        word, (_, _, _, pos, lemma) = self._words[last], self._tokens[last]
        if word in table:
            yield Change(last, last + 1, table[word])
        elif pos == "VERB" and plural and word == third_person(lemma):
            yield Change(last, last + 1, lemma)
        elif pos == "VERB" and not plural and word == lemma:
            yield Change(last, last + 1, third_person(word))

    def _movable(self, i: int, pos: str) -> bool:
        """Return whether a word can move; a noun must be the head of a thing's name."""
        word = self._words[i]
        if pos not in ("NOUN", "ADJ"):
            return word not in WORDS["fixed"]
        following = self._words[i + 1] if i + 1 < len(self._words) else ""
        if pos == "NOUN":
            named = i > 0 and self._tokens[i - 1].pos in NOMINAL  # "parking lot", "train set"
            if following == "of" or (word in WORDS["relational_nouns"] and not named):
                return False
            return not following or self._tokens[i + 1].pos not in NOMINAL
        return following not in ("to", "of") and word not in self._classes["identity"]

    def _rank_nouns(self, i: int, j: int) -> int | None:
        if self._plural[i] != self._plural[j] or self._tokens[i].lemma == self._tokens[j].lemma:
            return None
        # People never get another colour or another word of identity.
        for one, other in ((i, j), (j, i)):
            if self._things[one].kind == "people" and self._marked(other):
                return None
        return self._rank_things(i, j)

    def _marked(self, noun: int) -> bool:
        """Return whether a colour or a word of identity precedes a noun in its phrase."""
        start = phrase_start(self._tokens, self._words, noun)
        marks = self._words[start:noun]
        return not (COLOURS.isdisjoint(marks) and self._classes["identity"].isdisjoint(marks))

    def _rank_things(self, i: int, j: int) -> int | None:
        """Return 0 for nouns of one kind, 1 for others, None for those that may mean the same."""
        first, second = self._things[i], self._things[j]
        if first.kind and first.kind == second.kind:
            words = self._words[i], self._words[j]
            if first.generic or second.generic or words[1] in first.synonyms:
                return None
            dishes = self._classes["dishes"].issuperset(words)  # a tray may be called a dish
            return 0 if not dishes or self._lexicon.excludes(*words, "NOUN") else None
        if (first.place and second.place) or self._words[j] in first.synonyms:
            return None
        return 1

    def _rank_adjectives(self, i: int, j: int) -> int | None:
        first, second = self._words[i], self._words[j]
        if first == second or self._listed(i, j):
            return None
        if first in COLOURS or second in COLOURS:
            # People never get another colour.
            for k in (i, j):
                head = head_from(self._tokens, self._words, k + 1)
                if head >= 0 and self._words[head] in self._classes["people"]:
                    return None
            if first in COLOURS and second in COLOURS:
                return None if second in self._lexicon.synonyms(first, "ADJ") else 0
        # A plate can be both large and white: words for different properties are compatible.
        return 0 if self._lexicon.excludes(first, second, "ADJ") else None

    def _listed(self, i: int, j: int) -> bool:
        """Return whether only "and", "or" or commas separate two words."""
        return all(self._words[k] in ("and", "or", ",", "&") for k in range(i + 1, j))

    def _rank_numbers(self, i: int, j: int) -> int | None:
        words = self._words[i], self._words[j]
        attached = all(head_from(self._tokens, self._words, k + 1) >= 0 for k in (i, j))
        return 0 if attached and words[0] != words[1] and "one" not in words else None

    def _rank_verbs(self, i: int, j: int) -> int | None:
        tokens, words = self._tokens, self._words
        if tokens[i].lemma == tokens[j].lemma or _ending(words[i]) != _ending(words[j]):
            return None
        if {tokens[i].lemma, tokens[j].lemma} <= WORDS["postures"] and words[i][-2:] == "ed":
            return None  # "placed" and "positioned" say the same
        if alike(tokens[i].lemma, tokens[j].lemma):
            return None
        who = [subject(tokens, words, k, self._classes["animate"]) for k in (i, j)]
        what = [head_from(tokens, words, k + 1) for k in (i, j)]
        if who[0] == what[1] or what[0] == who[1]:
            return None  # "opened umbrellas are grouped": both describe one thing
        if who[0] == who[1]:
            # One agent's intransitive verbs mean the same in any order.
            return 1 if max(what) >= 0 else None
        kinds = [self._lexicon.thing(words[k]).kind if k >= 0 else "" for k in who]
        return 0 if kinds[0] and kinds[0] == kinds[1] else 1

    def _rank_adverbs(self, i: int, j: int) -> int | None:
        between = any(token.pos in ("NOUN", "VERB") for token in self._tokens[i + 1 : j])
        return 1 if between and self._words[i] != self._words[j] else None

    _RANKS: ClassVar = {
        "NOUN": _rank_nouns,
        "ADJ": _rank_adjectives,
        "NUM": _rank_numbers,
        "VERB": _rank_verbs,
        "ADV": _rank_adverbs,
    }

    def _phrase_pairs(self) -> Ranked:
        """Return the pairs of noun phrases by rank; the last rank has those of unequal number.

        `_rank_nouns` handles phrases of equal number that are one word, or an article and a word.
        """
        ranked: Ranked = [], [], []
        phrases = [phrase for phrase in self._phrases if phrase.head in self._things]
        plural, words = self._plural, self._words
        longer = {p.head: p.last - p.first > 1 + (words[p.first] in ARTICLES) for p in phrases}
        for a, b in combinations(phrases, 2):
            unequal = plural[a.head] != plural[b.head]
            if unequal or longer[a.head] or longer[b.head]:
                place = self._rank_things(a.head, b.head)
                if place is not None:
                    pair = ((a.first, a.last), (b.first, b.last))
                    ranked[2 if unequal else place].append(pair)
        return ranked


def _ending(verb: str) -> str:
    """Return the ending that two verbs must share to fit each other's place."""
    return next((end for end in ("ing", "ed", "s") if verb.endswith(end)), "")
