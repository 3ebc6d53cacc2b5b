"""How deep each parameter of a tower lies: before its layers, in which of them, or after them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from clic.errors import ConfigError

VISION_PREFIX = "visual."
SCALARS = ("logit_scale", "logit_bias")
_LAYER = re.compile(r"(?:^|\.)(?:resblocks|blocks?|layers?|h)\.(\d+)\.")
_STAGE = re.compile(r"layer(\d+)\.")  # of open_clip's ResNets, counted from 1
_WRAPPERS = ("transformer", "encoder", "decoder", "model")
_MODULE = re.compile(r"(?:^|\.)(?:(?:resblocks|blocks?|layers?|stages|h)\.\d+|layer\d+)$")
_STEM = re.compile(r"emb|relative_attention|shared$|ln_pre|patchnorm_pre|stem|conv\d|bn\d")


@dataclass(frozen=True)
class Tower:
    """A tower's parameters by their depth.

    Attributes:
        layers: Number N of layers; 0 if the architecture has no numbered ones.
        depths: Each parameter's depth by its name in the whole model: 0 for embeddings and
            everything else before the layers, 1 to N in them, N + 1 for the norm, pooling and
            projection after them.
    """

    layers: int
    depths: dict[str, int]


def towers_of(model: nn.Module) -> dict[str, Tower]:
    """Return the towers `text` and `vision` of a model, without logit_scale and logit_bias.

    Native towers of open_clip and those of Hugging Face are split by parameter names, timm's by
    timm's own grouping. Everything outside the vision tower belongs to the text tower.
    """
    named = [name for name, _ in model.named_parameters() if name not in SCALARS]
    vision = [name for name in named if name.startswith(VISION_PREFIX)]
    text = [name for name in named if not name.startswith(VISION_PREFIX)]
    trunk = getattr(getattr(model, "visual", None), "trunk", None)
    found = _timm(vision, trunk) if trunk is not None else _by_name(vision, VISION_PREFIX)
    return {"text": _by_name(text, "text." if hasattr(model, "text") else ""), "vision": found}


def tower(model: nn.Module, name: str, setting: str) -> Tower:
    """Return a tower that has layers.

    Raises:
        ConfigError: Its layers are not numbered; `setting` is the setting that needs them.
    """
    found = towers_of(model)[name]
    if not found.layers:
        raise ConfigError(
            f"{setting} needs a {name} tower whose layers are numbered, and this model has none; "
            "leave it out, or train the whole tower"
        )
    return found


def layer_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the outermost numbered layers of a model by name; a tower without any is one layer."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if _MODULE.search(name) and not inside:
            found[name] = module
    for tower in ("visual", "text"):
        whole = getattr(model, tower, None)
        if isinstance(whole, nn.Module) and not any(n.startswith(f"{tower}.") for n in found):
            found[tower] = whole
    return found


def _by_name(names: Iterable[str], prefix: str) -> Tower:
    """Return a tower whose parameter names contain the layers' numbers."""
    numbers: dict[str, int | None] = {}  # None: after all layers
    for name in names:
        own = name.removeprefix(prefix)
        stage, layer = _STAGE.match(own), _LAYER.search(own)
        if not name.startswith(prefix):  # e.g. CoCa's decoder, which is not part of the tower
            numbers[name] = None
        elif stage is not None:
            numbers[name] = int(stage[1])
        elif layer is not None:
            numbers[name] = int(layer[1]) + 1
        else:
            numbers[name] = 0 if _is_stem(own) else None
    layers = max((number or 0 for number in numbers.values()), default=0)
    return Tower(layers, {n: layers + 1 if d is None else d for n, d in numbers.items()})


def _is_stem(name: str) -> bool:
    """Return whether a parameter outside the layers comes before them, by its outermost module."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return _STEM.search(parts[0]) is not None


def _timm(names: Iterable[str], trunk: Any) -> Tower:
    """Return a timm tower, whose `group_matcher` defines which parameters form a layer."""
    prefix = f"{VISION_PREFIX}trunk."
    matcher = getattr(trunk, "group_matcher", None)
    if matcher is None:
        return Tower(0, dict.fromkeys(names, 1))
    from timm.models import group_parameters

    groups: dict[int, list[str]] = group_parameters(trunk, matcher(coarse=False))
    last = max(groups)
    # Parameters that timm's rules do not name come last: a head, unless they are numbered layers.
    head = not any(re.search(r"\.\d+\.", name) for name in groups[last])
    layers = last - 1 if head else last
    own = {prefix + name: depth for depth, group in groups.items() for name in group}
    return Tower(max(layers, 0), {name: own.get(name, layers + 1) for name in names})
