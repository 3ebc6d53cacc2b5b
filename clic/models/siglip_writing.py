"""The files of a SigLIP's Hugging Face folder besides the weights: config and tokenizer."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clic.errors import ModelError
from clic.models import hugging_face_files as files
from clic.models import siglip
from clic.models.loading import ClipModel
from clic.models.source import filled

PROCESSOR = "SiglipImageProcessor"
RESIZING = ("squash",)
"""Resize modes that transformers' image processor supports; it does not crop."""
_TEXT = {
    "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "hf_model_name": None,
    "embed_cls": False, "ls_init_value": None, "output_tokens": False,
    "proj_type": "linear",
}  # fmt: skip
"""Entries of a text tower for which `SiglipModel` supports only these values."""


def is_one(architecture: Mapping[str, Any]) -> bool:
    """Return whether an architecture's vision tower is timm's SigLIP."""
    return "_siglip_" in str(architecture["vision_cfg"].get("timm_model_name"))


def check_fits(name: str, architecture: Mapping[str, Any]) -> None:
    """Refuse a model that `SiglipModel` of transformers cannot represent.

    Raises:
        ModelError: An entry of its architecture has no place there.
    """
    full = filled(dict(architecture))
    vision, text = full["vision_cfg"], full["text_cfg"]
    wanted = [
        *((f"text_cfg.{key}", text[key], value) for key, value in _TEXT.items()),
        ("vision_cfg.timm_pool", vision["timm_pool"], "map"),
        ("vision_cfg.timm_proj", vision["timm_proj"], "none"),
        ("quick_gelu", full["quick_gelu"], False),
    ]
    for key, value, only in wanted:
        if value != only:
            raise _no_place(name, key, value)
    if full["init_logit_bias"] is None:
        raise _no_place(name, "init_logit_bias", None)
    for part, keys in (("act_kwargs", {"approximate"}), ("norm_kwargs", {"eps"})):
        if set(text[part] or {}) - keys:
            raise _no_place(name, f"text_cfg.{part}", text[part])


def _no_place(name: str, entry: str, value: object) -> ModelError:
    return ModelError(
        f"{name} has {entry}={value}, for which transformers' SiglipModel has no place, so it "
        "cannot be written with --to hf; keep the open_clip folder"
    )


def config(clip: ClipModel) -> dict[str, Any]:
    """Return the content of config.json, with the activation that each tower computes."""
    full = filled(clip.source.architecture)
    text, trunk = full["text_cfg"], clip.model.visual.trunk
    names = {torchs: theirs for theirs, torchs in siglip.GELU.items()}
    return {
        "architectures": ["SiglipModel"],
        "model_type": siglip.KIND,
        "text_config": {
            "model_type": "siglip_text_model",
            "hidden_size": text["width"],
            "intermediate_size": text["mlp_width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "hidden_act": names[siglip.approximation(clip.model.text)],
            "layer_norm_eps": (text["norm_kwargs"] or {}).get("eps", 1e-5),
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "projection_size": full["embed_dim"],
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            **siglip.sizes_of(trunk),
            "hidden_act": names[siglip.approximation(trunk)],
            "layer_norm_eps": trunk.norm.eps,
            "num_channels": 3,
        },
    }


def write_tokenizer(clip: ClipModel, folder: Path) -> None:
    """Write the tokenizer's files, including open_clip's cleaning of texts before it.

    Raises:
        ModelError: The tokenizer cannot include that.
    """
    words: Any = clip.tokenizer
    words.tokenizer.save_pretrained(str(folder))
    from transformers import AutoTokenizer

    copy = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    backend = getattr(copy, "backend_tokenizer", None)
    arguments = clip.source.architecture["text_cfg"].get("tokenizer_kwargs") or {}
    if backend is not None:
        backend.normalizer = _cleaning(arguments.get("clean", "whitespace"), backend.normalizer)
    elif arguments.get("clean") != "canonicalize":  # SigLIP's slow one does that itself
        raise ModelError(
            f"{clip.source.name}: its tokenizer is none of the tokenizers package, so --to hf "
            "cannot write how texts are cleaned; keep the open_clip folder"
        )
    copy.save_pretrained(str(folder))
    path = folder / files.TOKENIZER_FILE
    # The text tower sees its padding, so there must be no attention mask.
    own = {"model_max_length": clip.context_length, "model_input_names": ["input_ids"]}
    content = {**files.read_json(path), **own}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cleaning(kind: str, then: Any) -> Any:
    """Return open_clip's cleaning of texts as a normalizer, followed by the tokenizer's own.

    It omits open_clip's repairs of broken characters (ftfy) and HTML entities, which come first.
    """
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if kind == "canonicalize":
        marks = "".join(f"\\{mark}" for mark in string.punctuation.replace("_", ""))
        steps = [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{marks}]"), "")]
    if kind in ("canonicalize", "lower"):
        steps.append(normalizers.Lowercase())
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return normalizers.Sequence([*steps, *([] if then is None else [then])])
