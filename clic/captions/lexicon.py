"""Words that exclude each other: what may stand in a word's place to make a caption false."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

from clic.errors import DataError

Member = list[list[str]]  # words that mean much the same, each in its forms


class Lexicon:
    """Alternatives of words, from contrast sets.

    A line is ``name POS: member, member, ...``; each member is replaced by any other, or, in
    ``name POS: member, ... > member, ...``, those on the left by those on the right alone. What a
    member lists as ``a/b`` means much the same, and ``a~b`` are forms of one word, in the same
    order throughout the set. Lines that start with ``#`` are comments.

    Args:
        lines: The lines of a contrast-set file.

    Raises:
        DataError: A line is not of that form.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._alternatives: dict[tuple[str, str], dict[str, None]] = {}
        synonyms: dict[tuple[str, str], set[str]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            pos, sources, targets = _parse(line, number)
            for source in sources:
                others = [word for target in targets if target is not source for word in target]
                for forms in source:
                    for k, form in enumerate(forms):
                        new = dict.fromkeys(other[k] for other in others)
                        self._alternatives.setdefault((form, pos), {}).update(new)
                        synonyms.setdefault((form, pos), set()).update(m[k] for m in source)
        # Two words that one set calls the same exclude each other in no set.
        for key, words in synonyms.items():
            for word in words:
                self._alternatives[key].pop(word, None)
        #: The number of words of the longest entry, for callers that match phrases.
        self.longest = max((len(word.split()) for word, _ in self._alternatives), default=0)

    def alternatives(self, word: str, pos: str) -> tuple[str, ...]:
        """Return the words that exclude `word`, in its form and in the file's order.

        Args:
            word: A word or phrase in lower case, in any form that the lexicon lists.
            pos: Its universal POS.

        Returns:
            Lower-case words or phrases; none where the lexicon does not know the word.
        """
        return tuple(self._alternatives.get((word, pos), ()))


def _parse(line: str, number: int) -> tuple[str, list[Member], list[Member]]:
    """Return a line's POS, the members that are replaced and those that replace them."""
    name, colon, rest = line.partition(":")
    left, arrow, right = rest.partition(">")
    sources = _members(left)
    targets = _members(right) if arrow else sources
    words = [word for member in sources + targets for word in member]
    whole = all(form for word in words for form in word) and len({len(w) for w in words}) == 1
    enough = len(targets) > (0 if arrow else 1)
    if not colon or len(name.split()) != 2 or not whole or not enough:
        raise DataError(
            f"contrast sets, line {number}: {line.strip()[:60]!r} is not 'name POS: word, word' "
            "with as many ~forms in each word; mend the line"
        )
    return name.split()[1], sources, targets


def _members(text: str) -> list[Member]:
    return [
        [[form.strip() for form in word.split("~")] for word in member.split("/")]
        for member in text.split(",")
    ]


@lru_cache(maxsize=1)
def default_lexicon() -> Lexicon:
    """Return the lexicon that ships with the package, loaded once per process."""
    path = files("clic.captions") / "data" / "contrast_sets.txt"
    return Lexicon(path.read_text(encoding="utf-8").splitlines())
