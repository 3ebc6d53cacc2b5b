"""What open_clip does not know about published families: architectures and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from clic.errors import ModelError

CLIPS = "ViT-L-14-CLIPS"
SHIPPED: dict[str, dict[str, Any]] = {
    CLIPS: {
        "embed_dim": 768,
        "vision_cfg": {
            "image_size": 224, "layers": 24, "width": 1024, "patch_size": 14,
            "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True,
        },
        "text_cfg": {
            "context_length": 80, "vocab_size": 32000, "hf_tokenizer_name": "bert-base-uncased",
            "tokenizer_kwargs": {"strip_sep_token": True},
            "width": 768, "heads": 12, "layers": 12, "pool_type": "last", "no_causal_mask": True,
        },
    },
}  # fmt: skip
"""Architectures that open_clip 3 lacks. CLIPS (arXiv 2411.16828) is CLIPA's ViT-L/14 with a context
of 80 tokens."""

LONG_CLIP = {"ViT-B-16-LongCLIP": "ViT-B-16-quickgelu", "ViT-L-14-LongCLIP": "ViT-L-14-quickgelu"}
"""Architectures of Long-CLIP's files (arXiv 2403.15378), and those that they stretch."""
LONG_CONTEXT, KEPT = 248, 20
"""Long-CLIP's context, and how many of CLIP's first positions it keeps unchanged."""
POSITIONS, STRETCHED = "positional_embedding", "positional_embedding_res"

_KEYS = ("mean", "std", "interpolation", "resize_mode")
_ALIKE = {CLIPS: "ViT-L-14-CLIPA", **LONG_CLIP}
"""Shipped architectures, and those of open_clip whose preprocessing they share."""


TEXT_TOWERS = {"mpnet": "bert"}
"""Text models of transformers that open_clip lacks, and one with the same names of its parts."""


def register() -> None:
    """Make the shipped architectures and text towers known to open_clip; safe to repeat."""
    from open_clip import factory
    from open_clip.hf_configs import arch_dict

    for kind, alike in TEXT_TOWERS.items():
        arch_dict.setdefault(kind, arch_dict[alike])

    for name, config in SHIPPED.items():
        # open_clip's add_model_config would read files and replace the whole registry.
        factory._MODEL_CONFIGS.setdefault(name, config)
    for name, plain in LONG_CLIP.items():
        longer = deepcopy(factory._MODEL_CONFIGS[plain])
        longer["text_cfg"]["context_length"] = LONG_CONTEXT
        factory._MODEL_CONFIGS.setdefault(name, longer)


def draw_rest(model: Any) -> None:
    """Initialise the one parameter that open_clip 3 leaves uninitialised, CoCa's projection.

    Its memory may contain NaN. It is drawn like CLIP's own, from N(0, 1 / width).
    """
    projection = getattr(getattr(model, "text_decoder", None), "text_projection", None)
    if projection is not None:
        torch.nn.init.normal_(projection, std=len(projection) ** -0.5)


def joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a weights file, those of Long-CLIP under CLIP's names.

    Long-CLIP's files have two embeddings of 248 positions: texts use the first 20 of one, which
    are CLIP's, and the rest of the other.
    """
    found = dict(tensors)
    if STRETCHED in found:
        found[POSITIONS] = torch.cat([found[POSITIONS][:KEPT], found.pop(STRETCHED)[KEPT:]])
    return found


def check_context(tensors: Mapping[str, Tensor], context: int, file: object) -> None:
    """Refuse Long-CLIP's weights in an architecture whose context would cut or resample them.

    Raises:
        ModelError: The context differs.
    """
    if STRETCHED in tensors and len(tensors[STRETCHED]) != context:
        raise ModelError(
            f"{file} holds Long-CLIP's weights, with a context of {len(tensors[STRETCHED])} and "
            f"not {context}; name it as {' or '.join(f'{name}:FILE' for name in LONG_CLIP)}"
        )


def preprocessing(name: str) -> dict[str, Any]:
    """Return mean, std, interpolation and resizing that an architecture's published weights share.

    A weights file does not specify them, and open_clip assumes OpenAI's for every file, which are
    wrong for CLIPA, SigLIP, PE-Core and others. Empty if published weights differ or none exist.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    name = _ALIKE.get(name, name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [get_pretrained_cfg(name, tag) for tag in tags]
    found = [{key: config[key] for key in _KEYS if config.get(key)} for config in configs]
    return found[0] if found and all(one == found[0] for one in found) else {}
