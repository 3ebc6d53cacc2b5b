"""The texts of a sample as a shard stores them: captions, false captions, and the captions' tags.

A sample's JSON may contain the tags of its captions (`clic-data annotate`):

    "tokens": [[[0, 1, 1, 3, 1, 4], "DJN", ["", "", "dog"]], ...]   one entry per caption
    "tagger": {"name": "hanta", "version": "1.2.1+2"}
    "caption_hash": "9d1f..."

An entry lists, for each token, the gap before it and its length in characters; one letter for its
universal POS; and its lemma, which is empty if it equals the lower-case word.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

from clic.captions.tagging import Tagger, installed_version
from clic.captions.text import lower
from clic.errors import DataError
from clic.types import Token

MAX_TEXT = 1_000_000
"""Largest JSON or text of a sample, in bytes."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def parse_record(data: bytes) -> dict[str, Any]:
    """Return a sample's JSON; raises `DataError` if it is not an object or exceeds `MAX_TEXT`."""
    check_length("JSON", len(data))
    try:
        record = json.loads(data)  # in UTF-8, -16 or -32, with or without a byte order mark
    except UnicodeDecodeError as error:
        raise DataError(f"its JSON is not valid UTF-8 ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"its JSON is not valid: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"its JSON should be an object, not {type(record).__name__}")
    return record


def detect_encoding(start: bytes, given: str | None = None) -> tuple[str, int]:
    """Return the encoding of a text by its first bytes, and the length of its byte order mark.

    Without a mark it is the user's choice, `given`. If there is none, UTF-16 is detected by the
    zeros between its letters, and anything else counts as UTF-8.
    """
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding, len(mark)
    if given is not None:
        return given, 0
    high, low = start[:512:2], start[1:512:2]
    for encoding, zeros, others in (("utf-16-le", low, high), ("utf-16-be", high, low)):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            return encoding, 0
    return "utf-8", 0


def decode_text(data: bytes, what: str = "its text") -> str:
    """Decode a text in UTF-8, or in the encoding of its byte order mark; messages call it `what`.

    Raises:
        DataError: It is neither. No other encoding is guessed, lest the model learn garbled text.
    """
    likely, mark = detect_encoding(data)
    encoding = likely if mark else "utf-8"
    unmarked = "" if likely == encoding else f"{likely[:6]}{likely[7:]}"  # as iconv writes it
    remedy = "save it as UTF-8, e.g. by iconv -f {} -t utf-8"
    try:
        text = data[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} is not {encoding[:6].upper()} ({error.reason} at byte {mark + error.start}); "
            f"{remedy.format(unmarked or 'cp1252')}"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{what} holds zero bytes, as UTF-16 without a byte order mark does; "
            f"{remedy.format(unmarked or 'utf-16le')}"
        )
    return text


def check_length(what: str, length: int) -> None:
    """Raise `DataError` if a sample's JSON or text exceeds `MAX_TEXT`."""
    if length > MAX_TEXT:
        raise DataError(f"its {what} of {length} bytes is above the limit of {MAX_TEXT}")


def negatives_of(record: dict[str, Any]) -> tuple[str, ...]:
    """Return a sample's false captions: the JSON's `negatives`, a list of texts if there are any.

    Raises:
        DataError: They are not a list of texts.
    """
    found = record.get("negatives")
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError("its `negatives` should be a list of texts; pack it again")
    return tuple(text.strip() for text in found if text.strip())


def captions_of(record: dict[str, Any], text: bytes, *, checked: bool = False) -> tuple[str, ...]:
    """Return a sample's captions: the `captions` or `caption` of its JSON, else its `.txt`.

    `checked` means that they are known to be valid Unicode.

    Raises:
        DataError: A caption is not valid Unicode, or the text is refused by `decode_text` or
            exceeds `MAX_TEXT`.
    """
    found = record.get("captions") or record.get("caption")
    sentences = found if isinstance(found, list) else [found]
    captions = tuple(s.strip() for s in sentences if isinstance(s, str) and s.strip())
    if not captions and text:
        check_length("text", len(text))
        caption = decode_text(text).strip()
        captions = (caption,) if caption else ()
    if checked:
        return captions
    try:
        "".join(captions).encode()
    except UnicodeEncodeError as error:  # JSON may contain half a surrogate pair
        raise DataError(f"a caption is not valid Unicode: {error}") from error
    return captions


TAG_KEYS = ("tokens", "tagger", "caption_hash")
"""The keys that `annotate` adds to a sample's JSON."""
_FORMAT = "clic tokens 1"  # part of the hash, so that tokens in another format do not match
_LETTERS = {
    "ADJ": "J", "ADP": "I", "ADV": "R", "AUX": "B", "CCONJ": "C", "DET": "D", "INTJ": "U",
    "NOUN": "N", "NUM": "M", "PART": "T", "PRON": "P", "PROPN": "O", "PUNCT": ".", "SCONJ": "S",
    "SYM": "$", "VERB": "V", "X": "x",
}  # fmt: skip
_TAGS = {letter: pos for pos, letter in _LETTERS.items()}

Tags = tuple[tuple[Token, ...], ...]


def annotate(captions: Sequence[str], tagger: Tagger) -> dict[str, Any]:
    """Tag captions and return the entries for the JSON of their sample.

    Args:
        captions: All of the sample's captions, in the order in which they are stored.
        tagger: Tags them; its name and version are stored, too.

    Returns:
        The keys `tokens`, `tagger` and `caption_hash`.
    """
    tokens = [tagger(caption) for caption in captions]
    return tag_record(captions, tokens, tagger.name, tagger.version)


def tag_record(
    captions: Sequence[str], tokens: Sequence[Sequence[Token]], name: str, version: str
) -> dict[str, Any]:
    """Return the same entries as `annotate`, from given tokens.

    Args:
        captions: All of the sample's captions, in the order in which they are stored.
        tokens: The tokens of each caption.
        name: Name of the tagger that made them.
        version: Its version.
    """
    return {
        "tokens": [_packed(sentence) for sentence in tokens],
        "tagger": {"name": name, "version": version},
        "caption_hash": caption_hash(captions),
    }


def caption_hash(captions: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that identify the captions, regardless of case."""
    text = "\0".join([_FORMAT, *map(lower, captions)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def stored_tokens(
    stored: Mapping[str, Any], captions: Sequence[str], most: int | None = None
) -> Tags | None:
    """Return the tokens of each caption, as they were stored.

    Args:
        stored: A sample's JSON.
        captions: Its captions, in their original case or in lower case; the tokens follow that.
        most: Number of captions, from the first on, whose tokens are unpacked; None unpacks all.

    Returns:
        The tokens, or None if none are stored or they belong to other captions. If another
        version of an installed tagger made them, a warning names both, once per process.

    Raises:
        DataError: The hash matches, but the tokens do not fit the captions.
    """
    if "caption_hash" not in stored or stored["caption_hash"] != caption_hash(captions):
        return None
    if isinstance(made_by := stored.get("tagger"), Mapping):
        _check_version(str(made_by.get("name")), str(made_by.get("version")))
    try:
        pairs = list(zip(captions, stored["tokens"], strict=True))[:most]
        return tuple([_unpacked(caption, *entry) for caption, entry in pairs])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the stored tokens are broken ({error}); write them again with clic-data annotate "
            "--force"
        ) from error


@lru_cache
def _check_version(name: str, stored: str) -> None:
    """Warn if stored tags were made by another version of a tagger than the installed one."""
    installed = installed_version(name)
    if installed is not None and installed != stored:
        warnings.warn(
            f"the stored tags were made by {name} {stored}, and here is {name} {installed}, whose "
            "tags may differ; run clic-data annotate on the shards, or set "
            f"captions.tagger={name}",
            stacklevel=3,
        )


def _packed(tokens: Sequence[Token]) -> list[Any]:
    bounds = [bound for token in tokens for bound in (token.start, token.end)]
    return [
        [b - a for a, b in zip([0, *bounds], bounds, strict=False)],
        "".join([_LETTERS[token.pos] for token in tokens]),
        ["" if token.lemma == token.text.lower() else token.lemma for token in tokens],
    ]


def _unpacked(
    caption: str, gaps: Sequence[int], letters: str, lemmas: Sequence[str]
) -> tuple[Token, ...]:
    bounds = list(accumulate(gaps))
    starts, ends = bounds[::2], bounds[1::2]
    if gaps and (min(gaps) < 0 or not all(gaps[1::2]) or bounds[-1] > len(caption)):
        raise ValueError("a token lies outside its caption, or is empty")
    "".join(lemmas)  # a TypeError if one is not a text
    texts = [caption[start:end] for start, end in zip(starts, ends, strict=True)]
    lemmas = [lemma or text.lower() for lemma, text in zip(lemmas, texts, strict=True)]
    tags = [_TAGS[letter] for letter in letters]
    return tuple(map(Token._make, zip(texts, starts, ends, tags, lemmas, strict=True)))
