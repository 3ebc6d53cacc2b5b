"""Token ids of captions: those of each word are kept and put together.

How long captions are in a model's tokens, cut by no context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clic import models
from clic.captions.composites import TokenBudget
from clic.errors import ConfigError, ModelError
from clic.models.loading import Tokenizer

MOST_WORDS = 200_000  # that are kept; a corpus's vocabulary is smaller, its misspellings are not
_PROBES = (
    "a dog. two cats!",
    "The man's T-shirt (blue, size 40); it's near http://a.b/c?d=1 <end_of_text> ... ",
    "a long caption, " * 60,
    "",
)


class CaptionTokenizer:
    """Token ids exactly as the model's tokenizer gives them, and how many captions it cuts.

    CLIP's byte-pair encoding never crosses a space, so the ids of "a. b." are those of its words
    in a row. For printable ASCII without "&" (an HTML entity) the cleaning before it, too, sees
    one word at a time; such texts are put together from kept words, and any other text is encoded
    whole. A tokenizer that is not of this kind, or whose ids of some probes differ from what is
    put together here, gets every text whole.

    Args:
        tokenizer: list of N captions -> int64 [N, L].
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer: Any = tokenizer
        self._words: dict[str, tuple[int, ...]] = {}
        self.joins = self._is_clip() and self._agrees()

    def _is_clip(self) -> bool:
        from open_clip.tokenizer import SimpleTokenizer

        return isinstance(self.tokenizer, SimpleTokenizer) and self.tokenizer.reduction_fn is None

    def _agrees(self) -> bool:
        """Return whether the words' ids, in a row, are those of the whole text."""
        return torch.equal(self._joined(_PROBES)[0], self.tokenizer(list(_PROBES)))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Return the token ids and how many of the texts are longer than the context.

        Args:
            texts: N captions.

        Returns:
            int64 [N, L], each cut text with its end-of-text token, and the number of these.
        """
        if self.joins:
            return self._joined(texts)
        ids = self.tokenizer(list(texts))
        return ids, self._count_cut(texts, ids)

    def _joined(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        length, cut = self.tokenizer.context_length, 0
        rows = []
        for text in texts:
            ids = [self.tokenizer.sot_token_id, *self._ids(text), self.tokenizer.eot_token_id]
            if len(ids) > length:
                ids[length - 1 :] = [self.tokenizer.eot_token_id]
                cut += 1
            rows.append(ids + [0] * (length - len(ids)))
        return torch.tensor(rows, dtype=torch.long).view(len(rows), length), cut

    def _ids(self, text: str) -> list[int]:
        if not text.isascii() or not text.isprintable() or "&" in text:
            return self.tokenizer.encode(text)
        ids: list[int] = []
        for word in text.split():
            known = self._words.get(word)
            ids += self._encode_word(word) if known is None else known
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        if len(self._words) >= MOST_WORDS:
            self._words.clear()
        ids = self._words[word] = tuple(self.tokenizer.encode(word))
        return ids

    def measures(self) -> bool:
        """Return whether the tokenizer tells how long a caption is: all that open_clip makes do."""
        return hasattr(self.tokenizer, "encode") or self._is_hugging_face()

    def room(self) -> TokenBudget:
        """Return how long a caption may be, to be read to its end.

        Raises:
            ConfigError: The tokenizer does not tell.
        """
        if not self.measures():
            raise ConfigError(
                f"the tokenizer {type(self.tokenizer).__name__} does not tell how long a caption "
                "is; use compose.layout=pair, or a model whose tokenizer open_clip makes"
            )
        return TokenBudget(self.length, int(self.tokenizer.context_length))

    def length(self, text: str) -> int:
        """Return how many tokens a text has, cut by no context, start and end included."""
        if hasattr(self.tokenizer, "encode"):  # CLIP's own
            return len(self._ids(text) if self.joins else self.tokenizer.encode(text)) + 2
        # CLIPS's way puts three tokens of its own around the text's.
        own = 3 if self.tokenizer.tokenizer_mode == "clips" else 0
        cleaned = self.tokenizer.clean_fn(text)
        return len(self.tokenizer.tokenizer(cleaned, add_special_tokens=not own).input_ids) + own

    def _is_hugging_face(self) -> bool:
        from open_clip.tokenizer import HFTokenizer

        return isinstance(self.tokenizer, HFTokenizer)

    def _count_cut(self, texts: Sequence[str], ids: Tensor) -> int:
        """Return how many texts a Hugging Face tokenizer, as open_clip wraps it, has cut."""
        if not self._is_hugging_face():
            return 0  # of an unknown kind, which cannot be asked
        # The last place may hold an end or class token in any case, the one before only if full.
        full = (ids[:, -2] != self.tokenizer.tokenizer.pad_token_id).nonzero().flatten().tolist()
        return sum(self.length(texts[row]) > self.tokenizer.context_length for row in full)


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
