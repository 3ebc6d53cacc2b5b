"""Putting sentences together.

Dense captions made into sentences: leading phrases off, split, too short and too long left out.

CLIC (arXiv 2505.24424) trains on the sentences of captions that a model wrote, a paragraph each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENDINGS = ("!", "?", "\uff01", "\uff1f")
# What a final period takes the place of; the others are an ellipsis, a full stop of other scripts,
# and what looks like a space or like nothing.
_LEFT_OUT = ". \t\r\n\u2026\u3002\uff0e\u00a0\u202f\u200b\ufeff"


def end_sentence(sentence: str) -> str:
    """Return the sentence without outer spaces and with exactly one final period.

    A final ``!`` or ``?`` stands in place of the period. What holds no more than spaces and
    periods becomes the empty string.
    """
    bare = sentence.strip().rstrip(_LEFT_OUT)
    return bare if not bare or bare.endswith(_ENDINGS) else f"{bare}."


def has_words(sentence: str) -> bool:
    """Return whether a sentence holds more than marks and spaces."""
    return any(map(str.isalnum, sentence))


def join(sentences: Sequence[str]) -> str:
    """Join captions into one text, ``"t1. t2."`` (CLIC, arXiv 2505.24424).

    Args:
        sentences: Captions with or without a final period; empty ones are left out.

    Returns:
        The sentences in the given order, each ended by one period, one space between them.
    """
    return " ".join(ended for ended in map(end_sentence, sentences) if ended)


MIN_WORDS, MAX_WORDS = 4, 34
MIN_SENTENCES = 2
"""What CLIC keeps: sentences of 4 to 34 words, and images with at least two of them."""

_PHOTO = r"(?:image|picture|photo|photograph|snapshot)"
_PICTURE = rf"(?:{_PHOTO}|scene|illustration|painting|drawing|artwork|shot)"
_SHOWS = (
    r"(?:shows|showcases|depicts|displays|features|presents|portrays|captures|illustrates|"
    r"contains|includes|is (?:of|about|showing|depicting|displaying))"
)
# Words between an article and what it is about; another article would begin another thing, as in
# "the man in the picture shows".
_ADJECTIVE = r"(?!(?:the|this|that|a|an|his|her|their|its|my|your|our)\s)[\w-]+\s+"
_SEE = r"(?:we|you|one)\s+(?:can\s+)?(?:also\s+)?(?:see|observe|notice)(?:\s+that)?"
_LEADS = [
    # "The image shows", "This black and white photo also features"
    rf"(?:the|this|a|an)\s+(?:{_ADJECTIVE}){{0,4}}?{_PICTURE}\s+(?:also\s+|clearly\s+)?{_SHOWS}"
    r"(?:\s+us)?(?:\s+that)?",
    # "In the image, we can see", "In this photo a"; not "In the picture frame"
    rf"(?:in|within|on)\s+(?:the|this)\s+(?:{_ADJECTIVE}){{0,4}}?{_PICTURE}"
    rf"(?:\s*,?\s+{_SEE}|(?=\s*,|\s+(?:there|a|an|the|two|three|several|some|many)\b))",
    # "This is a drawing of", "An image of", "A close-up photograph showing"; not "The drawing of
    # the child", "A painting of a ship", which may hang on a wall
    rf"(?:(?:this|it)\s+is\s+(?:the|an?)\s+(?:{_ADJECTIVE}){{0,4}}?{_PICTURE}"
    rf"|(?:an?\s+)?(?:{_ADJECTIVE}){{0,4}}?{_PHOTO})\s+(?:of|showing|depicting|featuring)",
    # "We can see"
    r"(?:we|you|one)\s+can\s+(?:also\s+)?(?:see|observe|notice)(?:\s+that)?",
]
_LEAD = re.compile(rf"(?:{'|'.join(_LEADS)})\b[\s,:]*", re.IGNORECASE)

# After these a period never ends a sentence; after the second kind it may, before a capital.
_NEVER = (
    "mr mrs ms dr prof sr jr st mt ft gen col sgt capt lt rev hon no nos vs fig figs approx est "
    "e.g i.e cf al vol ed ave blvd"
)
_MAYBE = "etc a.m p.m u.s u.k u.s.a d.c inc ltd co corp"
_ABBREVIATIONS = {**dict.fromkeys(_NEVER.split(), False), **dict.fromkeys(_MAYBE.split(), True)}
_END = re.compile(r"(?P<mark>[.!?\u2026]+)[\"'\u201d\u2019)\]]*(?=\s)")
_LAST_WORD = re.compile(r"[\w.]*$")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]+|\(?\d{1,2}[.)])\s+")


def prepare(text: str) -> list[str]:
    """Return the sentences of a dense caption that are fit to train on.

    Leading phrases such as "The image shows" are removed, the text is split into sentences
    (the periods of abbreviations, initials and numbers do not count), and sentences of 4 to 34
    words are kept, in their order.

    Args:
        text: A caption of any length.

    Returns:
        The sentences, with their own final marks; fewer than two make an image unfit for CLIC.
    """
    prepared = (strip_lead(sentence) for sentence in split(text))
    return [s for s in prepared if MIN_WORDS <= len(s.split()) <= MAX_WORDS]


def strip_lead(sentence: str) -> str:
    """Return a sentence without what says only that it is about an image, in capitals again."""
    lead = _LEAD.match(sentence)
    rest = sentence[lead.end() :] if lead else ""
    if not lead or not rest.strip(" .!?"):
        return sentence
    return rest[0].upper() + rest[1:] if sentence[0].isupper() else rest


def split(text: str) -> list[str]:
    """Return the sentences of a text; a line break ends one, a bullet or number before it goes."""
    sentences = []
    for line in text.splitlines():
        line = " ".join(_BULLET.sub("", line).split())
        start = 0
        for end in _END.finditer(line):
            if _ends(line, end):
                sentences.append(line[start : end.end()].strip())
                start = end.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(line: str, end: re.Match[str]) -> bool:
    following = line[end.end() :].lstrip().lstrip("\"'\u201c\u2018([")
    if end["mark"] != ".":  # an ellipsis before a small letter goes on
        return not (end["mark"][-1] in ".\u2026" and following[:1].islower())
    found = _LAST_WORD.search(line, 0, end.start("mark"))
    word = found.group().lower() if found else ""
    if len(word) == 1 and word.isalpha() and word not in "ai":  # an initial: "J. Smith"
        return False
    may_end = _ABBREVIATIONS.get(word, True)
    return may_end and not (word in _ABBREVIATIONS and not following[:1].isupper())
