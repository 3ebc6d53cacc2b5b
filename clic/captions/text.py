"""Captions as text: Unicode folding, comparison, joining sentences, and editing words.

Web captions spell the same word in many ways: typographic apostrophes, HTML entities, combining
accents, soft hyphens, full-width letters. Taggers and word lists know only one spelling, so words
are looked up in a folded text, whose characters remember their positions in the caption.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from html.entities import html5
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from clic.types import Edit, HardNegative, Token

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,31})(?:;|(?![a-z\d]))", re.I)
_UNESCAPE_LIMIT = 8  # passes; open_clip's tokenizer unescapes twice, and ftfy may do so before
# Punctuation in UTF-8 that was decoded as Windows-1252, which drops the last byte of one mark.
_MARKS = {
    mark.encode().decode("cp1252", "ignore"): mark
    for mark in "\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2026"
}
_MISREAD = re.compile("|".join(sorted(_MARKS, key=len, reverse=True)) + "\x9d?")
_INLINE = (
    "a abbr b big cite code del em font i ins kbd mark q s samp small span strike strong sub sup "
    "tt u var wbr"
)
_BLOCKS = (
    "blockquote br center dd div dl dt figcaption figure h[1-6] hr img li ol p pre table tbody td "
    "tfoot th thead tr ul"
)
_MARKUP = re.compile(
    rf"<(?:/?(?:(?P<inline>{'|'.join(_INLINE.split())})|{'|'.join(_BLOCKS.split())})(?=[\s/>])|!--)"
    r"[^<>]*>",
    re.I,
)
_FOLDED = {
    **dict.fromkeys("\u2018\u2019\u201b\u02b9\u02bb\u02bc\u02bd\u2032\u2035\u055a\ua78c", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u2036\u301d\u301e\u301f", '"'),
    **dict.fromkeys("\u2010\u2011\u2043\u058a", "-"),
}
_ACCENTS = "`\u00b4"
_ACCENT_FOR_APOSTROPHE = re.compile(rf"(?<=[^\W\d_])[{_ACCENTS}](?=[^\W\d_])")

_FINAL_MARKS = ("!", "?", "\uff01", "\uff1f")
# Characters that a final period replaces: periods, ellipses, full stops of other scripts, white
# space and invisible characters.
_REPLACED_BY_PERIOD = ". \t\r\n\u2026\u3002\uff0e\u00a0\u202f\u200b\ufeff"

_PATIENCE = 32  # consecutive draws of known texts after which a generator counts as exhausted

# Words whose first sound differs from their first letter.
_CONSONANT_SOUND = ("uni", "use", "usual", "util", "eu", "ewe", "one", "once", "ukulele", "ufo")
_CONSONANT_SOUND_BUT = ("unim", "unin")  # "an unimportant", "an uninvited"
_VOWEL_SOUND = ("hour", "honest", "honour", "honor", "heir", "x-ray", "8", "11", "18")
_SENTENCE_ENDS = frozenset(".!?")
_SPAN = attrgetter("span")
_INDEFINITE = frozenset(("a", "an", "A", "An", "AN", "aN"))


class Folded(NamedTuple):
    """A caption in folded spelling.

    Attributes:
        text: The folded characters.
        starts: Where in the caption each of them begins.
        ends: Where each ends. Markup and zero-width characters have no counterpart in `text`.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def restore(self, caption: str, tokens: Sequence[Token]) -> tuple[Token, ...]:
        """Return tokens of the folded text with their text and positions in the caption."""
        if self.text == caption:
            return tuple(tokens)
        restored: list[Token] = []
        for token in tokens:
            start, end = self.starts[token.start], self.ends[token.end - 1]
            # Several characters may come from one entity ("&fjlig;"), which is never split.
            if not restored or start >= restored[-1].end:
                restored.append(token._replace(text=caption[start:end], start=start, end=end))
        return tuple(restored)


def fold(caption: str) -> Folded:
    """Return a caption with one spelling for everything that looks the same.

    HTML entities become their characters, as in open_clip's tokenizer; markup disappears, or
    becomes a space where a browser starts a new line; combining accents join their letters;
    quotes, apostrophes, hyphens, full-width and ornamental letters become ASCII; zero-width
    characters disappear. A caption that needs none of this is returned unchanged.
    """
    folded = Folded(caption, range(len(caption)), range(1, len(caption) + 1))
    if _is_plain(caption):
        return folded
    folded = _replaced(folded, _MISREAD, lambda match: _MARKS[match.group().rstrip("\x9d")])
    for _ in range(_UNESCAPE_LIMIT):
        before, folded = folded, _replaced(folded, _ENTITY, _unescape)
        if before is folded:
            break
    if not folded.text.isascii():
        folded = _fold_characters(folded)
    folded = _replaced(folded, _MARKUP, lambda match: "" if match["inline"] else " ")
    return _replaced(folded, _ACCENT_FOR_APOSTROPHE, lambda match: "'")


def fold_tokens(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return a caption's tokens with folded texts, for looking words up."""
    if _is_plain("".join([token.text for token in tokens])):
        return tokens
    return [token._replace(text=_fold_word(token.text)) for token in tokens]


def _fold_word(word: str) -> str:
    text = fold(word).text
    # An accent used as an apostrophe; the letter before it belongs to another token.
    return f"'{text[1:]}" if len(text) > 1 and text[0] in _ACCENTS else text


def is_foreign(caption: str) -> bool:
    """Return whether most letters of a caption are not Latin."""
    if caption.isascii():
        return False
    letters = list(filter(str.isalpha, fold(caption).text))
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    return 2 * latin < len(letters)


def lower(text: str) -> str:
    """Return a text in lower case, with every character at its old position.

    ``str.lower`` turns a few characters (such as "İ") into two; these stay as they are.
    """
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join([small if len(small := c.lower()) == 1 else c for c in text])


def normalized(caption: str) -> str:
    """Return a caption in the form in which two captions are compared.

    Captions that differ only in case, spacing, the final period, or how their characters are
    encoded have the same normalized form.
    """
    return end_sentence(" ".join(fold(caption).text.lower().split()))


def end_sentence(sentence: str) -> str:
    """Return the sentence without outer spaces and with exactly one final period.

    A final ``!`` or ``?`` takes the place of the period. A sentence of spaces and periods alone
    becomes the empty string.
    """
    bare = sentence.strip().rstrip(_REPLACED_BY_PERIOD)
    return bare if not bare or bare.endswith(_FINAL_MARKS) else f"{bare}."


def has_words(sentence: str) -> bool:
    """Return whether a sentence contains anything but punctuation and spaces."""
    return any(map(str.isalnum, sentence))


def join(sentences: Sequence[str]) -> str:
    """Join captions into one text, ``"t1. t2."`` (CLIC, arXiv 2505.24424).

    Args:
        sentences: Captions with or without a final period; empty ones are skipped.

    Returns:
        The sentences in the given order, each with one final period, separated by single spaces.
    """
    return " ".join(ended for ended in map(end_sentence, sentences) if ended)


def _is_plain(text: str) -> bool:
    return text.isascii() and not ("&" in text or "<" in text or "`" in text)


def _replaced(
    folded: Folded, pattern: re.Pattern[str], make: Callable[[re.Match[str]], str]
) -> Folded:
    """Return the text with each match replaced; new characters take the span of the whole match."""
    text, starts, ends = folded
    parts: list[tuple[str, Sequence[int], Sequence[int]]] = []
    position = 0
    for match in pattern.finditer(text):
        first, last = match.span()
        new = make(match)
        if new == match.group():
            continue  # its characters keep their own spans
        parts += [
            (text[position:first], starts[position:first], ends[position:first]),
            (new, [starts[first]] * len(new), [ends[last - 1]] * len(new)),
        ]
        position = last
    if not parts:
        return folded
    parts.append((text[position:], starts[position:], ends[position:]))
    texts, starts_of, ends_of = zip(*parts, strict=True)
    return Folded("".join(texts), [*chain(*starts_of)], [*chain(*ends_of)])


def _unescape(match: re.Match[str]) -> str:
    """Return an entity's character; without its semicolon only where HTML allows that."""
    name = match.group()[1:]
    return html.unescape(match.group()) if name[0] == "#" or name in html5 else match.group()


def _fold_characters(folded: Folded) -> Folded:
    read: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for character, start, end in zip(*folded, strict=True):
        category = "" if character.isascii() else unicodedata.category(character)
        if category == "Cf":
            continue
        if category[:1] == "M":  # a combining accent or a variation selector
            if read and not read[-1].isspace():
                both = unicodedata.normalize("NFC", read[-1] + character)
                read[-1] = both if len(both) == 1 else read[-1]
                ends[-1] = end
            continue
        new = _fold_character(character) if category else character
        read += new
        starts += [start] * len(new)
        ends += [end] * len(new)
    return Folded("".join(read), starts, ends)


def _fold_character(character: str) -> str:
    """Return the folded character, or the letters of a ligature."""
    compatible = unicodedata.normalize("NFKC", character)
    ligature = compatible.isascii() and compatible.isalpha() and character.isalpha()
    if len(compatible) == 1 or ligature:
        character = compatible
    return _FOLDED.get(character, character)


class Change(NamedTuple):
    """New text for the tokens from `first` up to, but not including, `last`."""

    first: int
    last: int
    text: str


def indefinite_article(word: str) -> str:
    """Return ``"a"`` or ``"an"``, whichever precedes `word`."""
    word = word.lower()
    if word.startswith(_VOWEL_SOUND):
        return "an"
    if word.startswith(_CONSONANT_SOUND) and not word.startswith(_CONSONANT_SOUND_BUT):
        return "a"
    return "an" if word[:1] in tuple("aeiou") else "a"


def starts_sentence(tokens: Sequence[Token], index: int) -> bool:
    """Return whether a token is the first of a sentence."""
    return index == 0 or tokens[index - 1].text in _SENTENCE_ENDS


def text_without_capital(caption: str, tokens: Sequence[Token], first: int, last: int) -> str:
    """Return the text of some tokens without a capital that only marks the start of a sentence."""
    text = caption[tokens[first].start : tokens[last - 1].end]
    if not text[:1].isupper():
        return text
    token = tokens[first]
    placed = starts_sentence(tokens, first) and token.pos != "PROPN" and token.text[1:].islower()
    if placed or token.text == "A":
        return text[:1].lower() + text[1:]
    return text


def make_edits(
    caption: str,
    tokens: Sequence[Token],
    changes: Iterable[Change],
    index: int = 0,
    articles: bool = True,
) -> tuple[Edit, ...]:
    """Turn changes of words into edits of the text, with capitals and articles repaired.

    Args:
        caption: The original text.
        tokens: Its tokens.
        changes: New texts for ranges of tokens that do not overlap.
        index: Number of the caption, which the edits record.
        articles: Whether to adapt "a" and "an" to the new words.

    Returns:
        The edits, those of articles included, in the order of their spans.
    """
    changes = list(changes)
    capitals = articles and len(caption) > 1 and caption.isupper()
    ends = {change.last for change in changes}
    edits = []
    for first, last, text in changes:
        start, end = tokens[first].start, tokens[last - 1].end
        if capitals:
            text = text.upper()
        elif caption[start].isupper() and starts_sentence(tokens, first):
            text = text[:1].upper() + text[1:]
        if articles and first > 0 and first not in ends:
            before = tokens[first - 1]
            if before.text in _INDEFINITE:
                edits += _article_edits(caption, before, text, index)
        edits.append(Edit(index, (start, end), caption[start:end], text))
    return tuple(edits) if len(changes) == 1 else tuple(sorted(edits, key=_SPAN))


def _article_edits(caption: str, before: Token, text: str, index: int) -> list[Edit]:
    """Return the edit of an "a" or "an" that does not fit the new word after it."""
    article = indefinite_article(text)
    if article == before.text.lower():
        return []
    new = article.capitalize() if before.text[0].isupper() else article
    if caption.isupper():
        new = article.upper()
    return [Edit(index, (before.start, before.end), caption[before.start : before.end], new)]


def apply_edits(caption: str, edits: Sequence[Edit]) -> str:
    """Return the caption with each edit's span replaced by its new text."""
    if len(edits) == 1:
        _, (start, end), _, new = edits[0]
        return caption[:start] + new + caption[end:]
    parts, position = [], 0
    for _, (start, end), _, new in sorted(edits, key=_SPAN):
        parts += [caption[position:start], new]
        position = end
    return "".join(parts) + caption[position:]


def unlike(known: Collection[str], make: Callable[[], HardNegative | None]) -> HardNegative | None:
    """Return a negative whose normalized text is not among the known ones.

    Returns None if `make` does, or if it keeps drawing known texts.
    """
    for _ in range(_PATIENCE):
        negative = make()
        if negative is None or not known or normalized(negative.text) not in known:
            return negative
    return None
