"""Swaps that read well and would still be true, or that repeat a word.

When swaps are chosen by how well they read, those that keep the meaning come out on top. `swap`
itself leaves these rare cases in, because random draws seldom hit them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from clic.captions.lexicon import WORDS, Lexicon
from clic.captions.phrases import NOMINAL, NounPhrase, head_from, noun_phrases, phrase_start
from clic.captions.text import fold_tokens, lower
from clic.types import HardNegative, Token

_ANIMATE = ("people", "animals")
_CLOTHES = "kinds-clothes"
_LISTING = frozenset(("and", "or", ","))
_WITHIN = frozenset(("in", "on", "at", "inside", "off", "off of"))
_BESIDE = frozenset(
    ("by", "near", "next to", "beside", "close to", "alongside", "past", "in front of", "behind")
)
_RIDING = frozenset(("ride", "jump", "grind", "cross", "surf"))
_ALONG = frozenset(("on", "over", "across"))
_WEARING = frozenset(("wear", "in", "with"))
_NEAR_COLOURS = (
    frozenset(("grey", "gray", "silver")),
    frozenset(("gold", "golden", "yellow")),
    frozenset(("tan", "beige", "cream")),
)
_MUTUAL = frozenset(("kiss", "hug", "embrace", "fight", "wrestle", "face", "meet"))


class _Swap(NamedTuple):
    """A false caption in which two parts changed places.

    Attributes:
        tokens: The true caption's tokens.
        words: Their texts in lower case.
        lexicon: Knows kinds of things.
        parts: The ranges of tokens that changed places, from left to right.
        heads: The heads of the parts if both cover their noun phrases (see `_whole`), else empty.
    """

    tokens: Sequence[Token]
    words: Sequence[str]
    lexicon: Lexicon
    parts: list[tuple[int, int]]
    heads: list[int]

    def is_animate(self, token: int) -> bool:
        return self.lexicon.thing(self.words[token]).kind in _ANIMATE

    def others(self) -> bool:
        """Return whether a living thing is named between the two parts."""
        between = range(self.parts[0][1], self.parts[1][0])
        return any(self.tokens[i].pos in NOMINAL and self.is_animate(i) for i in between)

    def phrases(self) -> list[NounPhrase]:
        """Return the noun phrases that contain the parts; empty if a part is in none."""
        found = noun_phrases(self.tokens)
        held = [p for start, _ in self.parts for p in found if p.first <= start < p.last]
        return held if len(held) == 2 else []

    def starts(self) -> list[int]:
        """Return where the noun phrases of whole parts start."""
        return [phrase_start(self.tokens, self.words, head) for head in self.heads]

    def before(self) -> set[str]:
        """Return the lemmas of the words before the noun phrases of whole parts."""
        return {self.tokens[start - 1].lemma for start in self.starts() if start}

    def prepositions(self, known: frozenset[str]) -> list[str]:
        """Return the preposition before each whole part, the longest that is known, or ""."""
        ends = [[" ".join(self.words[max(0, i - n) : i]) for n in (3, 2, 1)] for i in self.starts()]
        return [next((text for text in texts if text in known), "") for texts in ends]


def is_doubtful(
    tokens: Sequence[Token], made: Sequence[Token], negative: HardNegative, lexicon: Lexicon
) -> bool:
    """Return whether a swap may mean the same as the caption, or repeats a word.

    - "tan and tan dogs";
    - "one wearing red, the other green", "some sit and others stand": it may be either;
    - two adjectives in one list: "brown, white and black", "a black and a white dog";
    - colours that are hard to tell apart: "a grey shirt and a silver chain";
    - two names, one of which may stand for the other: "a girl comforts a child";
    - two adverbs of one subject: "safely skates up before descending again";
    - attributes of two things of one name: "a man in a blue kayak and a man in an orange kayak";
    - a thing that is named twice: "a blue slide with a boy on top of the slide";
    - an owner and what it owns: "a man and his dog";
    - two parties to a mutual act: "a man gently kissing a woman";
    - two whole pieces of clothing of one wearer: "a woman in a hat is wearing a shirt";
    - two things after one preposition: "on her stomach on a swing", "in a row playing in a park";
    - two places, one after the other: "at a booth in a diner", "by a tree in front of a house";
    - something ridden and the surface under it: "rides a board on a wave".

    Args:
        tokens: The true caption's tokens.
        made: The false caption's tokens.
        negative: The false caption.
        lexicon: Knows kinds of things.
    """
    tokens = fold_tokens(tokens)
    words = [lower(token.text) for token in tokens]
    if _repeats(made) or _told_of_either(tokens, words):
        return True
    parts = sorted(_moved(tokens, negative))
    if len(parts) != 2:
        return False
    heads = [_whole(tokens, words, part, lexicon) for part in parts]
    swapped = _Swap(tokens, words, lexicon, parts, heads if min(heads) >= 0 else [])
    rules = (_listed, _alike, _adverbs, _of_namesakes, _named_twice, _owned)
    wholes = (_mutual, _worn_by_one, _in_a_row, _two_places, _ridden)
    return any(rule(swapped) for rule in (*rules, *(wholes if swapped.heads else ())))


def _repeats(made: Sequence[Token]) -> bool:
    """Return whether a word is on both sides of an "and", or twice in a row."""
    words = [lower(token.text) for token in made]
    beside = [*pairwise(words), *zip(words, words[2:], strict=False)]
    middle = [""] * (len(words) - 1) + words[1:-1]
    return any(
        a == b and a.isalpha() and between in ("", "and", "or")
        for (a, b), between in zip(beside, middle, strict=False)
    )


def _told_of_either(tokens: Sequence[Token], words: Sequence[str]) -> bool:
    """Return whether things are distinguished as "one" and "the other", or "some" and "others"."""
    bare = [
        word
        for i, word in enumerate(words)
        if word in ("one", "other") and head_from(tokens, words, i + 1) < 0
    ]
    return len(bare) > 1 or {"some", "others"}.issubset(words)


def _moved(tokens: Sequence[Token], negative: HardNegative) -> list[tuple[int, int]]:
    """Return the ranges of tokens that changed places."""
    new = {lower(edit.new) for edit in negative.edits}
    found = []
    for _, (start, end), old, _ in negative.edits:
        inside = [i for i, token in enumerate(tokens) if start <= token.start < end]
        if inside and lower(old) in new and lower(old) not in WORDS["articles"]:
            found.append((inside[0], inside[-1] + 1))
    return found


def _whole(
    tokens: Sequence[Token], words: Sequence[str], part: tuple[int, int], lexicon: Lexicon
) -> int:
    """Return the head of a part that covers its whole noun phrase, or -1.

    Articles and adjectives that are not clearly visible may be left out: a small lake is a lake.
    """
    for first, last, head in noun_phrases(tokens):
        if part[0] <= head < part[1] and last == part[1]:
            left = (i for i in range(first, part[0]) if words[i] not in WORDS["articles"])
            clear = lexicon.classes.get("clear", frozenset())
            return (
                head if all(tokens[i].pos == "ADJ" and words[i] not in clear for i in left) else -1
            )
    return -1


def _listed(swapped: _Swap) -> bool:
    """Return whether both parts belong to one list."""
    (_, start), (end, _) = swapped.parts
    words, between = swapped.words, range(start, end)
    rest = [i for i in between if words[i] not in WORDS["articles"]]
    told = swapped.tokens[start - 1].pos == "ADJ" and any(words[i] in _LISTING for i in rest)
    return (told or len(rest) == len(between)) and all(
        words[i] in _LISTING or swapped.tokens[i].pos == "ADJ" for i in rest
    )


def _alike(swapped: _Swap) -> bool:
    """Return whether one word may describe the same thing as the other."""
    one, two = (swapped.words[last - 1] for _, last in swapped.parts)
    lexicon = swapped.lexicon
    if any({one, two} <= colours for colours in _NEAR_COLOURS):
        return True
    classes = [lexicon.classes.get(name, frozenset()) for name in ("adults", "children")]
    both = any({one, two} <= named for named in classes)
    return both and one != two and not lexicon.excludes(one, two, "NOUN")


def _adverbs(swapped: _Swap) -> bool:
    """Return whether both parts are adverbs, and no living thing is named between them."""
    return all(swapped.tokens[i].pos == "ADV" for i, _ in swapped.parts) and not swapped.others()


def _of_namesakes(swapped: _Swap) -> bool:
    """Return whether the parts belong to two things of one name ("a man ... and a man ...")."""
    phrases, words = noun_phrases(swapped.tokens), swapped.words
    owners = [[p for p in phrases if p.last < start][-1:] for start, _ in swapped.parts]
    if not all(owners):
        return False
    (first,), (second,) = owners
    named = words[first.first : first.last] == words[second.first : second.last]
    link = words[first.last : second.first][-2:]
    beside = link[-1:] in (["and"], ["with"], ["near"], ["beside"]) or link == ["next", "to"]
    return first != second and named and beside


def _named_twice(swapped: _Swap) -> bool:
    """Return whether both parts belong to one thing, which is named again without an "a"."""
    held = swapped.phrases()
    if not held or held[0] == held[1] or len({swapped.tokens[p.head].lemma for p in held}) > 1:
        return False
    opening = [swapped.words[p.first : p.head] for p in held]
    return ["the"] in opening or [] in opening


def _owned(swapped: _Swap) -> bool:
    """Return whether the second part's thing is owned by the first's ("a man and his dog")."""
    held = swapped.phrases()
    if not held or swapped.tokens[held[1].first].pos != "PRON":
        return False
    joined = swapped.words[held[0].last : held[1].first] == ["and"]
    return joined or all(swapped.is_animate(phrase.head) for phrase in held)


def _mutual(swapped: _Swap) -> bool:
    """Return whether the parts are the subject and the object of a mutual act."""
    between = swapped.tokens[swapped.heads[0] + 1 : swapped.starts()[1]]
    acts = [token.lemma for token in between if token.pos not in ("AUX", "ADV")]
    return len(acts) == 1 and acts[0] in _MUTUAL


def _worn_by_one(swapped: _Swap) -> bool:
    """Return whether both things are worn, and no other wearer is named between them."""
    if swapped.others():
        return False
    clothes = [swapped.lexicon.thing(swapped.words[i]).kind == _CLOTHES for i in swapped.heads]
    before = swapped.before()
    return all(clothes) or ("wear" in before and before <= _WEARING)


def _in_a_row(swapped: _Swap) -> bool:
    """Return whether the same preposition precedes both, with no new subject or clause between."""
    words = swapped.words
    first, second = (start - 1 for start in swapped.starts())
    alike = first >= 0 and words[first] == words[second] and swapped.tokens[first].pos == "ADP"
    between = words[swapped.heads[0] + 1 : second]
    return alike and not swapped.others() and WORDS["joints"].isdisjoint(between)


def _two_places(swapped: _Swap) -> bool:
    """Return whether one place directly follows another, and either may contain or hide it."""
    first, second = swapped.prepositions(_WITHIN | _BESIDE)
    between = swapped.words[swapped.heads[0] + 1 : swapped.starts()[1]]
    if not first or not second or " ".join(between) != second:
        return False
    place = any(swapped.lexicon.thing(swapped.words[head]).place for head in swapped.heads)
    return {first, second} <= _BESIDE or (place and {first, second} <= _WITHIN)


def _ridden(swapped: _Swap) -> bool:
    """Return whether one thing is ridden or crossed, and the other is under it."""
    before = swapped.before()
    return len(before & _RIDING) == len(before & _ALONG) == 1
