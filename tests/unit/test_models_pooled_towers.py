"""Less work, the same features: the last block cut, captions packed; on towers of every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clic.models import ClipModel, PooledImages, PooledTexts
from clic.models.pooled_towers import PACKS

CPU = torch.device("cpu")
TEXT = {"context_length": 34, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
VISION = {"layers": 3, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8}
CLIPA_TEXT = {**TEXT, "no_causal_mask": True, "pool_type": "last"}
SIGLIP_VISION = {
    "timm_model_name": "vit_base_patch16_siglip_224",
    "timm_model_pretrained": False,
    "timm_pool": "map",
    "timm_proj": "none",
    "image_size": 224,
}
EVA_VISION = {
    "timm_model_name": "eva02_tiny_patch14_224",
    "timm_model_pretrained": False,
    "timm_pool": "token",
    "timm_proj": "linear",
    "image_size": 224,
}
CAPTIONS = [
    "a red circle left of a blue square",
    "a red circle right of a blue square",
    "a red circle",
    "a blue square left of a red circle",
    "two dogs! and a cat",
    "",
    "word " * 60,
    "a red circle",
]


class Family:
    """A tower of each kind, and what of it is recognised."""

    def __init__(self, changes: dict[str, Any], images: bool, texts: bool, packed: bool) -> None:
        self.changes, self.images, self.texts, self.packed = changes, images, texts, packed


FAMILIES = {
    "CLIP": Family({"vision_cfg": VISION, "text_cfg": TEXT}, True, True, True),
    "OpenAI": Family(
        {"vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True}, True, True, True
    ),
    "no projection bias, layer scale, LN after pooling": Family(
        {
            "vision_cfg": {**VISION, "ls_init_value": 0.3, "final_ln_after_pool": True},
            "text_cfg": {**TEXT, "ls_init_value": 0.3, "proj_bias": True},
            "custom_text": True,
        },
        True, True, True,
    ),
    "end-of-text id": Family(
        {"vision_cfg": VISION, "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407}},
        True, True, True,
    ),
    "CLIPA": Family(
        {
            "vision_cfg": {**VISION, "pool_type": "avg", "no_ln_pre": True},
            "text_cfg": CLIPA_TEXT,
            "custom_text": True,
        },
        False, True, False,
    ),
    "first token": Family(
        {"vision_cfg": VISION, "text_cfg": {**TEXT, "pool_type": "first"}, "custom_text": True},
        True, True, False,
    ),
    "bidirectional, end of text": Family(
        {"vision_cfg": VISION, "text_cfg": {**TEXT, "no_causal_mask": True}, "custom_text": True},
        True, True, False,
    ),
    "CoCa": Family(
        {
            "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 4},
            "text_cfg": {**TEXT, "embed_cls": True},
            "custom_text": True,
        },
        False, False, False,
    ),
    "blocks of another make": Family(
        {"vision_cfg": {**VISION, "qk_norm": True}, "text_cfg": {**TEXT, "scale_heads": True}},
        False, False, False,
    ),
    "ResNet": Family({"text_cfg": TEXT}, False, True, True),
}  # fmt: skip


@pytest.fixture
def make(build_tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., ClipModel]:
    def build(changes: dict[str, Any]) -> ClipModel:
        clip = build_tiny(tmp_path / "cfg", **changes)
        with torch.no_grad():  # weights that start at 0 or 1 would hide what is left out
            for parameter in clip.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        clip.model.eval().double()
        return clip

    return build


def close(ours: Tensor, whole: Tensor) -> None:
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_features_are_the_models_own(make: Callable[..., ClipModel], family: Family) -> None:
    clip = make(family.changes)
    images, texts = PooledImages(clip.model), PooledTexts(clip.model)
    recognised = (images.recognised, texts.recognised, texts.packed)
    assert recognised == (family.images, family.texts, family.packed)
    size = clip.preprocess.size
    pixels = torch.randn(3, 3, size, size, dtype=torch.float64)
    tokens = clip.tokenizer(CAPTIONS)
    with torch.inference_mode():
        close(images(pixels), clip.model.encode_image(pixels))
        close(texts(tokens, CPU), clip.model.encode_text(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("vision", [SIGLIP_VISION, EVA_VISION], ids=["SigLIP", "EVA02"])
def test_timm_towers_keep_their_own_forward(
    make: Callable[..., ClipModel], vision: dict[str, Any]
) -> None:
    pytest.importorskip("timm")
    width = 768 if vision is SIGLIP_VISION else 16
    text = {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    clip = make({
        "embed_dim": width, "vision_cfg": vision, "text_cfg": text, "custom_text": True,
        "init_logit_bias": -10.0,
    })  # fmt: skip
    images, texts = PooledImages(clip.model), PooledTexts(clip.model)
    assert not images.recognised and texts.recognised and not texts.packed
    size = clip.preprocess.size
    pixels = torch.randn(2, 3, size, size, dtype=torch.float64)
    tokens = clip.tokenizer(CAPTIONS)
    with torch.inference_mode():
        assert torch.equal(images(pixels), clip.model.encode_image(pixels))
        close(texts(tokens, CPU), clip.model.encode_text(tokens))


def test_fp32_features_agree_to_the_last_digits(make: Callable[..., ClipModel]) -> None:
    clip = make({"vision_cfg": VISION, "text_cfg": TEXT})
    clip.model.float()
    pixels, tokens = torch.randn(5, 3, 32, 32), clip.tokenizer(CAPTIONS)
    with torch.inference_mode():
        for ours, whole in (
            (PooledImages(clip.model)(pixels), clip.model.encode_image(pixels)),
            (PooledTexts(clip.model)(tokens, CPU), clip.model.encode_text(tokens)),
        ):
            difference = nn.functional.normalize(ours) - nn.functional.normalize(whole)
            assert float(difference.abs().max()) < 1e-6


def test_several_forwards_of_packs(
    make: Callable[..., ClipModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKS, "cpu", 2)
    clip = make({"vision_cfg": VISION, "text_cfg": TEXT})
    words = np.random.default_rng(0).choice(["red", "blue", "dog", "cat", "runs"], (150, 9))
    tokens = clip.tokenizer([" ".join(row[: 3 + i % 7]) for i, row in enumerate(words)])
    with torch.inference_mode():
        close(PooledTexts(clip.model)(tokens, CPU), clip.model.encode_text(tokens))
