"""Putting sentences together."""

from __future__ import annotations

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
