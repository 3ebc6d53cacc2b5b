"""Stored annotation: what a sample's JSON keeps of its captions' tags, and reading it back.

    "tokens": [[[0, 1, 1, 3, 1, 4], "DJN", ["", "", "dog"]], ...]   one entry a caption
    "tagger": {"name": "hanta", "version": "1.2.1+2"}
    "caption_hash": "9d1f..."

An entry holds, for each token in turn, the gap before it and its length in characters, one letter
for its universal POS, and its lemma, empty where that is the lower-case word itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from clic.captions.tagging import Tagger, lower
from clic.errors import DataError
from clic.types import Token

KEYS = ("tokens", "tagger", "caption_hash")
"""What `annotate` puts into a sample's JSON."""
_FORMAT = "clic tokens 1"  # part of the hash, so that what was written otherwise does not match
_LETTERS = {
    "ADJ": "J", "ADP": "I", "ADV": "R", "AUX": "B", "CCONJ": "C", "DET": "D", "INTJ": "U",
    "NOUN": "N", "NUM": "M", "PART": "T", "PRON": "P", "PROPN": "O", "PUNCT": ".", "SCONJ": "S",
    "SYM": "$", "VERB": "V", "X": "x",
}  # fmt: skip
_TAGS = {letter: pos for pos, letter in _LETTERS.items()}

Captions = tuple[tuple[Token, ...], ...]


def annotate(captions: Sequence[str], tagger: Tagger) -> dict[str, Any]:
    """Tag captions and return what belongs into the JSON of their sample.

    Args:
        captions: All of the sample's captions, in the order in which they are stored.
        tagger: Tags them; its name and version are kept.

    Returns:
        The keys `tokens`, `tagger` and `caption_hash`.
    """
    return record(captions, [tagger(caption) for caption in captions], tagger.name, tagger.version)


def record(
    captions: Sequence[str], tokens: Sequence[Sequence[Token]], name: str, version: str
) -> dict[str, Any]:
    """Return what `annotate` returns, from tokens that are known already.

    Args:
        captions: All of the sample's captions, in the order in which they are stored.
        tokens: The tokens of each.
        name: What made them.
        version: Its version.
    """
    return {
        "tokens": [_packed(sentence) for sentence in tokens],
        "tagger": {"name": name, "version": version},
        "caption_hash": caption_hash(captions),
    }


def caption_hash(captions: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that stand for the captions, whatever their case."""
    text = "\0".join([_FORMAT, *map(lower, captions)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def stored_tokens(stored: Mapping[str, Any], captions: Sequence[str]) -> Captions | None:
    """Return the tokens of each caption, as they were stored.

    Args:
        stored: A sample's JSON.
        captions: Its captions, in their own case or in lower case; the tokens follow it.

    Returns:
        The tokens, None where none are stored or where they are those of other captions.

    Raises:
        DataError: The hash fits and the tokens do not.
    """
    if "caption_hash" not in stored or stored["caption_hash"] != caption_hash(captions):
        return None
    try:
        entries = stored["tokens"]
        return tuple([_unpacked(c, *entry) for c, entry in zip(captions, entries, strict=True)])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the stored tokens are broken ({error}); write them anew with clic-data annotate "
            "--force"
        ) from error


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
    "".join(lemmas)  # a TypeError where one is no text
    texts = [caption[start:end] for start, end in zip(starts, ends, strict=True)]
    lemmas = [lemma or text.lower() for lemma, text in zip(lemmas, texts, strict=True)]
    tags = [_TAGS[letter] for letter in letters]
    return tuple(map(Token._make, zip(texts, starts, ends, tags, lemmas, strict=True)))
