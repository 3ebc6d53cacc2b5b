"""A small SigLIP: a tower that timm is told of, and a tokenizer of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timm.models import _registry
from timm.models.vision_transformer import _create_vision_transformer

NAME, TANH = "vit_tiny_patch8_siglip_32", "vit_tinier_patch8_siglip_32"
SIZES = {"vit_tiny_patch8_siglip_32": (32, None), "vit_tinier_patch8_siglip_32": (48, "gelu_tanh")}
WORDS = ("<pad>", "</s>", "<unk>", "a", "dog", "dogs", "bowl", "cat", "left", "of", ".", "!", "s")
LENGTH = 8
TEXT = {
    "context_length": LENGTH, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 2,
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
}  # fmt: skip


def architecture(name: str = NAME, **text: Any) -> dict[str, Any]:
    """Return open_clip's `model_cfg`, laid out as that of its own SigLIPs."""
    return {
        "embed_dim": SIZES[name][0],
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": name, "timm_model_pretrained": False,
                       "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**TEXT, **text},
    }  # fmt: skip


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make timm know the small towers."""
    for name, (width, act) in SIZES.items():

        def entry(
            pretrained: bool = False, width: int = width, act: str | None = act, **kwargs: Any
        ) -> Any:
            sizes = {"img_size": 32, "patch_size": 8, "embed_dim": width, "depth": 2,
                     "num_heads": 2, "class_token": False, "act_layer": act}  # fmt: skip
            return _create_vision_transformer(
                "vit_base_patch16_siglip_224", **{"global_pool": "map", **sizes, **kwargs}
            )

        monkeypatch.setitem(_registry._model_entrypoints, name, entry)


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of `WORDS`, which ends texts with </s> as SigLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
