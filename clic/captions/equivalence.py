"""Whether two parts of a caption can change places without changing what it says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property

from clic.captions.lexicon import VERB_GROUPS, WORDS, Lexicon
from clic.captions.phrases import NounPhrase, phrase_start
from clic.types import Token

Range = tuple[int, int]

_LONGEST_LINK = 8  # words, including those that are left out
_JOINTS, _SILENT = WORDS["joints"], WORDS["silent"]
_POSTURES, _IGNORED = WORDS["postures"], WORDS["ignored"]
_TAILS = frozenset(("next", "close", "adjacent", "along", "together"))  # before "to" or "with"
_VAGUE_MEASURES = frozenset(("couple", "bunch", "lot", "number", "variety", "few"))
_ADVERBIAL = frozenset(("ADP", "ADV", "VERB", "PART"))  # opens a phrase before a comma
_LISTING = frozenset(("and", "or", "&", ",", ", and", ", or"))
_GROUP = {verb: group for group, verbs in VERB_GROUPS.items() for verb in verbs}


def alike(first: str, second: str) -> bool:
    """Return whether two verbs, as lemmas, may describe the same act."""
    return first in _GROUP and _GROUP[first] == _GROUP.get(second)


class Meaning:
    """Decides whether a caption keeps its meaning when two of its parts change places.

    Args:
        tokens: The caption's tokens.
        words: Their texts in lower case.
        phrases: Its noun phrases.
        lexicon: Knows which modifiers are clearly visible and which exclude each other.
    """

    def __init__(
        self,
        tokens: Sequence[Token],
        words: Sequence[str],
        phrases: Sequence[NounPhrase],
        lexicon: Lexicon,
    ) -> None:
        self._tokens, self._words, self._phrases = tokens, words, phrases
        self._lexicon = lexicon
        self._cuts = [i for i, word in enumerate(words) if word in _JOINTS]

    def survives(self, first: Range, second: Range) -> bool:
        """Return whether the caption says the same after these two parts change places."""
        single = first[1] - first[0] == second[1] - second[0] == 1
        if not single and self._content(*first) == self._content(*second):
            return True
        a, b = self._phrase(first[0]), self._phrase(second[0])
        if a == b >= 0:
            return True  # modifiers of one noun, in any order
        parts = a, b, first, second
        chained = a >= 0 <= b and self._chained(a, b)
        if chained and (self._same_list(*parts) or self._shared(*parts)):
            return True
        cuts = self._cuts
        if not cuts or bisect_left(cuts, first[0]) == bisect_left(cuts, second[0]):
            return False  # both in one clause
        return self._accompanies(first, second) or self._same_clauses(first, second)

    def _whole(self, part: Range) -> bool:
        """Return whether a part is all of its noun phrase except for articles and the like."""
        number = self._phrase(part[0])
        if number < 0:
            return False
        phrase = self._phrases[number]
        return self._content(phrase.first, phrase.last) == self._content(*part)

    def _content(self, first: int, last: int) -> list[str]:
        """Return the words without articles and the like."""
        return [word for word in self._words[first:last] if word not in _IGNORED]

    def _phrase(self, token: int) -> int:
        """Return the number of the noun phrase that contains a token, or -1 if there is none."""
        for i, phrase in enumerate(self._phrases):
            if phrase.first <= token < phrase.last:
                return i
        return -1

    def _chained(self, a: int, b: int) -> bool:
        """Return whether symmetric links lead from one phrase to the other."""
        phrases, words = self._phrases, self._words
        for k in range(min(a, b), max(a, b)):
            first, last, head = phrases[k]
            link = self._link(last, phrases[k + 1].first)
            if link == "of" and words[head] in _VAGUE_MEASURES:
                continue  # "a couple of sinks" are sinks
            if link not in WORDS["links"]:
                return False
            if link == "," and self._introduced() and "," not in words[:last]:
                return False
            if link == "be" and first and self._tokens[first - 1].pos == "ADP":
                return False  # "in the leaves lies a cat"
        return True

    def _introduced(self) -> bool:
        """Return whether the caption opens with an adverbial: "In a zoo, zebras" is no list."""
        word = self._words[0]
        return self._tokens[0].pos in _ADVERBIAL and word not in _JOINTS and word not in _SILENT

    def _link(self, first: int, last: int) -> str:
        """Return the words between two phrases, verbs as lemmas, "be" and postures left out."""
        if last - first > _LONGEST_LINK:
            return ""
        out = []
        for i in range(first, last):
            token, word = self._tokens[i], self._words[i]
            if word in _SILENT or token.lemma in _POSTURES:
                continue
            out.append(token.lemma if token.pos == "VERB" else word)
        return " ".join(out) if out else "be"

    def _same_list(self, a: int, b: int, first: Range, second: Range) -> bool:
        """Return whether the exchange leaves the pair of phrases as it was, in either order."""
        before = [self._content(self._phrases[i].first, self._phrases[i].last) for i in (a, b)]
        after = [
            self._exchanged(self._phrases[i].first, self._phrases[i].last, first, second)
            for i in (a, b)
        ]
        weak = self._weak
        kept = [sorted(sorted(w for w in p if w not in weak) for p in s) for s in (before, after)]
        return kept[0] == kept[1]

    @cached_property
    def _weak(self) -> frozenset[str]:
        """The modifiers that may also apply to things that they do not describe here.

        An old bus next to a trolley may be next to an old trolley. Colours, which are
        clearly visible, are not among them; nor is "old" if the caption calls another thing young.
        """
        lexicon = self._lexicon
        clear = lexicon.classes.get("clear", ())
        words = [self._words[i] for i, token in enumerate(self._tokens) if token.pos == "ADJ"]
        return WORDS["vague"] | {
            word
            for word in words
            if word not in clear
            and lexicon.synonyms(word, "ADJ")
            and not any(lexicon.excludes(word, other, "ADJ") for other in words)
        }

    def _shared(self, a: int, b: int, first: Range, second: Range) -> bool:
        """Return whether the heads of one list change places under a shared modifier.

        In "various color and size", "various" applies to both.
        """
        a, b = min(a, b), max(a, b)
        phrases = self._phrases
        heads = sorted((first, second)) == [(phrases[k].head, phrases[k].last) for k in (a, b)]
        return heads and all(
            self._link(phrases[k].last, phrases[k + 1].first) in _LISTING
            and phrases[k + 1].first == phrases[k + 1].head
            for k in range(a, b)
        )

    def _exchanged(self, start: int, end: int, first: Range, second: Range) -> list[str]:
        """Return the content of a range of tokens after the exchange."""
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
        """Return whether the exchange leaves the same clauses between "and", "next to", ..."""
        edges = list(zip([-1, *self._cuts], [*self._cuts, len(self._words)], strict=True))
        edges = [edge for edge in edges if self._inside(edge, first) != self._inside(edge, second)]
        before = sorted(sorted(self._content(a + 1, b)) for a, b in edges)
        after = sorted(sorted(self._exchanged(a + 1, b, first, second)) for a, b in edges)
        return bool(edges) and before == after

    @staticmethod
    def _inside(edge: Range, part: Range) -> bool:
        return edge[0] < part[0] and part[1] <= edge[1]

    def _accompanies(self, first: Range, second: Range) -> bool:
        """Return whether two things share a place: "men on a beach with boards", in any order.

        They do if the second one ends its clause after a link such as "with", and the first one
        opens its clause and is followed by a place or a posture; neither has modifiers.
        """
        tokens, words = self._tokens, self._words
        start = phrase_start(tokens, words, second[0])
        joint = words[start - 1] if start else ""
        tail = joint == "to" and start > 1 and words[start - 2] in _TAILS
        if joint not in _JOINTS and not tail:
            return False
        act = tokens[start - 2] if start > 1 else None
        if joint == "by" and act and act.pos in ("VERB", "ADP") and act.lemma not in _POSTURES:
            return False  # "walked through by an elephant": the agent
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
        posture = tokens[i].lemma in _POSTURES or tokens[i].lemma == "lay"
        return tokens[i].pos == "ADP" or (tokens[i].pos == "VERB" and posture)
