"""The full description of a model and its differences from another, for `clic-eval --describe`.

A model that is loaded with another activation, tokenizer or preprocessing than it was trained with
still runs, but gives other numbers. So all of these are read from the built model, not from its
name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from clic.models.depths import SCALARS, VISION_PREFIX
from clic.models.loading import ClipModel
from clic.models.saving import identity
from clic.models.source import filled

PROBES = (
    "A dog's bowl, to the LEFT of 2 cats!", "café, naïve; 日本 & Ωmega",
    "the quick brown fox jumps over the lazy dog. the lazy dog sleeps. " * 12, "",
)  # fmt: skip
"""Texts with capitals, punctuation, accents, too many words, and none: tokenizers that treat all
of them alike are considered the same."""
ACTIVATIONS = ("GELU", "ReLU", "SiLU")


def describe(clip: ClipModel) -> dict[str, Any]:
    """Return what a model is, as a JSON object.

    Args:
        clip: The model.

    Returns:
        `identity`, with `vision` and `text` (a line of prose, the activations among the tower's
        modules, the number of its parameters, the SHA-256 of its tensors), `scalars`
        (logit_scale exponentiated), `preprocessing`, and `tokenizer` (its class, the size of its
        vocabulary, its context, and the SHA-256 of its ids for fixed texts).
    """
    found = identity(clip)
    architecture = found["architecture"]
    parameters = dict(clip.model.named_parameters())
    vision = {name for name in parameters if name.startswith(VISION_PREFIX)}
    members = {"vision": vision, "text": parameters.keys() - vision - set(SCALARS)}
    modules = {
        "vision": [clip.model.visual],
        "text": [child for name, child in clip.model.named_children() if name != "visual"],
    }
    words = {"vision": _vision_words(architecture), "text": _text_words(architecture)}
    for tower, names in members.items():
        found[tower] = {
            "tower": words[tower],
            "activations": sorted(_activations(modules[tower])),
            "parameters": sum(parameters[name].numel() for name in names),
            "sha256": found[f"{tower}_sha256"],
        }
    found["scalars"] = _scalars(clip)
    image = asdict(clip.preprocess)
    found["preprocessing"] = {**image, "mean": list(image["mean"]), "std": list(image["std"])}
    found["tokenizer"] = _tokenizer(clip)
    return found


def differences(model: ClipModel, base: ClipModel) -> dict[str, Any]:
    """Return where a model differs from its base, as a JSON object.

    Args:
        model: The model.
        base: The model to compare it with.

    Returns:
        `architecture`, `preprocessing`, `tokenizer` and `scalars`: the entries that differ, each
        `[the model's, the base's]`. `vision` and `text`: `tensors`, how many there are in either
        model; `changed`, how many of them differ or exist in one model only; and `relative_change`,
        |theta - theta_base| / |theta_base| over the floating tensors of one shape in both (L2 norm;
        None if there is none).
    """
    one, two = describe(model), describe(base)
    found: dict[str, Any] = {
        "architecture": _unequal(_flat(filled(one["architecture"])),
                                 _flat(filled(two["architecture"]))),
        **{name: _unequal(one[name], two[name])
           for name in ("preprocessing", "tokenizer", "scalars")},
    }  # fmt: skip
    states = [_by_tower(each) for each in (model, base)]
    for tower in ("vision", "text"):
        acting = (one[tower]["activations"], two[tower]["activations"])
        if acting[0] != acting[1]:
            found["architecture"][f"{tower} activations"] = list(acting)
        found[tower] = _changed(states[0][tower], states[1][tower])
    return found


def _vision_words(architecture: Mapping[str, Any]) -> str:
    full = filled(dict(architecture))["vision_cfg"]
    size, width, layers = full["image_size"], full["width"], full["layers"]
    if full["timm_model_name"]:
        pool = full["timm_pool"] or "the tower's own"
        return f"{full['timm_model_name']} of timm, input {_sides(size)}, pooling {pool}"
    if isinstance(layers, (list, tuple)):
        blocks = "-".join(map(str, layers))
        return f"ResNet of {blocks} blocks, width {width}, input {_sides(size)}, attention pooling"
    pool = "attention" if full["attentional_pool"] else full["pool_type"]
    return (
        f"ViT of {layers} layers, width {width}, {full['heads']} heads, patches of "
        f"{full['patch_size']} px, input {_sides(size)}, pooling {pool}"
    )


def _text_words(architecture: Mapping[str, Any]) -> str:
    full = filled(dict(architecture))["text_cfg"]
    if full["hf_model_name"]:
        pool = full["hf_pooler_type"]
        return f"{full['hf_model_name']} of transformers, pooling {pool}"
    mask = "no causal mask" if full["no_causal_mask"] else "causal mask"
    return (
        f"transformer of {full['layers']} layers, width {full['width']}, {full['heads']} heads, "
        f"vocabulary {full['vocab_size']:,}, {mask}, pooling {full['pool_type']}"
    )


def _sides(size: int | tuple[int, int] | list[int]) -> str:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return " x ".join(map(str, sides)) + " px"


def _activations(modules: list[nn.Module]) -> set[str]:
    names = {_activation(part) for module in modules for part in module.modules()}
    return {name for name in names if any(kind in name for kind in ACTIVATIONS)}


def _activation(module: nn.Module) -> str:
    name = type(module).__name__
    tanh = getattr(module, "approximate", "none") == "tanh"  # the name of timm's own class
    return "GELUTanh" if name == "GELU" and tanh else name


def _scalars(clip: ClipModel) -> dict[str, float | None]:
    bias = getattr(clip.model, "logit_bias", None)
    scale = clip.model.logit_scale.detach().double().exp()
    return {"logit_scale": scale.item(), "logit_bias": None if bias is None else bias.item()}


def _tokenizer(clip: ClipModel) -> dict[str, Any]:
    own = getattr(clip.tokenizer, "tokenizer", clip.tokenizer)  # open_clip wraps transformers'
    size = getattr(own, "vocab_size", None)
    ids = clip.tokenizer(list(PROBES)).to(torch.int64)
    digest = hashlib.sha256(f"{tuple(ids.shape)}\n".encode() + ids.numpy().tobytes())
    return {
        "kind": type(own).__name__,
        "vocabulary": size,
        "context_length": clip.context_length,
        "sha256_of_fixed_texts": digest.hexdigest(),
    }


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return nested entries under dotted names."""
    if not isinstance(value, Mapping):
        return {path: list(value) if isinstance(value, tuple) else value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found.update(_flat(inner, f"{path}.{name}" if path else str(name)))
    return found


def _unequal(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*one, *two])
    return {n: [one.get(n), two.get(n)] for n in names if one.get(n) != two.get(n)}


def _by_tower(clip: ClipModel) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}}
    for name, value in clip.model.state_dict().items():
        if name not in SCALARS:
            found["vision" if name.startswith(VISION_PREFIX) else "text"][name] = value
    return found


def _changed(one: dict[str, Tensor], two: dict[str, Tensor]) -> dict[str, Any]:
    names = one.keys() | two.keys()
    fitting = [n for n in one.keys() & two.keys() if one[n].shape == two[n].shape]
    equal = sum(one[n].dtype == two[n].dtype and torch.equal(one[n], two[n]) for n in fitting)
    moved = norm = 0.0
    for name in fitting:
        if two[name].is_floating_point():
            before = two[name].double()
            finite = before.isfinite()  # masks contain -inf, whose difference is NaN
            moved += float((one[name].double() - before)[finite].square().sum())
            norm += float(before[finite].square().sum())
    relative = (moved / norm) ** 0.5 if norm else None
    return {"tensors": len(names), "changed": len(names) - equal, "relative_change": relative}
