"""A SigLIP in Hugging Face's format (`SiglipModel`) as an open_clip model, and back.

open_clip takes SigLIP's vision tower from timm and has its own text tower. The tensors have other
names than in transformers; queries, keys and values are joined, but split in the pooling head.
SigLIP 2 with a fixed resolution (FixRes) is the same kind of model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clic.errors import ModelError, pick
from clic.models import hugging_face_files as files
from clic.models import trust

KIND, NAFLEX_KIND = "siglip", "siglip2"
NAFLEX = (
    "that is a NaFlex model, whose images keep their aspect in any number of patches; use the "
    "FixRes one of the same size, whose model_type is 'siglip'"
)
PREPROCESS: dict[str, Any] = {
    "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic",
    "resize_mode": "squash",
}  # fmt: skip
"""transformers' preprocessing of images, for folders that do not specify it."""

# Defaults of transformers, those of the first base model.
_COMMON = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
_TEXT = {**_COMMON, "vocab_size": 32000, "max_position_embeddings": 64}
_VISION = {
    **_COMMON, "image_size": 224, "patch_size": 16, "num_channels": 3, "vision_use_head": True,
}  # fmt: skip
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
    "patch_size",
)  # fmt: skip
GELU = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}
"""transformers' names for the activation, and torch's for its approximation."""
EPS = 1e-6  # timm's towers have no other
TOKENIZERS = {
    32000: ("timm/ViT-B-16-SigLIP", "canonicalize"),
    250000: ("timm/ViT-B-16-SigLIP-i18n-256", "canonicalize"),
    256000: ("timm/ViT-B-16-SigLIP2", "lower"),
}
"""By size of the vocabulary: a repository with that tokenizer, and how texts are cleaned before it.
SigLIP 1 drops punctuation, in transformers too; SigLIP 2 only lower-cases."""

_SINGLE = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
    "vision_model.head.probe": "visual.trunk.attn_pool.latent",
}
_MODULES = {
    "text_model.final_layer_norm": "text.ln_final",
    "text_model.head": "text.text_projection",
    "vision_model.embeddings.patch_embedding": "visual.trunk.patch_embed.proj",
    "vision_model.post_layernorm": "visual.trunk.norm",
    "vision_model.head.attention.out_proj": "visual.trunk.attn_pool.proj",
    "vision_model.head.layernorm": "visual.trunk.attn_pool.norm",
    "vision_model.head.mlp.fc1": "visual.trunk.attn_pool.mlp.fc1",
    "vision_model.head.mlp.fc2": "visual.trunk.attn_pool.mlp.fc2",
}
_BLOCKS = {
    "text_model.encoder.layers": ("text.transformer.resblocks", {
        "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }, "attn.in_proj_"),
    "vision_model.encoder.layers": ("visual.trunk.blocks", {
        "self_attn.out_proj": "attn.proj", "layer_norm1": "norm1", "layer_norm2": "norm2",
        "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    }, "attn.qkv."),
}  # fmt: skip
"""For each tower: our blocks, the modules in them, and the tensor that joins q, k and v."""
_POOL, _OUR_POOL = "vision_model.head.attention.in_proj_", "visual.trunk.attn_pool."
_BUFFERS = ("embeddings.position_ids",)  # only in older files
_KINDS = ("weight", "bias")


def architecture(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return open_clip's `model_cfg` for a folder with the given config.json.

    Raises:
        ModelError: open_clip has no such model, or the folder would run code.
    """
    path = folder / files.CONFIG_FILE
    trust.check_folder(folder, config)
    text = {**_TEXT, **(config.get("text_config") or {})}
    vision = {**_VISION, **(config.get("vision_config") or {})}
    width = vision["hidden_size"]
    for name, value, only in (
        ("num_channels", vision["num_channels"], 3),
        ("vision_use_head", vision["vision_use_head"], True),
        ("layer_norm_eps", vision["layer_norm_eps"], EPS),
        ("projection_size", text.get("projection_size") or text["hidden_size"], width),
    ):
        if value != only:
            raise ModelError(
                f"{path}: {name}={value}, and only {only} is supported; use another model"
            )
    name, own_gelu = _tower_of_timm(vision, path)
    gelu = pick(GELU, vision["hidden_act"], f"{path}: hidden_act")
    repository, clean = TOKENIZERS.get(text["vocab_size"], (files.TOKENIZER_FILE, "whitespace"))
    return {
        "embed_dim": width,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision["image_size"],
            "timm_model_name": name,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
            **({} if gelu == own_gelu else {"act_kwargs": {"approximate": gelu}}),
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "hf_tokenizer_name": repository,
            "tokenizer_kwargs": {"clean": clean},
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": files.ratio(text["hidden_size"], text["intermediate_size"]),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": text["layer_norm_eps"]},
            "act_kwargs": {"approximate": pick(GELU, text["hidden_act"], f"{path}: hidden_act")},
        },
    }


def _tower_of_timm(vision: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """Return the name of timm's tower with these sizes, and the approximation of its GELU."""
    import timm

    size, patch = vision["image_size"], vision["patch_size"]
    wanted = {name: vision[name] for name in SIZES}
    for name in timm.list_models(f"*patch{patch}_siglip_{size}*"):
        with torch.device("meta"):
            trunk = timm.create_model(name, num_classes=0, global_pool="map")
        if sizes_of(trunk) == wanted:
            return name, approximation(trunk)
    sizes = ", ".join(f"{name}={value}" for name, value in wanted.items())
    raise ModelError(
        f"{path}: timm, from which open_clip takes SigLIP's vision tower, has none of {sizes}; use "
        "another model, or a newer timm"
    )


def sizes_of(trunk: Any) -> dict[str, int]:
    """Return the sizes of a tower of timm under transformers' names."""
    block = trunk.blocks[0]
    sizes = (
        trunk.embed_dim, block.mlp.fc1.out_features, len(trunk.blocks), block.attn.num_heads,
        trunk.patch_embed.img_size[0], trunk.patch_embed.patch_size[0],
    )  # fmt: skip
    return dict(zip(SIZES, sizes, strict=True))


def approximation(tower: nn.Module) -> str:
    """Return `tanh` if a tower uses that approximation of GELU, else `none`."""
    kinds = {type(part).__name__ for part in tower.modules()}
    tanh = any(getattr(part, "approximate", "none") == "tanh" for part in tower.modules())
    return "tanh" if tanh or "GELUTanh" in kinds else "none"


def set_activation(model: Any, architecture: Mapping[str, Any]) -> None:
    """Give timm's vision tower the approximation of GELU that `act_kwargs` specifies.

    open_clip ignores that entry for timm's towers, and some of timm's SigLIP towers use exact GELU,
    unlike transformers and SigLIP's authors, who use the approximation. Plain open_clip's features
    from a folder with the entry differ by less than 1e-3 (unit norm, small towers).
    """
    vision = architecture["vision_cfg"]
    wanted = (vision.get("act_kwargs") or {}).get("approximate")
    if wanted is None or not vision.get("timm_model_name"):
        return
    for module in model.visual.trunk.modules():
        for name, child in module.named_children():
            if type(child).__name__ in ("GELU", "GELUTanh"):
                setattr(module, name, nn.GELU(approximate=wanted))


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights under open_clip's names, in fp32.

    Raises:
        ModelError: A file is missing or damaged, or a tensor is not one of SigLIP's.
    """
    found: dict[str, Tensor] = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for name, value in files.tensors(folder).items():
        value = value.float()
        if name.endswith(_BUFFERS):
            continue
        if name.startswith(_POOL):
            kind, third = name.removeprefix(_POOL), len(value) // 3
            found[f"{_OUR_POOL}q.{kind}"] = value[:third].clone()
            found[f"{_OUR_POOL}kv.{kind}"] = value[third:].clone()
            continue
        target, part = _ours(name)
        if part is not None:
            apart.setdefault(target, {})[part] = value
        elif target == "visual.trunk.pos_embed":
            found[target] = value[None]
        else:
            found[target] = value.reshape(()) if name.startswith("logit_") else value
    for target, parts in apart.items():
        if missing := [f"{part}_proj" for part in "qkv" if part not in parts]:
            raise ModelError(f"{folder}: {', '.join(missing)} of {target} is missing")
        found[target] = torch.cat([parts[part] for part in "qkv"])
    return found


def _ours(name: str) -> tuple[str, str | None]:
    """Return open_clip's name for a tensor, and `q`, `k` or `v` if it is one third of that."""
    if name in _SINGLE:
        return _SINGLE[name], None
    module, _, kind = name.rpartition(".")
    if module in _MODULES and kind in _KINDS:
        return f"{_MODULES[module]}.{kind}", None
    for blocks, (ours, inner, joined) in _BLOCKS.items():
        match = re.fullmatch(rf"{re.escape(blocks)}\.(\d+)\.(.+)", module)
        if match is None or kind not in _KINDS:
            continue
        block = f"{ours}.{match[1]}"
        if match[2] in inner:
            return f"{block}.{inner[match[2]]}.{kind}", None
        part = re.fullmatch(r"self_attn\.([qkv])_proj", match[2])
        if part is not None:
            return f"{block}.{joined}{kind}", part[1]
    raise ModelError(
        f"tensor {name!r} is not one of SigLIP's; is this the folder of a SiglipModel?"
    )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return open_clip's state dict with the names and the layout of `SiglipModel`.

    Raises:
        ModelError: A tensor has no place there.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if name.startswith((f"{_OUR_POOL}q.", f"{_OUR_POOL}kv.")):
            continue
        if name == "visual.trunk.pos_embed":
            value = value[0]
        found.update(_theirs(name, value.reshape(1) if name.startswith("logit_") else value))
    for kind in _KINDS:
        parts = [state[f"{_OUR_POOL}{part}.{kind}"].detach().cpu() for part in ("q", "kv")]
        found[f"{_POOL}{kind}"] = torch.cat(parts)
    return {name: value.clone().contiguous() for name, value in found.items()}


def _theirs(name: str, value: Tensor) -> dict[str, Tensor]:
    single = {ours: theirs for theirs, ours in _SINGLE.items()}
    modules = {ours: theirs for theirs, ours in _MODULES.items()}
    if name in single:
        return {single[name]: value}
    module, _, kind = name.rpartition(".")
    if module in modules:
        return {f"{modules[module]}.{kind}": value}
    for blocks, (ours, inner, joined) in _BLOCKS.items():
        match = re.fullmatch(rf"{re.escape(ours)}\.(\d+)\.(.+)", name)
        if match is None:
            continue
        block, layers = f"{blocks}.{match[1]}", {own: theirs for theirs, own in inner.items()}
        layer, _, kind = match[2].rpartition(".")
        if layer in layers:
            return {f"{block}.{layers[layer]}.{kind}": value}
        kind = match[2].removeprefix(joined)
        if kind in _KINDS:
            parts = zip("qkv", value.chunk(3), strict=True)
            return {f"{block}.self_attn.{part}_proj.{kind}": third for part, third in parts}
    raise ModelError(
        f"tensor {name!r} has no place in transformers' SiglipModel, so the model cannot be "
        "written with --to hf; keep the open_clip folder"
    )
