"""How long captions are in a model's tokens, cut by no context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clic import models
from clic.data.tokens import CaptionTokenizer
from clic.errors import ModelError

Measure = Callable[[str], int]


def make_measure(model: str) -> Measure:
    """Return what counts the tokens of a caption, start and end of text included.

    Args:
        model: Anything that names a model; its weights are not loaded.

    Raises:
        ModelError: The model is unknown, or its tokenizer cannot be had.
    """
    return CaptionTokenizer(_tokenizer(model)).length


def context_length(model: str) -> int:
    """Return how many tokens the model reads; raises `ModelError`."""
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
    """Return the share of texts longer than a context, 0 to 1."""
    total = sum(lengths.values())
    return sum(n for length, n in lengths.items() if length > context) / total if total else 0.0


def joined(lengths: Mapping[int, int], special: int) -> dict[int, float]:
    """Return how long two random texts are when joined, as a distribution.

    Joining keeps one start and one end of text; a period more or less is not counted.

    Args:
        lengths: Texts by their length, start and end included.
        special: Length of an empty text: the tokens that start and end it.

    Returns:
        The share of each length.
    """
    counts = np.zeros(max(lengths, default=special) + 1)
    for length, number in lengths.items():
        counts[length] = number
    bare = counts[special:] / counts.sum()
    shares = np.convolve(bare, bare)
    return {int(length) + special: float(shares[length]) for length in np.flatnonzero(shares)}


def quantile(lengths: Mapping[int, float], share: float) -> int:
    """Return the smallest length that at least a share of the texts does not exceed."""
    total, seen = sum(lengths.values()), 0.0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= share * total * (1 - 1e-12):
            return length
    return 0
