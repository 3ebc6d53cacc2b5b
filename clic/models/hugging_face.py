"""A Hugging Face folder (`CLIPModel` or `SiglipModel` of transformers) as an open_clip model.

transformers is not needed for CLIP: its config and weights are read directly. The tensors have
other names there, queries, keys and values are separate, and projections are transposed. Features
agree up to rounding. See `siglip` for what differs in a SigLIP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clic.errors import ModelError, pick
from clic.models import hugging_face_files as files
from clic.models import siglip

# Defaults of transformers, those of OpenAI's ViT-B/32.
_COMMON = {
    "num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_TEXT = {
    **_COMMON, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407,
}  # fmt: skip
_VISION = {
    **_COMMON, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "num_channels": 3,
}  # fmt: skip
VOCABULARY = 49408
END = 49407
_LEGACY_END = 2  # in older configs: the highest token id, which is the end-of-text token
_QUICK_GELU = {"quick_gelu": True, "gelu": False}
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")

BLOCK = {
    "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
NORMS = {
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
}
SINGLE = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
}
TRANSPOSED = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
TOWERS = {"text_model": "transformer", "vision_model": "visual.transformer"}
_BUFFERS = ("embeddings.position_ids",)  # only in older files


def architecture(folder: Path) -> dict[str, Any]:
    """Return open_clip's `model_cfg` for a folder.

    Raises:
        ModelError: It has another kind of model, or one that open_clip's CLIP cannot represent.
    """
    path = folder / files.CONFIG_FILE
    config = files.read_json(path)
    kind = config.get("model_type")
    if kind == siglip.KIND:
        return siglip.architecture(folder, config)
    if kind != "clip":
        hint = siglip.NAFLEX if kind == siglip.NAFLEX_KIND else "use one of 'clip' or 'siglip'"
        raise ModelError(f"{path}: model_type={kind!r} is not read; {hint}")
    text = {**_TEXT, **config.get("text_config", {}), **(config.get("text_config_dict") or {})}
    own_vision = config.get("vision_config", {}), config.get("vision_config_dict") or {}
    vision = {**_VISION, **own_vision[0], **own_vision[1]}
    activations = [part["hidden_act"] for part in (text, vision)]
    quick = {pick(_QUICK_GELU, name, f"{path}: hidden_act") for name in activations}
    for name, value, only in (
        ("num_channels", vision["num_channels"], 3),
        ("vocab_size", text["vocab_size"], VOCABULARY),
    ):
        if value != only:
            raise ModelError(
                f"{path}: {name}={value}, and only {only} is supported; use another model"
            )
    if len(quick) > 1:
        raise ModelError(
            f"{path}: the towers differ in hidden_act; open_clip has one activation for both"
        )
    _check_tokenizer(folder)
    end = text["eos_token_id"]
    pooling = {} if end in (_LEGACY_END, END) else {"pool_type": "eos", "eos_id": end}
    return {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": quick.pop(),
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_sizes(vision),
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "heads": text["num_attention_heads"],
            **_sizes(text),
            **pooling,
        },
    }


def preprocess(folder: Path, image_size: int) -> dict[str, Any]:
    """Return open_clip's `preprocess_cfg` for a folder, with its kind's defaults.

    Raises:
        ModelError: open_clip does not support this preprocessing.
    """
    usual = siglip.PREPROCESS if _is_siglip(folder) else {}
    return {**usual, **files.preprocess(folder, image_size)}


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights under open_clip's names, in fp32.

    Raises:
        ModelError: A file is missing or damaged, or a tensor is not one of the model's.
    """
    if _is_siglip(folder):
        return siglip.weights(folder)
    found: dict[str, Tensor] = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for name, value in files.tensors(folder).items():
        if name.endswith(_BUFFERS):
            continue
        target, part = _renamed(name)
        value = value.float().T.contiguous() if name in TRANSPOSED else value.float()
        if part is None:
            found[target] = value
        else:
            apart.setdefault(target, {})[part] = value
    for target, parts in apart.items():
        if missing := [f"{part}_proj" for part in "qkv" if part not in parts]:
            raise ModelError(f"{folder}: {', '.join(missing)} of {target} is missing")
        found[target] = torch.cat([parts[part] for part in "qkv"])
    return found


def _renamed(name: str) -> tuple[str, str | None]:
    """Return open_clip's name for a tensor, and `q`, `k` or `v` if it is one third of that."""
    if name in SINGLE or name in TRANSPOSED:
        return SINGLE.get(name) or TRANSPOSED[name], None
    module, _, kind = name.rpartition(".")
    if module in NORMS:
        return f"{NORMS[module]}.{kind}", None
    tower, _, rest = module.partition(".encoder.layers.")
    number, _, inner = rest.partition(".")
    if tower in TOWERS and number.isdecimal():
        block = f"{TOWERS[tower]}.resblocks.{number}"
        if inner in BLOCK:
            return f"{block}.{BLOCK[inner]}.{kind}", None
        part = inner.removeprefix("self_attn.").removesuffix("_proj")
        if part in ("q", "k", "v") and inner == f"self_attn.{part}_proj":
            return f"{block}.attn.in_proj_{kind}", part
    raise ModelError(f"tensor {name!r} is not one of CLIP's; is this the folder of a CLIPModel?")


def _sizes(part: dict[str, Any]) -> dict[str, Any]:
    width = part["hidden_size"]
    ratio = files.ratio(width, part["intermediate_size"])
    sizes = {"width": width, "layers": part["num_hidden_layers"], "mlp_ratio": ratio}
    if part["layer_norm_eps"] != _COMMON["layer_norm_eps"]:
        sizes["norm_kwargs"] = {"eps": part["layer_norm_eps"]}
    return sizes


def _check_tokenizer(folder: Path) -> None:
    path = folder / files.TOKENIZER_FILE
    name = files.read_json(path).get("tokenizer_class") if path.is_file() else None
    if name not in (None, *_TOKENIZERS):
        raise ModelError(f"{path}: tokenizer_class={name!r}; only CLIP's tokenizer is supported")


def _is_siglip(folder: Path) -> bool:
    return files.read_json(folder / files.CONFIG_FILE).get("model_type") == siglip.KIND
