"""The inflected forms that are written into the lexicon when it is built."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

VERB_TAGS = ("VBZ", "VBG", "VBD", "VBN")


class Inflector:
    """Inflects words with lemminflect 0.2.3, with a table for what it gets wrong.

    Args:
        overrides: A file with a line ``lemma POS: form, form`` for each word it gets wrong.
    """

    def __init__(self, overrides: Path) -> None:
        self._overrides: dict[tuple[str, str], tuple[str, ...]] = {}
        for line in overrides.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                head, _, rest = line.partition(":")
                lemma, _, pos = head.strip().rpartition(" ")
                self._overrides[lemma, pos] = tuple(form.strip() for form in rest.split(","))

    def plural(self, noun: str) -> str:
        """Return the plural; if there are several words, the last is inflected."""
        if found := self._overrides.get((noun, "NOUN")):
            return found[0]
        *front, last = noun.split()
        if front:
            return " ".join([*front, self.plural(last)])
        if "-" in noun:  # "x-ray", "t-shirt"
            head, _, tail = noun.rpartition("-")
            return f"{head}-{self.plural(tail)}"
        return _inflect(noun, "NNS")

    def verb(self, verb: str) -> tuple[str, ...]:
        """Return base, third person, -ing form, past and participle; particles stay."""
        first, space, rest = verb.partition(" ")
        found = self._overrides.get((first, "VERB"))
        forms = (first, *(found or (_inflect(first, tag) for tag in VERB_TAGS)))
        return tuple(form + space + rest for form in forms)

    def all_forms(self, word: str, pos: str = "NOUN") -> Iterator[str]:
        """Yield the lemma and its forms."""
        yield from (word, self.plural(word)) if pos == "NOUN" else self.verb(word)


@cache
def _inflect(word: str, tag: str) -> str:
    """Return lemminflect's first form, from its dictionary or else from its rules."""
    from lemminflect import getInflection  # here, so that --help works without it

    forms = getInflection(word, tag=tag)
    if not forms:
        raise ValueError(f"{word!r} has no {tag}; add it to the overrides")
    return forms[0]
