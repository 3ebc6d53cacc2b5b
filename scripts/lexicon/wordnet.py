"""WordNet 3.0's database files: senses, tag counts and relations, read without any library."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

POS_FILES = {"NOUN": "noun", "VERB": "verb", "ADJ": "adj", "ADV": "adv"}
SENSE_TYPES = {"1": "NOUN", "2": "VERB", "3": "ADJ", "4": "ADV", "5": "ADJ"}

# Lexicographer files whose nouns are things that a camera sees.
PHYSICAL_FILES = {
    5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 20: "plant"
}  # fmt: skip
HYPERNYMS = ("@", "@i")
ANTONYM = "!"
USAGE = ";u"


class Pointer(NamedTuple):
    """A relation of a synset, or of its word `source` (0 = the whole synset)."""

    symbol: str
    target: tuple[str, int]
    source: int
    target_word: int


class Synset(NamedTuple):
    """Words of one meaning. `key` is (POS, byte offset)."""

    key: tuple[str, int]
    lexfile: int
    words: tuple[str, ...]
    pointers: tuple[Pointer, ...]


class WordNet:
    """WordNet 3.0's dict folder, such as Debian's ``/usr/share/wordnet``.

    Raises:
        FileNotFoundError: The folder does not contain the database files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.synsets: dict[tuple[str, int], Synset] = {}
        #: The senses of (lemma, POS), most frequent first.
        self.senses: dict[tuple[str, str], tuple[Synset, ...]] = {}
        for pos, name in POS_FILES.items():
            for line in self._lines(f"data.{name}"):
                synset = _synset(line, pos)
                self.synsets[synset.key] = synset
            for line in self._lines(f"index.{name}"):
                lemma, _, *rest = line.split()
                count = int(rest[0])
                offsets = [int(offset) for offset in rest[-count:]]
                self.senses[lemma, pos] = tuple(self.synsets[pos, offset] for offset in offsets)

    def _lines(self, name: str) -> Iterator[str]:
        with open(self._folder / name, encoding="utf-8") as file:
            yield from (line for line in file if not line.startswith("  "))

    @cached_property
    def counts(self) -> dict[tuple[str, str, int], int]:
        """Tag count in the semantic concordances of (lemma, POS, sense number from 1)."""
        counts = {}
        for line in self._lines("cntlist.rev"):
            key, number, count = line.split()
            lemma, _, rest = key.partition("%")
            counts[lemma, SENSE_TYPES[rest[0]], int(number)] = int(count)
        return counts

    @cached_property
    def glosses(self) -> str:
        """The definitions and examples of all synsets."""
        lines = (line for name in POS_FILES.values() for line in self._lines(f"data.{name}"))
        return "\n".join(line.partition("|")[2] for line in lines)

    def count(self, lemma: str, pos: str) -> int:
        """Return how often the lemma was tagged with that POS, in any sense."""
        lemma = lemma.replace(" ", "_")
        senses = self.senses.get((lemma, pos), ())
        return sum(self.counts.get((lemma, pos, i + 1), 0) for i in range(len(senses)))

    def dominant(self, lemma: str, pos: str, share: float) -> Synset | None:
        """Return the first sense if it has at least that share of the lemma's tag count.

        A lemma without any tag counts as having a dominant sense only if it has a single sense.
        """
        senses = self.senses.get((lemma, pos), ())
        total = self.count(lemma, pos)
        if not senses or self.counts.get((lemma, pos, 1), 0) < share * total:
            return None
        return senses[0] if total or len(senses) == 1 else None

    def hypernyms(self, synset: Synset) -> Iterator[Synset]:
        """Yield the direct hypernyms."""
        for pointer in synset.pointers:
            if pointer.symbol in HYPERNYMS:
                yield self.synsets[pointer.target]

    def above(self, synset: Synset) -> set[tuple[str, int]]:
        """Return the keys of the synset and of all synsets above it."""
        keys, waiting = set(), [synset]
        while waiting:
            current = waiting.pop()
            if current.key not in keys:
                keys.add(current.key)
                waiting.extend(self.hypernyms(current))
        return keys

    def related(self, first: str, second: str, pos: str) -> bool:
        """Return whether any senses of two words are synonyms, or one is above the other."""
        keys = []
        for word in (first, second):
            senses = self.senses.get((word.replace(" ", "_"), pos), ())
            keys.append(({s.key for s in senses}, set().union(*map(self.above, senses))))
        return bool(keys[0][0] & keys[1][1] or keys[1][0] & keys[0][1])

    def antonyms(self, synset: Synset, lemma: str) -> Iterator[tuple[str, Synset]]:
        """Yield (antonym, its synset) of one word of a synset."""
        for pointer in synset.pointers:
            if pointer.symbol == ANTONYM and synset.words[pointer.source - 1] == lemma:
                target = self.synsets[pointer.target]
                yield target.words[pointer.target_word - 1], target


def _synset(line: str, pos: str) -> Synset:
    """Parse one line of a data file (wndb(5WN)); word counts and numbers are hexadecimal."""
    fields = line.partition("|")[0].split()
    n = int(fields[3], 16)
    words = tuple(fields[4 + 2 * i].partition("(")[0] for i in range(n))
    start = 5 + 2 * n
    pointers = []
    for i in range(int(fields[start - 1])):
        symbol, offset, kind, places = fields[start + 4 * i : start + 4 * i + 4]
        target = {"n": "NOUN", "v": "VERB", "a": "ADJ", "s": "ADJ", "r": "ADV"}[kind]
        numbers = int(places[:2], 16), int(places[2:], 16)
        pointers.append(Pointer(symbol, (target, int(offset)), *numbers))
    return Synset((pos, int(fields[0])), int(fields[1]), words, tuple(pointers))
