"""One list of model families, and each one's architecture with small towers of the same kind.

The small models keep every entry of open_clip's own configuration that says how a family computes
(activation, pooling, masks, norms); only sizes shrink, and tokenizers that have to be downloaded
become CLIP's own. Towers of timm keep their name, under which timm is told of a small one.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import open_clip
from timm.models import _registry

from clic.models import families

KINDS = {
    "vitl14_336": "ViT-L-14-336-quickgelu",
    "vitbigg14_laion2b": "ViT-bigG-14",
    "vitl14_metaclip": "ViT-L-14-quickgelu",
    "vith14_metaclip2": "ViT-H-14-worldwide-quickgelu",
    "vith14_378_dfn": "ViT-H-14-378-quickgelu",
    "clipa_l14": "ViT-L-14-CLIPA",
    "clips_l14": "ViT-L-14-CLIPS",
    "eva02_l14": "EVA02-L-14",
    "siglip_b16": "ViT-B-16-SigLIP",
    "siglip2_b32_256": "ViT-B-32-SigLIP2-256",
    "pe_core_b16": "PE-Core-B-16",
    "mobileclip_s1": "MobileCLIP-S1",
    "mobileclip_b": "MobileCLIP-B",
    "mobileclip2_l14": "MobileCLIP2-L-14",
    "coca_b32": "coca_ViT-B-32",
    "longclip_b16": "ViT-B-16-LongCLIP",
    "convnext_base_w": "convnext_base_w",
}
"""A config of each kind of model, and open_clip's architecture with the same activation."""


def alias(kind: str) -> str:
    """Return the name of a kind's small model; by "siglip" in one, open_clip gets a tokenizer."""
    return "Small-" + kind.replace("siglip", "sigmoid")


ViT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TIMM: dict[str, dict[str, Any]] = {
    "vit_base_patch16_siglip_224": {**ViT, "img_size": 32, "patch_size": 8},
    "vit_base_patch32_siglip_256": {**ViT, "img_size": 32, "patch_size": 8},
    "vit_pe_core_base_patch16_224": {**ViT, "img_size": 32, "patch_size": 8,
                                     "ref_feat_shape": (4, 4)},
    "eva02_large_patch14_clip_224": {**ViT, "img_size": 28, "patch_size": 7,
                                     "ref_feat_shape": (4, 4)},
    "vit_large_patch14_clip_224": {**ViT, "img_size": 28, "patch_size": 7},
    "vit_base_mci_224": {"depth": 1, "img_size": 32},  # the width of its stem is fixed
    "fastvit_mci1": {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "img_size": 64},
    "convnext_base": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "img_size": 64},
}  # fmt: skip
"""Sizes of timm's small towers; `img_size` is taken out where the function does not know it."""
UNSIZED = ("fastvit", "convnext")
WORDS = 49408


def shrunk(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of an architecture, with small towers."""
    families.register()
    return small(open_clip.factory._MODEL_CONFIGS[name])


def small(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return an architecture with small towers of the same kind."""
    config = deepcopy(architecture)
    vision, text = config["vision_cfg"], config["text_cfg"]
    tower = vision.get("timm_model_name")
    config["embed_dim"] = 32
    text.pop("hf_tokenizer_name", None)
    text.pop("tokenizer_kwargs", None)
    text |= {"vocab_size": WORDS, "width": 32, "heads": 2, "layers": 2}
    text["context_length"] = min(text.get("context_length", 77), 40)
    if text.get("pool_type") == "eos":
        text["eos_id"] = WORDS - 1
    if tower:
        vision["image_size"] = TIMM[tower]["img_size"]
        vision.update({key: 0.0 for key in ("timm_drop_path",) if key in vision})
    else:
        vision |= {"width": 32, "head_width": 16, "layers": 2, "patch_size": 8, "image_size": 32}
        if vision.get("attentional_pool"):
            vision["attn_pooler_heads"] = 2
    if "multimodal_cfg" in config:
        length = text["context_length"]
        config["multimodal_cfg"] |= {"context_length": length, "vocab_size": WORDS, "width": 32,
                                     "heads": 2, "layers": 1, "attn_pooler_heads": 2}  # fmt: skip
    return config


def small_towers() -> dict[str, Callable[..., Any]]:
    """Return timm's entries of the small towers by the names of the large ones."""
    return {name: _small(_registry._model_entrypoints[name], name) for name in TIMM}


def _small(build: Callable[..., Any], name: str) -> Callable[..., Any]:
    sizes = dict(TIMM[name])
    if name.startswith(UNSIZED):
        del sizes["img_size"]

    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        return build(pretrained, **{**sizes, **kwargs})

    return entry
