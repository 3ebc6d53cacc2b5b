"""LoRA through peft: low-rank updates beside the frozen matrices of a tower's layers.

W + (alpha / rank) B A replaces a matrix W, where A is [rank, in] and B, [out, rank], starts at zero
(arXiv 2106.09685, section 4.1). Linear layers are adapted, and so is the joint projection of
queries, keys and values in torch's attention. Its output projection is not: torch reads that matrix
without calling its layer. A model is saved with the products added to its matrices, so its folder
is a plain one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clic.errors import ConfigError
from clic.models.depths import towers_of
from clic.models.loading import ClipModel

PEFT = "default"
"""peft's name for the adapters."""
LORA = ".lora_"
"""Part of the name of every adapter parameter, and of no other."""


class Adapters:
    """The adapters of a model's towers, inserted in place.

    Args:
        model: open_clip's module.
        towers: The towers that get adapters, `text` or `vision`.
        rank: Rank of the updates.
        alpha: Scale of the updates, times the rank.

    Raises:
        ConfigError: peft is missing, or a tower has no layers that can be adapted.
    """

    def __init__(self, model: Any, towers: Iterable[str], rank: int, alpha: float) -> None:
        try:
            from peft import LoraConfig
            from peft.tuners.lora import LoraModel
        except ImportError as error:
            raise ConfigError(
                "model.train=lora:... needs the package peft; pip install peft (the extra lora)"
            ) from error
        self.model, self._tuners = model, list[Any]()
        for tower in sorted(towers):
            root = _root(model, tower)
            layers, parameters = _targets(model, tower, root)
            if not layers and not parameters:
                raise ConfigError(
                    f"model.train=lora:{tower}: the {tower} tower has no numbered layers with "
                    "linear parts; train some of it without lora:"
                )
            config = LoraConfig(
                r=rank,
                lora_alpha=alpha,
                target_modules=layers or None,
                target_parameters=parameters or None,
            )
            self._tuners.append(LoraModel(root, config, PEFT))
        self._adapted = {
            name.rpartition(".lora_A")[0]
            for name, _ in model.named_parameters()
            if ".lora_A." in name
        }

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the adapted parts: the adapters and the matrices beside them."""
        own = tuple(f"{name}." for name in self._adapted)
        return {n: v for n, v in self.model.state_dict().items() if n.startswith(own)}

    def restore(self, plain: dict[str, Tensor], own: dict[str, Tensor]) -> None:
        """Load a checkpoint: the weights of a plain model, and the tensors from `state`.

        Raises:
            ConfigError: The checkpoint was trained without adapters, or with others.
        """
        expected = self.state()
        shapes = {name: value.shape for name, value in expected.items()}
        if {name: value.shape for name, value in own.items()} != shapes:
            raise ConfigError(
                "the checkpoint was trained with another model.train or model.lora_rank; use the "
                "same, or start from its weights: model.name=CHECKPOINT train.resume=never"
            )
        rest = self.model.state_dict().keys() - own.keys()
        self.model.load_state_dict({**{name: plain[name] for name in rest}, **own})

    def plain(self, merge: bool = True) -> Any:
        """Return a model without adapters: merged into the matrices if `merge`, otherwise dropped.

        Frozen parameters that have no adapter are shared with the model.
        """
        own = tuple(f"{name}." for name in self._adapted)
        shared: dict[int, Any] = {
            id(p): p
            for name, p in self.model.named_parameters()
            if not p.requires_grad and not name.startswith(own)
        }
        with torch.no_grad():
            model, tuners = copy.deepcopy((self.model, self._tuners), shared)
            for tuner in tuners:
                tuner.merge_and_unload() if merge else tuner.unload()
        return model

    @contextmanager
    def taken_out(self, clip: ClipModel, merge: bool = True) -> Iterator[None]:
        """Give a `ClipModel` the plain model for the duration of the block."""
        clip.model = self.plain(merge)
        try:
            yield
        finally:
            clip.model = self.model


def _root(model: Any, tower: str) -> Any:
    """Return the module that contains a tower's layers."""
    if tower == "vision":
        return model.visual
    return model.text if hasattr(model, "text") else model.transformer


def _targets(model: Any, tower: str, root: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names, relative to a tower's root, of its linear layers and attention matrices."""
    found = towers_of(model)[tower]
    within = {id(p) for n, p in model.named_parameters() if found.depths.get(n, 0) >= 1}
    within -= {id(p) for n, p in model.named_parameters() if found.depths.get(n, 0) > found.layers}
    layers, parameters = [], []
    unused = {id(m.out_proj.weight) for m in root.modules() if isinstance(m, nn.MultiheadAttention)}
    for name, module in root.named_modules():
        if isinstance(module, nn.MultiheadAttention) and id(module.in_proj_weight) in within:
            parameters.append(f"{name}.in_proj_weight")
        elif isinstance(module, nn.Linear) and id(module.weight) in within - unused:
            layers.append(name)
    return layers, parameters
