"""Token ids to text features: where a text tower reads its feature, and what of a text it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

OpenClip = Any
"""An open_clip module; open_clip does not declare the types of its attributes."""


@dataclass(frozen=True)
class ReadingRule:
    """How far a text tower reads a row of token ids; it knows no weights and can be sent anywhere.

    Attributes:
        pool: open_clip's name of the token at which the feature is read.
        end: The id of the end-of-text token, for a tower that looks for it.
        padding: The id of the padding, for a tower that masks it.
        can_trim: Whether what follows the end of a text may be left out.
    """

    pool: str | None
    end: int | None
    padding: int | None
    can_trim: bool

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the index of each text's end-of-text token, int64 [...], as the tower finds it.

        Counting the tokens that are not padding would be wrong: in CLIP's vocabulary, the
        padding's id 0 is also the id of "!".
        """
        if self.pool == "argmax" or self.end is None:
            return tokens.argmax(dim=-1)
        return tokens.eq(self.end).int().argmax(dim=-1)

    def lengths(self, tokens: Tensor) -> Tensor:
        """Return how many tokens of each text the tower needs, int64 [...], at least 1."""
        length = tokens.shape[-1]
        if not self.can_trim:
            return tokens.new_full(tokens.shape[:-1], length)
        if self.padding is None:
            return self.ends(tokens) + 1
        behind = tokens.ne(self.padding).flip(-1).int()  # the first 1 is the last token
        used = length - behind.argmax(-1)
        return used.masked_fill(~behind.any(-1), 1)

    def texts(self, tokens: Tensor) -> list[tuple[int, ...]]:
        """Return the token ids that the tower needs of each text of int64 [N, L]."""
        pairs = zip(tokens.tolist(), self.lengths(tokens).tolist(), strict=True)
        return [tuple(row[:length]) for row, length in pairs]

    def trim(self, tokens: Tensor) -> Tensor:
        """Return token ids [..., L] cut after the end of the longest text, if that is exact."""
        return tokens[..., : int(self.lengths(tokens).max())] if self.can_trim else tokens


class TextEncoder(nn.Module):
    """Encodes token ids without the padding after the longest text, if that is exact.

    With a causal mask a token does not depend on later ones, so if the feature is read at the
    end-of-text token, everything after the end of the longest text can be dropped. A Hugging Face
    tower masks its padding in attention and pooling alike, so what is padding in all texts can be
    dropped too. Other towers (bidirectional, or pooled elsewhere) get the full context.
    """

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model
        tower: OpenClip = getattr(model, "text", model)
        self._prefix = "model.text." if tower is not model else "model."
        self._tower: list[OpenClip] = [tower]  # a list, so that it is not registered twice
        self.rule = reading_rule(model)

    @property
    def can_trim(self) -> bool:
        """Whether what follows the end of the longest text is left out."""
        return self.rule.can_trim

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the text features [N, D], not normalised, of token ids [N, L], whole or trimmed.

        Tokens on a GPU keep their width, because finding the longest text there would wait for
        the GPU: trim them first.
        """
        if tokens.device.type == "cpu":
            tokens = self.rule.trim(tokens)
        length, tower = tokens.shape[-1], self._tower[0]
        if self.rule.padding is not None or not self.can_trim:
            return self.model.encode_text(tokens)
        if length == len(tower.positional_embedding):
            return self.model.encode_text(tokens)
        trimmed = {
            f"{self._prefix}positional_embedding": tower.positional_embedding[:length],
            f"{self._prefix}attn_mask": tower.attn_mask[:length, :length],
        }
        return functional_call(_Encode(self.model), trimmed, (tokens,))


def reading_rule(model: OpenClip) -> ReadingRule:
    """Return how far a model's text tower reads."""
    tower: OpenClip = getattr(model, "text", model)
    pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
    padding = tower.config.pad_token_id if _is_hugging_face(tower) else None
    causal = (
        getattr(tower, "attn_mask", None) is not None
        and pool in ("argmax", "eos")
        and getattr(tower, "cls_emb", None) is None
        and not getattr(tower, "use_pad_mask", False)
    )
    end = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
    return ReadingRule(pool, end, padding, padding is not None or causal)


def _is_hugging_face(tower: nn.Module) -> bool:
    """Return whether a text tower is open_clip's wrapper of one of transformers."""
    from open_clip.hf_model import HFTextEncoder

    return isinstance(tower, HFTextEncoder)


class _Encode(nn.Module):
    """`encode_text` as the `forward` that `functional_call` needs."""

    def __init__(self, model: OpenClip) -> None:
        super().__init__()
        self.model: OpenClip = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)
