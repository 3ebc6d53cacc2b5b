"""Splits dense captions into sentences to train on.

CLIC (arXiv 2505.24424) trains on the sentences of machine-written, paragraph-long captions.
"""

from __future__ import annotations

import re

MIN_WORDS, MAX_WORDS = 4, 34
MIN_SENTENCES = 2
"""CLIC keeps sentences of 4 to 34 words, and images with at least two of them."""

_PHOTO = r"(?:image|picture|photo|photograph|snapshot)"
_PICTURE = rf"(?:{_PHOTO}|scene|illustration|painting|drawing|artwork|shot)"
_SHOWS = (
    r"(?:shows|showcases|depicts|displays|features|presents|portrays|captures|illustrates|"
    r"contains|includes|is (?:of|about|showing|depicting|displaying))"
)
# Words between an article and its noun. Another article would start another noun phrase, as in
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
    # the child" or "A painting of a ship", which may hang on a wall in the image
    rf"(?:(?:this|it)\s+is\s+(?:the|an?)\s+(?:{_ADJECTIVE}){{0,4}}?{_PICTURE}"
    rf"|(?:an?\s+)?(?:{_ADJECTIVE}){{0,4}}?{_PHOTO})\s+(?:of|showing|depicting|featuring)",
    # "We can see"
    r"(?:we|you|one)\s+can\s+(?:also\s+)?(?:see|observe|notice)(?:\s+that)?",
]
_LEAD = re.compile(rf"(?:{'|'.join(_LEADS)})\b[\s,:]*", re.IGNORECASE)

# A period after one of the first never ends a sentence; after one of the second it may, if a
# capital follows.
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
    """Return the sentences of a dense caption that are suitable for training.

    The text is split into sentences (the periods of abbreviations, initials and numbers do not
    count), leading phrases such as "The image shows" are removed, and sentences of 4 to 34 words
    are kept in their order.

    Args:
        text: A caption of any length.

    Returns:
        The sentences with their own final punctuation. CLIC drops images with fewer than two.
    """
    prepared = (strip_lead(sentence) for sentence in split(text))
    return [s for s in prepared if MIN_WORDS <= len(s.split()) <= MAX_WORDS]


def strip_lead(sentence: str) -> str:
    """Return a sentence without a leading phrase such as "The image shows", capitalised again."""
    lead = _LEAD.match(sentence)
    rest = sentence[lead.end() :] if lead else ""
    if not lead or not rest.strip(" .!?"):
        return sentence
    return rest[0].upper() + rest[1:] if sentence[0].isupper() else rest


def split(text: str) -> list[str]:
    """Return the sentences of a text. A line break ends a sentence; list markers are removed."""
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
    """Return whether a final mark inside a line ends its sentence."""
    following = line[end.end() :].lstrip().lstrip("\"'\u201c\u2018([")
    if end["mark"] != ".":  # a sentence continues after an ellipsis and a small letter
        return not (end["mark"][-1] in ".\u2026" and following[:1].islower())
    found = _LAST_WORD.search(line, 0, end.start("mark"))
    word = found.group().lower() if found else ""
    if len(word) == 1 and word.isalpha() and word not in "ai":  # an initial: "J. Smith"
        return False
    may_end = _ABBREVIATIONS.get(word, True)
    return may_end and not (word in _ABBREVIATIONS and not following[:1].isupper())
