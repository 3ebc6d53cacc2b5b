"""The hand-made contrast sets: from lemmas to the inflected lines that ship."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import product
from typing import NamedTuple

from lexicon.forms import Inflector
from lexicon.relations import frequency, weighted
from lexicon.wordnet import WordNet

# Words of a condition that have no forms.
_CLOSED = frozenset(
    (
        "with", "and", "or", "in", "on", "at", "to", "of", "by", "up", "down", "into", "onto",
        "from", "over", "under", "near", "the", "a", "out", "beside", "behind", "above", "below",
        "beneath", "underneath", "outside", "inside", "against", "around", "through", "along",
        "across", "atop", "toward", "towards", "alongside", "past", "next", "he", "she", "they",
        "who", "^", "*", "-", ",",
    )
)  # fmt: skip
_HARMLESS = frozenset(("french fries",))  # although part of it is on the list of banned words


class Compiled(NamedTuple):
    """Lines of the shipped file, and every word in the sets."""

    lines: list[str]
    known: frozenset[str]


def compile_sets(
    lines: Iterable[str], inflector: Inflector, wordnet: WordNet, banned: Collection[str]
) -> Compiled:
    """Return the contrast sets with all forms and counts.

    Args:
        lines: The source file.
        inflector: Source of the forms.
        wordnet: Source of the counts.
        banned: Words that must not occur.

    Raises:
        ValueError: A banned word occurs, or a line is malformed.
    """
    compiled: list[str] = []
    known: set[str] = set()
    overlaps: set[frozenset[str]] = set()
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        head, colon, rest = line.partition(":")
        if not colon:
            raise ValueError(f"no colon in {line!r}")
        if head.startswith("overlap "):
            one = head[len("overlap ") :].strip()
            overlaps |= {frozenset((one, other.strip())) for other in rest.split(",")}
            continue
        name, pos, *conditions = head.split(maxsplit=2)
        if name == "class":
            compiled.append(_class(pos, rest, inflector))
            continue
        fields = [name, pos.rstrip("="), *_conditions("".join(conditions), pos, inflector)]
        for source in _parted(rest, overlaps):
            left, _, right = source.partition(">")
            sides = [_side(part, pos, inflector, wordnet) for part in (left, right) if part]
            for word in re.findall(r"[^,/~>*\d\s][^,/~>*\d]*", ",".join(sides)):
                if word.strip() not in _HARMLESS and any(part in banned for part in word.split()):
                    raise ValueError(f"{name} holds the banned word {word.strip()!r}")
                known.add(word.strip())
            compiled.append(" ".join(fields) + ": " + " > ".join(sides))
    return Compiled(compiled, frozenset(known))


def _parted(members: str, overlaps: Collection[frozenset[str]]) -> list[str]:
    """Return the members of a set, each with its own targets if some of them overlap.

    The same holds if a word is on both sides of the ">".
    """
    left, arrow, right = members.partition(">")
    sources = [member.strip() for member in left.split(",")]
    targets = [member.strip() for member in right.split(",")] if arrow else sources

    def overlap(one: str, other: str) -> bool:
        if arrow and not set(one.split("/")).isdisjoint(other.split("/")):
            return True
        pairs = product(one.replace("&", "").split("/"), other.replace("&", "").split("/"))
        return any(frozenset(word.rstrip("-") for word in pair) in overlaps for pair in pairs)

    if not any(overlap(one, other) for one in sources for other in targets):
        return [members]
    parted = []
    for one in sources:
        kept = [other for other in targets if other != one and not overlap(one, other)]
        if kept:
            parted.append(f"{one} > {', '.join(kept)}")
    return parted


def _class(name: str, rest: str, inflector: Inflector) -> str:
    words: dict[str, None] = {}
    for item in (item.strip() for item in rest.split(",")):
        if item.startswith("+"):
            words[item] = None
        elif name in ("list", "fixed", "identity", "clear"):
            words["," if item == "comma" else item] = None
        elif item.endswith(" VERB"):
            words.update(dict.fromkeys(inflector.all_forms(item[: -len(" VERB")], "VERB")))
        else:
            words.update(dict.fromkeys(_forms(item, inflector)))
    # Commas separate the words, so the word "," is spelled out.
    return f"class {name}: " + ", ".join("comma" if w == "," else w for w in words)


def _forms(word: str, inflector: Inflector) -> Iterable[str]:
    return (word,) if word in _CLOSED else inflector.all_forms(word)


def _conditions(text: str, pos: str, inflector: Inflector) -> Iterator[str]:
    """Yield a header's conditions, with the forms of the words that they name."""
    parts = re.split(r"\b(after|before|fallback)\b", text)
    if parts[0].strip():
        raise ValueError(f"{parts[0]!r} is no condition")
    for keyword, listed in zip(parts[1::2], parts[2::2], strict=True):
        yield keyword
        if keyword == "fallback":
            continue
        negated = listed.strip().startswith("!")
        words: dict[str, None] = {}
        for item in (item.strip() for item in listed.strip().lstrip("!").split(",")):
            literal = item.startswith("+") or (keyword == "after" and not pos.startswith("VERB"))
            words.update(dict.fromkeys([item] if literal else _forms(item, inflector)))
        yield "!" * negated + ",".join(word.replace(" ", "_") for word in words)


def _side(text: str, pos: str, inflector: Inflector, wordnet: WordNet) -> str:
    members = []
    for member in text.split(","):
        words = [_word(word.strip(), pos, inflector, wordnet) for word in member.split("/")]
        members.append("/".join(words))
    return ", ".join(members)


def _word(word: str, pos: str, inflector: Inflector, wordnet: WordNet) -> str:
    """Return all forms of a word: for a NOUN count singular, plural and mass."""
    if not word:
        raise ValueError("an empty word")
    if pos == "NOUN":
        lemma = word.strip("=&-")
        plural = lemma if word[0] == "=" else inflector.plural(lemma) if word[-1] != "-" else ""
        single = "" if word[0] == "=" or word[-1] == "-" else lemma
        mass = lemma if word[-1] in "&-" else ""
        return weighted("~".join((single, plural, mass)), frequency(wordnet, lemma, "NOUN"))
    if pos == "VERB":
        return weighted("~".join(inflector.verb(word)), frequency(wordnet, word, "VERB"))
    return weighted(word, frequency(wordnet, word, pos.rstrip("=")))
