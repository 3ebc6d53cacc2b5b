"""Text without padding: equal features and gradients, and only where that is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clic.models import ClipModel, TextEncoder

TEXT = {"context_length": 34, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
EOS = 49407
TRIMMED: dict[str, dict[str, Any]] = {
    "clip": {"text_cfg": TEXT},
    "clip, end-of-text id": {"text_cfg": {**TEXT, "pool_type": "eos", "eos_id": EOS}},
    "custom": {"text_cfg": TEXT, "custom_text": True},
    "custom, end-of-text id": {
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": EOS},
        "custom_text": True,
    },
    "custom, linear projection": {
        "text_cfg": {**TEXT, "proj_bias": True},
        "custom_text": True,
        "quick_gelu": True,
    },
}
WHOLE: dict[str, dict[str, Any]] = {
    "bidirectional": {"text_cfg": {**TEXT, "no_causal_mask": True}, "custom_text": True},
    "last token": {"text_cfg": {**TEXT, "pool_type": "last"}, "custom_text": True},
    "first token": {"text_cfg": {**TEXT, "pool_type": "first"}, "custom_text": True},
    "bidirectional, last token": {
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
        "custom_text": True,
    },
    "class token": {"text_cfg": {**TEXT, "embed_cls": True}, "custom_text": True},
}
CAPTIONS = {
    "short": ["a red circle", "a dog"],
    "exclamation marks": ["wow!!! a dog!", "!", "! ! !"],
    "empty": ["", ""],
    "empty beside others": ["", "a red circle and a blue square"],
    "too long": ["word " * 60, "a dog"],
    "as long as can be": ["word " * 32],
}


@pytest.fixture
def make(build_tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., ClipModel]:
    return lambda **changes: build_tiny(tmp_path / "cfg", **changes)


def seen_lengths(model: nn.Module) -> list[int]:
    """Return a list that is filled with the number of tokens of each text forward."""
    lengths: list[int] = []
    embedding = getattr(model, "text", model).token_embedding
    embedding.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    return lengths


@pytest.mark.parametrize("captions", CAPTIONS.values(), ids=CAPTIONS)
@pytest.mark.parametrize("changes", TRIMMED.values(), ids=TRIMMED)
def test_features_equal_the_untrimmed_ones(
    make: Callable[..., ClipModel], changes: dict[str, Any], captions: list[str]
) -> None:
    clip = make(**changes)
    clip.model.double()
    lengths = seen_lengths(clip.model)
    tokens = clip.tokenizer(captions)
    encoder = TextEncoder(clip.model)
    assert encoder.can_trim
    with torch.no_grad():
        trimmed, whole = encoder(tokens), clip.model.encode_text(tokens)
    torch.testing.assert_close(trimmed, whole, rtol=0, atol=1e-13)
    longest = int((tokens == EOS).int().argmax(dim=1).max()) + 1
    assert lengths == [longest, 34]


@pytest.mark.parametrize("changes", TRIMMED.values(), ids=TRIMMED)
def test_gradients_equal_the_untrimmed_ones(
    make: Callable[..., ClipModel], changes: dict[str, Any]
) -> None:
    clip = make(**changes)
    clip.model.double()
    tokens = clip.tokenizer(["a dog!", "a red circle left of a blue square"])

    def gradients(encode: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        clip.model.zero_grad()
        encode(tokens).sin().sum().backward()
        named = clip.model.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}

    trimmed, whole = gradients(TextEncoder(clip.model)), gradients(clip.model.encode_text)
    assert trimmed.keys() == whole.keys()
    assert any("positional_embedding" in name for name in whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(trimmed[name], gradient, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("changes", WHOLE.values(), ids=WHOLE)
def test_other_towers_see_the_whole_context(
    make: Callable[..., ClipModel], changes: dict[str, Any]
) -> None:
    clip = make(**changes)
    lengths = seen_lengths(clip.model)
    tokens = clip.tokenizer(["a dog", "a red circle"])
    encoder = TextEncoder(clip.model)
    assert not encoder.can_trim
    assert torch.equal(encoder(tokens), clip.model.encode_text(tokens))
    assert lengths == [34, 34]


def test_towers_of_other_libraries_are_left_alone() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text = nn.Linear(34, 4)

        def encode_text(self, tokens: Tensor) -> Tensor:
            return self.text(tokens.float())

    assert TextEncoder(Other())(torch.zeros(2, 34, dtype=torch.int64)).shape == (2, 4)


def test_the_model_is_as_before(make: Callable[..., ClipModel]) -> None:
    clip = make(**TRIMMED["clip"])
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    TextEncoder(clip.model)(clip.tokenizer(["a dog"]))
    assert clip.model.positional_embedding.shape == (34, 16)
    assert clip.model.attn_mask.shape == (34, 34)
    assert all(torch.equal(before[n], v) for n, v in clip.model.state_dict().items())


@pytest.mark.parametrize("custom", [False, True])
def test_trimming_with_recomputed_activations(make: Callable[..., ClipModel], custom: bool) -> None:
    clip = make(text_cfg=TEXT, custom_text=custom)
    tokens = clip.tokenizer(["a dog", "a red circle"])
    encoder, found = TextEncoder(clip.model), []
    for recompute in (False, True):
        tower = clip.model.text if custom else clip.model
        tower.transformer.grad_checkpointing = recompute
        clip.model.zero_grad()
        encoder(tokens).sum().backward()
        found.append(tower.positional_embedding.grad.clone())
    torch.testing.assert_close(found[0], found[1])
