"""How long captions are in a model's tokens, before its context cuts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clic import models
from clic.data.batches.captioner import CaptionTokenizer
from clic.errors import ModelError

Measure = Callable[[str], int]


def make_measure(model: str) -> Measure:
    """Return what counts the tokens of a caption, start and end of text included.

    Args:
        model: Any name of a model; its weights are not loaded.

    Raises:
        ModelError: The model is unknown, or its tokenizer is unavailable.
    """
    return CaptionTokenizer(_tokenizer(model)).length


def context_length(model: str) -> int:
    """Return the number of tokens that the model reads; raises `ModelError`."""
    return int(getattr(_tokenizer(model), "context_length", None) or 77)


def _tokenizer(model: str) -> Any:
    source = models.resolve(model, None)
    try:
        return models.tokenizer_of(source)
    except (ImportError, OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer of {model} cannot be had ({str(error).splitlines()[0]}); "
            "check the network, or name another with --model"
        ) from error


def share_above(lengths: Mapping[int, float], context: int) -> float:
    """Return the fraction of texts longer than a context."""
    total = sum(lengths.values())
    return sum(n for length, n in lengths.items() if length > context) / total if total else 0.0


def joined(lengths: Mapping[int, int], special: int) -> dict[int, float]:
    """Return the distribution of the length of two random texts when joined.

    Joining keeps one start and one end of text; the period between them is not counted.

    Args:
        lengths: Number of texts by length, start and end included.
        special: Length of an empty text: the tokens that start and end it.

    Returns:
        The fraction of each length.
    """
    counts = np.zeros(max(lengths, default=special) + 1)
    for length, number in lengths.items():
        counts[length] = number
    bare = counts[special:] / counts.sum()
    shares = np.convolve(bare, bare)
    return {int(length) + special: float(shares[length]) for length in np.flatnonzero(shares)}


def quantile(lengths: Mapping[int, float], share: float) -> int:
    """Return the smallest length that at least a fraction `share` of the texts do not exceed."""
    total, seen = sum(lengths.values()), 0.0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= share * total * (1 - 1e-12):
            return length
    return 0
