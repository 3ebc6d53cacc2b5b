"""WordNet's contributions: antonyms, co-hyponyms of visible things, counts and words to ban."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from functools import cache
from itertools import product

from lexicon.forms import Inflector
from lexicon.wordnet import PHYSICAL_FILES, USAGE, Synset, WordNet

from clic.captions.lexicon import Lexicon, Word

_SHARE = 0.6  # of a lemma's tag count that its first sense must have
_FLOOR = {"NOUN": 5, "VERB": 20, "ADJ": 20, "ADV": 10}  # least frequency of a word
_DEPTH = 8  # synsets above a common hypernym, itself included; fewer means too broad
_CAP = 200  # higher counts come from the words' other senses
_FLAT = 5  # smoothing
_BANNED_USAGE = ("ethnic_slur", "disparagement", "obscenity", "vulgarism", "dirty_word")


@cache
def gloss_counts(wordnet: WordNet) -> Counter[str]:
    """Count the words in WordNet's definitions and examples, one million words of running text."""
    return Counter(re.findall(r"[a-z]+(?:-[a-z]+)*", wordnet.glosses.lower()))


def frequency(wordnet: WordNet, lemma: str, pos: str) -> int:
    """Return the tags of a lemma with that POS, and its occurrences in definitions."""
    return wordnet.count(lemma, pos) + gloss_counts(wordnet)[lemma]


def weighted(forms: str, count: int) -> str:
    """Return a word with its sampling weight."""
    return f"{forms}*{_FLAT + min(count, _CAP)}"


def banned_words(text: str) -> frozenset[str]:
    """Return the words of the hand-made list, and their plurals."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    banned = {word for line in lines for word in line.split()}
    return frozenset(banned | {f"{word}s" for word in banned})


def excluded_words(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words and the <hypernyms> in a list of what WordNet should not contribute."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    words = {word for line in lines for word in line.split()}
    hypernyms = {word for word in words if word.startswith("<")}
    return frozenset(words - hypernyms), frozenset(word.strip("<>") for word in hypernyms)


def slurs(wordnet: WordNet) -> frozenset[str]:
    """Return the words that WordNet marks as ethnic slurs, disparaging or obscene in any sense."""
    found: set[str] = set()
    for synset in wordnet.synsets.values():
        for pointer in synset.pointers:
            if pointer.symbol == USAGE:
                usage = wordnet.synsets[pointer.target].words
                if any(word.lower() in _BANNED_USAGE for word in usage):
                    words = synset.words
                    found.update(words[pointer.source - 1 : pointer.source] or words)
    return frozenset(word.lower() for word in found)


def co_hyponym_lines(
    wordnet: WordNet,
    inflector: Inflector,
    taken: Collection[str],
    skipped: Collection[str],
) -> Iterator[str]:
    """Yield sets of nouns under one direct hypernym.

    A member is one word whose dominant sense is a visible thing; no two members have a sense in
    common or one above the other.

    Args:
        wordnet: The database.
        inflector: Source of the plurals.
        taken: Words that the contrast sets contain, or that are banned or excluded.
        skipped: First words of hypernyms to leave out.
    """
    groups: dict[Synset, list[tuple[str, Synset]]] = defaultdict(list)
    for lemma, pos in sorted(wordnet.senses):
        if pos != "NOUN" or not lemma.isalpha() or len(lemma) < 3:
            continue
        if lemma in taken or inflector.plural(lemma) in taken:
            continue
        sense = wordnet.dominant(lemma, pos, _SHARE)
        if sense is None or sense.lexfile not in PHYSICAL_FILES:
            continue
        if lemma not in sense.words or frequency(wordnet, lemma, pos) < _FLOOR[pos]:
            continue
        for hypernym in wordnet.hypernyms(sense):
            name = hypernym.words[0].lower()
            if len(wordnet.above(hypernym)) >= _DEPTH and name not in skipped:
                groups[hypernym].append((lemma, sense))
    for hypernym, members in groups.items():
        members.sort(key=lambda member: (-frequency(wordnet, member[0], "NOUN"), member[0]))
        kept: list[list[str]] = []
        senses: list[Synset] = []
        for lemma, sense in members:
            if sense in senses:
                kept[senses.index(sense)].append(lemma)
            elif not any(
                wordnet.related(lemma, other, "NOUN") for group in kept for other in group
            ):
                kept.append([lemma])
                senses.append(sense)
        if len(kept) > 1:
            texts = ("/".join(_noun(wordnet, inflector, w) for w in group) for group in kept)
            yield f"wn-{hypernym.words[0].lower()} NOUN fallback: " + ", ".join(texts)


def _noun(wordnet: WordNet, inflector: Inflector, lemma: str) -> str:
    return weighted(f"{lemma}~{inflector.plural(lemma)}~", frequency(wordnet, lemma, "NOUN"))


def antonym_lines(wordnet: WordNet, inflector: Inflector, taken: Collection[str]) -> Iterator[str]:
    """Yield pairs of direct antonyms, each in its dominant sense."""
    for pos in ("ADJ", "ADV", "VERB"):
        pairs: set[tuple[str, ...]] = set()
        for lemma, its_pos in sorted(wordnet.senses):
            if its_pos != pos or not lemma.isalpha() or lemma in taken:
                continue
            sense = wordnet.dominant(lemma, pos, _SHARE)
            if sense is None or frequency(wordnet, lemma, pos) < _FLOOR[pos]:
                continue
            for antonym, other in wordnet.antonyms(sense, lemma):
                common = frequency(wordnet, antonym, pos) >= _FLOOR[pos]
                known = antonym in taken or not antonym.isalpha()
                if common and not known and wordnet.dominant(antonym, pos, _SHARE) == other:
                    pairs.add(tuple(sorted((lemma, antonym))))
        for pair in sorted(pairs):
            texts = []
            for lemma in pair:
                forms = "~".join(inflector.verb(lemma)) if pos == "VERB" else lemma
                texts.append(weighted(forms, frequency(wordnet, lemma, pos)))
            yield f"wn-antonyms {pos} fallback: " + ", ".join(texts)


def related_pairs(lexicon: Lexicon, wordnet: WordNet, distinct: str) -> set[tuple[str, str]]:
    """Return the (source, target) pairs of a lexicon that do not exclude each other.

    Their most frequent senses are the same, or one is above the other, and `distinct` does not list
    them.
    """
    lines = (line.partition(":")[0].split() for line in distinct.splitlines() if line[:1] != "#")
    allowed = {frozenset(line) for line in lines}
    found = set()
    for chosen in lexicon.sets:
        for source, target in product(chosen.sources, chosen.targets):
            if source is target or chosen.pos not in ("NOUN", "VERB"):
                continue
            for one, other in product(source, target):
                pair = _lemma(one, inflected=chosen.pos), _lemma(other, inflected=chosen.pos)
                senses = [wordnet.senses.get((w.replace(" ", "_"), chosen.pos), ()) for w in pair]
                if all(senses) and frozenset(pair) not in allowed:
                    first, second = senses[0][0], senses[1][0]
                    if first.key in wordnet.above(second) or second.key in wordnet.above(first):
                        found.add(pair)
    return found


def _lemma(word: Word, inflected: str) -> str:
    """Return a word's lemma: the base of a VERB, the singular, mass or only form of a NOUN."""
    if inflected == "VERB" or word.forms[0]:
        return word.forms[0]
    return word.forms[-1] or word.forms[1]
