"""CLoVe's hard negative: one word of a caption is replaced by one that excludes it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from clic.captions.lexicon import Alternatives, Condition, Lexicon, Use, default_lexicon
from clic.captions.phrases import NOMINAL, governor, head_from, phrase_start, subject
from clic.captions.text import Change, apply_edits, fold_tokens, make_edits
from clic.types import HardNegative, Token

MAX_TOKENS = 128  # no text tower reads more

_ONE = frozenset(["a", "an", "one", "another", "each", "every", "this", "that", "single"])
_SEVERAL = frozenset(["some", "many", "few", "several", "these", "those", "both", "all"])
_PLURAL = 1  # index of this form of a noun
_NOTHING: frozenset[str] = frozenset()


def replace(
    caption: str, tokens: Sequence[Token], rng: np.random.Generator, lexicon: Lexicon | None = None
) -> HardNegative | None:
    """Replace one word by a co-hyponym or an antonym (CLoVe; arXiv 2402.15021, section 3.2).

    The word is a noun, adjective, verb, adverb, number, determiner or preposition that the
    lexicon lists for such a context; longer entries ("to the left of") take precedence over
    shorter ones. Each such word is equally likely; its alternatives are drawn in proportion to
    their corpus counts, without those that the caption already contains. Fallback entries are used
    only if there are no others.

    Args:
        caption: A true caption.
        tokens: Its tokens.
        rng: Draws the word and what replaces it.
        lexicon: Words that exclude each other, by default those that ship with the package.

    Returns:
        The false caption with its edits, or None if the lexicon knows none of its words.
    """
    tokens = fold_tokens(tokens[:MAX_TOKENS])
    lexicon = lexicon or default_lexicon()
    reader = _Reader(tokens, lexicon)
    draw = float(rng.random())
    for fallback in (False, True):
        places = reader.places()
        while places:
            draw *= len(places)
            first, last, uses = places.pop(int(draw))
            draw %= 1.0
            applicable = reader.applicable(first, last, uses, fallback)
            if not applicable:
                continue
            text = _pick(lexicon.draw_list(applicable), draw, reader)
            if text is not None:
                edits = make_edits(caption, tokens, [Change(first, last, text)])
                return HardNegative(apply_edits(caption, edits), "replace", edits)
    return None


def _pick(alternatives: Alternatives, draw: float, reader: _Reader) -> str | None:
    """Return the alternative that `draw` in [0, 1) selects, or the next one that is not present."""
    items, cumulative = alternatives
    if not items:
        return None
    start = bisect_right(cumulative, draw * cumulative[-1])
    for i in range(start, start + len(items)):
        item = items[i % len(items)]
        if not reader.has_any(item.rivals):
            return item.text
    return None


class _Reader:
    """A caption in lower case, and which of the lexicon's conditions it meets."""

    def __init__(self, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self.tokens, self.lexicon = tokens, lexicon
        self.words = [token.text.lower() for token in tokens]
        self.present = frozenset(self.words)
        classes = lexicon.classes
        self._measures = classes.get("measure", _NOTHING)
        self._animate = classes.get("animate", _NOTHING)
        self._modifiers = classes.get("modifiers", _NOTHING)

    def places(self) -> list[tuple[int, int, Sequence[Use]]]:
        """Return (first, last, uses) of the longest entries of the lexicon in the caption."""
        single, several, words = self.lexicon.single, self.lexicon.several, self.words
        found: list[tuple[int, int, Sequence[Use]]] = []
        done = 0
        for i, word in enumerate(words):
            if i < done:
                continue
            if word in several and (uses := self._phrase(i, several[word])):
                done = i + len(uses[0].words)
                if uses[0].number >= 0:
                    found.append((i, done, uses))
            elif word in single:
                found.append((i, i + 1, single[word]))
        return found

    def _phrase(self, first: int, uses: Sequence[Use]) -> list[Use]:
        """Return the uses of the longest phrase at `first`; a fixed phrase belongs to no set."""
        matched: list[Use] = []
        for use in uses:
            n = len(use.words)
            if matched and n < len(matched[0].words):
                break
            if tuple(self.words[first : first + n]) == use.words:
                matched.append(use)
        return matched

    def applicable(
        self, first: int, last: int, uses: Sequence[Use], fallback: bool
    ) -> tuple[Use, ...]:
        """Return the uses whose tag, form and conditions fit the caption."""
        tags = {self.tokens[first].pos, self.tokens[last - 1].pos}
        if "ADV" in tags:
            tags.add("ADP")  # taggers use both for "below"
        sets = self.lexicon.sets
        found = [
            use
            for use in uses
            if use.pos in tags
            and sets[use.number].fallback == fallback
            and self._fits(first, last, use, *sets[use.number][1:3])
        ]
        if len(found) > 1 and any(use.form != found[0].form for use in found):
            form = self._form(first, last, {use.form for use in found}, found[0].pos)
            found = [use for use in found if use.form == form]
        return tuple(found)

    def _fits(
        self, first: int, last: int, use: Use, after: Condition | None, before: Condition | None
    ) -> bool:
        pos = use.pos
        if pos == "NOUN":
            # A singular noun before another noun is the first half of a compound.
            if before is None and use.form != _PLURAL and self._nominal(last):
                return False
            compound = last - first == 1 and self._nominal(first - 1)
            if compound and self.words[first - 1] not in self._modifiers:
                return False  # the second half of a compound that the lexicon does not know
        if before is not None and not self._before_fits(last, pos, before):
            return False
        return after is None or self._after_fits(first, pos, after)

    def _before_fits(self, last: int, pos: str, condition: Condition) -> bool:
        if pos == "NOUN":
            head = last if self._nominal(last) or self._text(last) == "of" else -1
        else:
            head = head_from(self.tokens, self.words, last, self._measures)
        if head < 0:
            return not condition.negated and "-" in condition.words
        if "*" in condition.words:
            return not condition.negated
        return condition.holds(*self._names(head))

    def _after_fits(self, first: int, pos: str, condition: Condition) -> bool:
        if pos == "NOUN":
            return condition.holds(governor(self.tokens, self.words, first))
        if pos == "VERB":
            noun = subject(self.tokens, self.words, first, self._animate)
        else:
            noun = first - 1
            if "*" in condition.words:
                return self._nominal(noun)
        return condition.negated if noun < 0 else condition.holds(*self._names(noun))

    def _names(self, noun: int) -> tuple[str, str]:
        """Return a noun, alone and with the word before it ("cell phone")."""
        word = self.words[noun]
        return word, f"{self.words[noun - 1]} {word}" if noun else word

    def _form(self, first: int, last: int, forms: set[int], pos: str) -> int:
        """Return which of several forms with the same spelling ("sheep", "cut") is used here."""
        if pos == "NOUN":
            start = phrase_start(self.tokens, self.words, first)
            opening = self.words[start]
            one = opening in _ONE
            if forms == {0, 1}:  # singular or plural
                many = self.tokens[start].pos == "NUM" or opening in _SEVERAL or start == first
                return 0 if one or not many else 1
            return 0 if one or opening == "the" else max(forms)  # countable or mass
        auxiliary = first > 0 and self.tokens[first - 1].pos == "AUX"
        if auxiliary or self._text(last) == "by":
            return max(forms)
        if forms == {3, 4}:  # past or participle
            return 3 if head_from(self.tokens, self.words, last) >= 0 else 4
        return 3 if forms == {0, 3} else 0

    def has_any(self, rivals: frozenset[str]) -> bool:
        """Return whether the caption contains one of the words or phrases."""
        if not self.present.isdisjoint(rivals):
            return True
        joined = ""
        for rival in rivals:
            if " " in rival:
                joined = joined or f" {' '.join(self.words)} "
                if f" {rival} " in joined:
                    return True
        return False

    def _nominal(self, i: int) -> bool:
        return 0 <= i < len(self.tokens) and self.tokens[i].pos in NOMINAL

    def _text(self, i: int) -> str:
        return self.words[i] if i < len(self.words) else ""
