"""What an English reader reads in a caption's characters, and where in the caption each stands.

Captions of the web spell one word in many ways: a typographic apostrophe, an HTML entity, an accent
of its own behind its letter, a soft hyphen, full-width letters. Taggers and word lists know one of
them. So words are read from a folded text, and only positions go back to the caption itself.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from html.entities import html5
from itertools import chain
from typing import NamedTuple

from clic.types import Token

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,31})(?:;|(?![a-z\d]))", re.I)
_UNESCAPED = 8  # times at most: open_clip's tokenizer does it twice, ftfy before that now and then
# Marks in UTF-8 that were read as Windows' encoding; of the last byte of one there is no trace.
_MARKS = {
    mark.encode().decode("cp1252", "ignore"): mark
    for mark in "\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2026"
}
_MISREAD = re.compile("|".join(sorted(_MARKS, key=len, reverse=True)) + "\x9d?")
_INLINE = (
    "a abbr b big cite code del em font i ins kbd mark q s samp small span strike strong sub sup"
)
_INLINE += " tt u var wbr"
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


class Folded(NamedTuple):
    """A caption as it is read.

    Attributes:
        text: Its characters.
        starts: Where in the caption each begins.
        ends: Where each ends; what stands for nothing (markup, a zero-width space) is left out.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def restore(self, caption: str, tokens: Sequence[Token]) -> tuple[Token, ...]:
        """Return tokens of the folded text as those of the caption that it was made from."""
        if self.text == caption:
            return tuple(tokens)
        spans = [(self.starts[t.start], self.ends[t.end - 1]) for t in tokens]
        return tuple(
            token._replace(text=caption[start:end], start=start, end=end)
            for token, (start, end) in zip(tokens, spans, strict=True)
        )


def fold(caption: str) -> Folded:
    """Return what is read in a caption: one spelling of what looks the same.

    HTML entities are the characters they stand for, as to open_clip's tokenizer, and markup is
    nothing, or a space where a browser would begin a line; accents are part of their letter;
    quotes, apostrophes and hyphens are those of ASCII, and so are full-width and ornamental
    letters; what has no width is nothing. Text that needs none of this comes back as it is.
    """
    folded = Folded(caption, range(len(caption)), range(1, len(caption) + 1))
    if _is_plain(caption):
        return folded
    folded = _replaced(folded, _MISREAD, lambda match: _MARKS[match.group().rstrip("\x9d")])
    for _ in range(_UNESCAPED):
        before, folded = folded, _replaced(folded, _ENTITY, _unescape)
        if before is folded:
            break
    if not folded.text.isascii():
        folded = _fold_characters(folded)
    folded = _replaced(folded, _MARKUP, lambda match: "" if match["inline"] else " ")
    return _replaced(folded, _ACCENT_FOR_APOSTROPHE, lambda match: "'")


def spelled(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the tokens of a caption with their texts as they are read, for looking words up."""
    if _is_plain("".join([token.text for token in tokens])):
        return tokens
    return [token._replace(text=_spelled(token.text)) for token in tokens]


def _spelled(word: str) -> str:
    text = fold(word).text
    # An accent for an apostrophe, whose letter before it is in another token.
    return f"'{text[1:]}" if len(text) > 1 and text[0] in _ACCENTS else text


def is_foreign(caption: str) -> bool:
    """Return whether most letters of a caption are of another script than English has."""
    if caption.isascii():
        return False
    letters = list(filter(str.isalpha, fold(caption).text))
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    return 2 * latin < len(letters)


def _is_plain(text: str) -> bool:
    return text.isascii() and not ("&" in text or "<" in text or "`" in text)


def _replaced(
    folded: Folded, pattern: re.Pattern[str], make: Callable[[re.Match[str]], str]
) -> Folded:
    """Return the text with each match replaced; the new characters stand where all of it stood."""
    text, starts, ends = folded
    parts: list[tuple[str, Sequence[int], Sequence[int]]] = []
    position = 0
    for match in pattern.finditer(text):
        first, last = match.span()
        new = make(match)
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
    """Return what an entity stands for; one without its semicolon only where HTML allows that."""
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
        if category[:1] == "M":  # an accent, or a sign that changes how what is before it looks
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
    """Return one character, or the letters that a ligature joins."""
    compatible = unicodedata.normalize("NFKC", character)
    ligature = compatible.isascii() and compatible.isalpha() and character.isalpha()
    if len(compatible) == 1 or ligature:
        character = compatible
    return _FOLDED.get(character, character)
