"""What the package knows about English words: word lists, and words that exclude each other."""

from __future__ import annotations

from collections.abc import Iterable
from configparser import ConfigParser
from functools import lru_cache
from importlib.resources import files
from itertools import accumulate
from typing import NamedTuple

from clic.errors import DataError


def _read_word_lists() -> dict[str, dict[str, frozenset[str]]]:
    """Return the lists of data/word_lists.txt by section and name."""
    parser = ConfigParser(delimiters=":", interpolation=None)
    path = files("clic.captions") / "data" / "word_lists.txt"
    parser.read_string(path.read_text(encoding="utf-8"))
    return {
        section: {
            name: frozenset(word.replace("_", " ") for word in words.split())
            for name, words in parser[section].items()
        }
        for section in parser.sections()
    }


_SECTIONS = _read_word_lists()
WORDS = _SECTIONS["words"]
"""Closed word lists by name, in lower case except for `lowered`."""
VERB_GROUPS = _SECTIONS["alike"]
"""Groups of verbs, as lemmas, that may all describe one act."""
ARTICLES = WORDS["articles"]


class Word(NamedTuple):
    """A word's forms, "" for a missing one, and the weight with which it is drawn."""

    forms: tuple[str, ...]
    weight: int


Member = tuple[Word, ...]  # near-synonyms


class Condition(NamedTuple):
    """A list of words, one of which must (or, if negated, none of which may) be at a place."""

    words: frozenset[str]
    negated: bool

    def holds(self, *found: str) -> bool:
        """Return whether the condition holds for the word there, under any of its names."""
        return self.negated == self.words.isdisjoint(found)


class ContrastSet(NamedTuple):
    """One line of the lexicon: its members, their replacements, and where they apply."""

    pos: str
    after: Condition | None
    before: Condition | None
    fallback: bool
    sources: tuple[Member, ...]
    targets: tuple[Member, ...]


class Use(NamedTuple):
    """A form of a source: word `form` of `member` in set `number`; `words` are its tokens."""

    words: tuple[str, ...]
    pos: str
    form: int
    number: int
    member: int


class Alternative(NamedTuple):
    """A replacement for a word, and its rivals: words that rule it out if the caption has them.

    These are the text itself and, for nouns, its other forms and near-synonyms.
    """

    text: str
    rivals: frozenset[str]


class NounEntry(NamedTuple):
    """What is known about a noun that may change places with another."""

    kind: str  # "people", "animals", a class "kinds-...", or "" for others
    place: bool
    generic: bool  # it may mean many others of its kind ("person", "food")
    synonyms: frozenset[str]


class Alternatives(NamedTuple):
    """Alternatives with their cumulative weights."""

    items: tuple[Alternative, ...]
    cumulative: tuple[int, ...]


class Lexicon:
    """Alternatives of words, from contrast sets.

    A line is ``name POS [conditions]: member, member, ...``; any member replaces any other. In
    ``...: member, ... > member, ...`` those on the right replace those on the left only. In a
    member, ``a/b`` are near-synonyms, ``a~b`` are forms of one word, in the same order throughout
    the set, and ``a*7`` has weight 7. Conditions are ``fallback``, and ``after`` or ``before``
    with a list of words and ``+classes``; `clic.captions.phrases` defines the places that they
    refer to. ``class name: word, ...`` names a list. Lines that start with ``#`` are comments.

    Args:
        lines: The lines of a lexicon file.

    Raises:
        DataError: A line does not have that form.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        #: Lists of words by name.
        self.classes: dict[str, frozenset[str]] = {}
        #: The contrast sets in the file's order.
        self.sets: list[ContrastSet] = []
        #: The uses of single words by word, and of phrases by their first word, longest first.
        self.single: dict[str, list[Use]] = {}
        self.several: dict[str, list[Use]] = {}
        self._synonyms: dict[tuple[str, str], set[str]] = {}
        self._lists: dict[str, Condition] = {}
        self._cache: dict[tuple[Use, ...], Alternatives] = {}
        self._known: dict[tuple[str, str], frozenset[str]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("class "):
                self._add_class(line, number)
            else:
                self._add_set(line, number)
        for phrase in self.classes.get("fixed", ()):
            words = tuple(phrase.split())
            if all(use.words != words for use in self.several.get(words[0], ())):
                self.several.setdefault(words[0], []).append(Use(words, "", 0, -1, -1))
        self._things: dict[str, NounEntry] = {}
        for uses in self.several.values():
            uses.sort(key=lambda use: -len(use.words))  # the sort is stable

    def _add_class(self, line: str, number: int) -> None:
        name, _, rest = line[len("class ") :].partition(":")
        words: set[str] = set()
        for item in (item.strip() for item in rest.split(",")):
            words |= self._class(item[1:], line, number) if item[:1] == "+" else {item}
        self.classes[name.strip()] = frozenset("," if w == "comma" else w for w in words)

    def _class(self, name: str, line: str, number: int) -> frozenset[str]:
        if name not in self.classes:
            raise _error(line, number, f"there is no class {name!r} above it")
        return self.classes[name]

    def _add_set(self, line: str, number: int) -> None:
        head, colon, rest = line.partition(":")
        left, arrow, right = rest.partition(">")
        sources = _members(left)
        targets = _members(right) if arrow else sources
        words = [word for member in sources + targets for word in member]
        whole = all(any(word.forms) for word in words) and len({len(w.forms) for w in words}) == 1
        enough = len(targets) > (0 if arrow else 1)
        fields = head.split()
        if not colon or len(fields) < 2 or not whole or not enough:
            raise _error(line, number, "is not 'name POS: word, word' with as many ~forms in each")
        pos = fields[1]
        conditions = self._conditions(fields[2:], line, number)
        fallback = fields[-1] == "fallback"
        after, before = conditions.get("after"), conditions.get("before")
        self.sets.append(ContrastSet(pos, after, before, fallback, sources, targets))
        for m, member in enumerate(sources):
            for word in member:
                for k, form in enumerate(word.forms):
                    if form:
                        self._add_use(Use(tuple(form.split()), pos, k, len(self.sets) - 1, m))
                        same = self._synonyms.setdefault((form, pos), set())
                        same.update(other.forms[k] for other in member)

    def _conditions(self, fields: list[str], line: str, number: int) -> dict[str, Condition]:
        found = {}
        names = [field for field in fields if field != "fallback"]
        if len(names) % 2 or any(name not in ("after", "before") for name in names[::2]):
            raise _error(line, number, "has conditions other than 'after LIST', 'before LIST'")
        for name, listed in zip(names[::2], names[1::2], strict=True):
            if listed not in self._lists:  # many sets share one
                words: set[str] = set()
                for item in listed.lstrip("!").split(","):
                    plain = item.replace("_", " ")
                    words |= self._class(item[1:], line, number) if item[0] == "+" else {plain}
                self._lists[listed] = Condition(frozenset(words), listed.startswith("!"))
            found[name] = self._lists[listed]
        return found

    def _add_use(self, use: Use) -> None:
        table = self.single if len(use.words) == 1 else self.several
        table.setdefault(use.words[0], []).append(use)

    def draw_list(self, uses: tuple[Use, ...]) -> Alternatives:
        """Return the replacements for one word or phrase under all of these uses of it."""
        if uses not in self._cache:
            self._cache[uses] = self._draw_list(uses)
        return self._cache[uses]

    def _draw_list(self, uses: tuple[Use, ...]) -> Alternatives:
        items: dict[str, tuple[int, frozenset[str]]] = {}
        for use in uses:
            chosen = self.sets[use.number]
            source = chosen.sources[use.member]
            for target in chosen.targets:
                if target is source:
                    continue
                family = frozenset(form for word in target for form in word.forms if form)
                for word in target:
                    text = word.forms[use.form]
                    if text:
                        rivals = family if use.pos == "NOUN" else frozenset((text,))
                        items.setdefault(text, (word.weight, rivals))
        # Near-synonyms in any set never exclude each other.
        for use in uses:
            for form in self._synonyms[" ".join(use.words), use.pos]:
                items.pop(form, None)
        alternatives = tuple(Alternative(text, rivals) for text, (_, rivals) in items.items())
        return Alternatives(alternatives, tuple(accumulate(weight for weight, _ in items.values())))

    def synonyms(self, word: str, pos: str) -> frozenset[str]:
        """Return the near-synonyms that some set lists for a word, itself included."""
        return frozenset(self._synonyms.get((word, pos), ()))

    def thing(self, noun: str) -> NounEntry:
        """Return what is known about a noun in lower case."""
        found = self._things.get(noun)
        if found is None:
            kinds = ("people", "animals", *(n for n in self.classes if n.startswith("kinds-")))
            found = self._things[noun] = NounEntry(
                kind=next((n for n in kinds if noun in self.classes.get(n, ())), ""),
                place=noun in self.classes.get("places", ()),
                generic=noun in self.classes.get("generic", ()),
                synonyms=self.synonyms(noun, "NOUN"),
            )
        return found

    def excludes(self, first: str, second: str, pos: str) -> bool:
        """Return whether one of two words is an alternative of the other."""
        return second in self._opposites(first, pos) or first in self._opposites(second, pos)

    def _opposites(self, word: str, pos: str) -> frozenset[str]:
        key = (word, pos)
        if key not in self._known:
            self._known[key] = frozenset(self.alternatives(word, pos))
        return self._known[key]

    def alternatives(self, word: str, pos: str) -> tuple[str, ...]:
        """Return the words that exclude `word`, in its form, under any conditions.

        Args:
            word: A word or phrase in lower case, in any form that the lexicon lists.
            pos: Its universal POS.

        Returns:
            Lower-case words or phrases; empty if the lexicon does not know the word.
        """
        words = tuple(word.split())
        table = self.single if len(words) == 1 else self.several
        found = [u for u in table.get(words[0], ()) if u.words == words and u.pos == pos]
        return tuple(item.text for item in self.draw_list(tuple(found)).items)


def _members(text: str) -> tuple[Member, ...]:
    return tuple(
        tuple(_word(word.strip()) for word in member.split("/")) for member in text.split(",")
    )


def _word(text: str) -> Word:
    forms, star, weight = text.partition("*")
    return Word(tuple(form.strip() for form in forms.split("~")), int(weight) if star else 1)


def _error(line: str, number: int, what: str) -> DataError:
    return DataError(f"lexicon, line {number}: {line.strip()[:60]!r} {what}; correct the line")


@lru_cache(maxsize=1)
def default_lexicon() -> Lexicon:
    """Return the lexicon that ships with the package, loaded once per process."""
    path = files("clic.captions") / "data" / "lexicon.txt"
    return Lexicon(path.read_text(encoding="utf-8").splitlines())
