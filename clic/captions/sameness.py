"""Whether two parts of a caption can change places without changing what it says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from clic.captions.context import phrase_start
from clic.captions.phrases import NounPhrase
from clic.captions.words import ARTICLES, POSTURES, word_set
from clic.types import Token

Range = tuple[int, int]

# "x LINK y" and "y LINK x" say the same of a picture: lists, and relations without direction.
# Verbs stand there as lemmas; forms of "be" and postures ("is sitting next to") are left out.
_LINKS = frozenset(
    (
        "and", "or", "&", ",", ", and", ", or", "and also", "plus", "along with", "together with",
        "as well as", "in addition to", "besides", "and a pair of", "while",
        "with", "accompany by", "next to", "right next to", "near", "near to", "nearby", "by",
        "beside", "alongside", "close to", "adjacent to", "opposite", "across from", "opposite of",
        "in close proximity to", "in the vicinity of", "parallel to", "in conversation with",
        "meet", "kiss", "hug", "touch", "face", "to", "talk with", "play with",
        "interact with", "speak with", "speak to", "shake hands with", "converse with", "marry",
        "connect to", "attach to", "affix to", "affix with", "fasten to", "tie to", "embrace",
        "against", "up against", "side by side with", "be", "look like",
    )
)  # fmt: skip
_LONGEST_LINK = 8  # words, among them those that are left out
_SILENT = word_set("is are was were be being been who that which there")
# The links that part a caption into what could be told in another order.
_JOINTS = word_set("and or & , ; with near nearby beside by alongside next close adjacent while")
_TAILS = word_set("next close adjacent along together")  # in front of "to" or "with"
_IGNORED = ARTICLES | word_set(
    "is are was were be being been there another some one other to as both ."
)


class Meaning:
    """What a caption says, as far as exchanging two parts of it goes.

    Args:
        tokens: The caption's tokens.
        words: Their texts in lower case.
        phrases: Its noun phrases.
    """

    def __init__(
        self,
        tokens: Sequence[Token],
        words: Sequence[str],
        phrases: Sequence[NounPhrase],
    ) -> None:
        self._tokens, self._words, self._phrases = tokens, words, phrases
        self._cuts = [i for i, word in enumerate(words) if word in _JOINTS]

    def survives(self, first: Range, second: Range) -> bool:
        """Return whether the caption says the same after these two parts changed places."""
        single = first[1] - first[0] == second[1] - second[0] == 1
        if not single and self._content(*first) == self._content(*second):
            return True
        a, b = self._phrase(first[0]), self._phrase(second[0])
        if a == b >= 0:
            return True  # modifiers of one noun, in whatever order
        if a >= 0 <= b and self._chained(a, b) and self._same_list(a, b, first, second):
            return True
        cuts = self._cuts
        if not cuts or bisect_left(cuts, first[0]) == bisect_left(cuts, second[0]):
            return False  # both in one clause
        return self._accompanies(first, second) or self._same_clauses(first, second)

    def _whole(self, part: Range) -> bool:
        """Return whether a part is all that its noun phrase says."""
        number = self._phrase(part[0])
        if number < 0:
            return False
        phrase = self._phrases[number]
        return self._content(phrase.first, phrase.last) == self._content(*part)

    def _content(self, first: int, last: int) -> list[str]:
        """Return the words without articles and the like."""
        return [word for word in self._words[first:last] if word not in _IGNORED]

    def _phrase(self, token: int) -> int:
        """Return the number of the noun phrase that holds a token, -1 outside of them."""
        for i, phrase in enumerate(self._phrases):
            if phrase.first <= token < phrase.last:
                return i
        return -1

    def _chained(self, a: int, b: int) -> bool:
        """Return whether links without direction lead from one phrase to the other."""
        phrases = self._phrases
        for k in range(min(a, b), max(a, b)):
            link = self._link(phrases[k].last, phrases[k + 1].first)
            if link not in _LINKS or (link == "," and phrases[k].first == 1):
                return False  # "In a zoo, zebras are fed" is no list
        return True

    def _link(self, first: int, last: int) -> str:
        """Return the words between two phrases, verbs as lemmas, "be" and postures left out."""
        if last - first > _LONGEST_LINK:
            return ""
        out = []
        for i in range(first, last):
            token, word = self._tokens[i], self._words[i]
            if word in _SILENT or token.lemma in POSTURES:
                continue
            out.append(token.lemma if token.pos == "VERB" else word)
        return " ".join(out) if out else "be"

    def _same_list(self, a: int, b: int, first: Range, second: Range) -> bool:
        """Return whether the two phrases hold the same after the exchange, the other way round."""
        before = [self._content(self._phrases[i].first, self._phrases[i].last) for i in (a, b)]
        after = [
            self._exchanged(self._phrases[i].first, self._phrases[i].last, first, second)
            for i in (a, b)
        ]
        return sorted(map(sorted, before)) == sorted(map(sorted, after))

    def _exchanged(self, start: int, end: int, first: Range, second: Range) -> list[str]:
        """Return the content of a stretch of the caption after the exchange."""
        parts = []
        i = start
        while i < end:
            if i == first[0]:
                parts += self._content(*second)
                i = first[1]
            elif i == second[0]:
                parts += self._content(*first)
                i = second[1]
            else:
                if self._words[i] not in _IGNORED:
                    parts.append(self._words[i])
                i += 1
        return parts

    def _same_clauses(self, first: Range, second: Range) -> bool:
        """Return whether the parts between "and", "next to" and the like are the same anew."""
        edges = list(zip([-1, *self._cuts], [*self._cuts, len(self._words)], strict=True))
        edges = [edge for edge in edges if self._inside(edge, first) != self._inside(edge, second)]
        before = sorted(sorted(self._content(a + 1, b)) for a, b in edges)
        after = sorted(sorted(self._exchanged(a + 1, b, first, second)) for a, b in edges)
        return bool(edges) and before == after

    @staticmethod
    def _inside(edge: Range, part: Range) -> bool:
        return edge[0] < part[0] and part[1] <= edge[1]

    def _accompanies(self, first: Range, second: Range) -> bool:
        """Return whether two things share a place: "men on a beach with boards", either way.

        So it is where the second alone follows such a link, and the first, without modifiers
        of its own, opens its clause and is followed by a place or a posture.
        """
        tokens, words = self._tokens, self._words
        start = phrase_start(tokens, words, second[0])
        joint = words[start - 1] if start else ""
        tail = joint == "to" and start > 1 and words[start - 2] in _TAILS
        if joint not in _JOINTS and not tail:
            return False
        if not (self._whole(first) and self._whole(second)):
            return False
        end = second[1]
        if end < len(words) and words[end] not in _JOINTS and tokens[end].pos != "PUNCT":
            return False
        opening = phrase_start(tokens, words, first[0])
        if opening > 0 and words[opening - 1] not in _JOINTS and tokens[opening - 1].pos != "PUNCT":
            return False
        i = first[1]
        while i < len(words) and (tokens[i].pos == "AUX" or words[i] in ("that", "who", "which")):
            i += 1
        if i == len(words):
            return False
        return tokens[i].pos == "ADP" or (
            tokens[i].pos == "VERB" and (tokens[i].lemma in POSTURES or tokens[i].lemma == "lay")
        )
