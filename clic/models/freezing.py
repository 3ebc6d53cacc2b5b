"""Which parts of a model train: freezing the rest, and the mode that each part runs in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from clic.errors import ConfigError
from clic.models.adapters import LORA
from clic.models.depths import SCALARS, VISION_PREFIX, tower
from clic.parts import Trained, parse


def set_trainable(model: nn.Module, train: str, train_logit_scale: bool) -> Trained:
    """Freeze the parts of a model that do not train; return which towers train.

    `train` has the form of `model.train`: `text`, `vision`, `both`, the last layers of a tower such
    as `text.last:4`, its adapters (`lora:text`, once they are in the model), joined by `+`, and at
    the end `re:PATTERN` for the parameters whose names match the pattern. Everything outside the
    vision tower counts as text; `train_logit_scale` decides whether logit_scale and logit_bias
    train with it.

    Raises:
        ConfigError: `train` is unknown, a tower has fewer layers than it names, or no parameter
            matches the pattern.
    """
    trained = parse(train)
    chosen = _matching(model, trained.pattern, train) if trained.pattern is not None else set()
    late: set[str] = set()  # parameters of the last layers that train
    for name, last in trained.last.items():
        found = tower(model, name, f"model.train={train}")
        if last > found.layers:
            raise ConfigError(
                f"model.train={train}: the {name} tower has {found.layers} layers; name at most "
                f"that many, or {name} for all of it"
            )
        late |= {n for n, depth in found.depths.items() if depth > found.layers - last}
    for name, parameter in model.named_parameters():
        own = _tower_of(name)
        adapts = own in trained.lora and LORA in name
        trains = own in trained.whole or name in late or name in chosen or adapts
        parameter.requires_grad_(trains and name not in SCALARS)
    if trained.pattern is not None:
        towers = {_tower_of(n) for n, p in model.named_parameters() if p.requires_grad}
        trained = replace(trained, vision="vision" in towers, text="text" in towers)
    for name, parameter in model.named_parameters():
        if name in SCALARS:
            parameter.requires_grad_(trained.text and train_logit_scale)
    return trained


def _tower_of(name: str) -> str:
    return "vision" if name.startswith(VISION_PREFIX) else "text"


def _matching(model: nn.Module, pattern: str, train: str) -> set[str]:
    """Return the parameters whose names, prefixed with their tower's, match a pattern."""
    names = {
        f"{_tower_of(name)}.{name.removeprefix(VISION_PREFIX).removeprefix('text.')}": name
        for name, _ in model.named_parameters()
        if name not in SCALARS
    }
    found = {name for shown, name in names.items() if re.search(pattern, shown)}
    if not found:
        some = list(names)
        raise ConfigError(
            f"model.train={train}: no parameter's name holds {pattern!r}; names are such as "
            f"{', '.join(dict.fromkeys([some[len(some) // 3], some[-1]]))}"
        )
    return found


def reached(model: nn.Module, loss: Tensor) -> set[str]:
    """Return the names of the parameters that get a gradient, even a zero one, from a loss."""
    leaves: set[int] = set()
    seen: set[Any] = set()
    nodes: list[Any] = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaves.add(id(getattr(node, "variable", None)))
        nodes += [following for following, _ in node.next_functions]
    return {name for name, parameter in model.named_parameters() if id(parameter) in leaves}


def freeze(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Freeze the named parameters; return their names for display, whole modules as `module.*`."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    names = trained.intersection(names)
    kept = trained - names
    shown: dict[str, None] = {}
    for name, parameter in model.named_parameters():
        if name not in names:
            continue
        parameter.requires_grad_(False)
        parts = name.split(".")
        modules = (".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
        whole = (m for m in modules if not any(other.startswith(m) for other in kept))
        module = next(whole, None)
        shown[name if module is None else f"{module}*"] = None
    return list(shown)


def set_mode(model: nn.Module, trained: Trained) -> None:
    """Put trained parts into training mode, and frozen ones into evaluation mode.

    A frozen tower in training mode would still update BatchNorm's statistics and apply dropout, and
    so would the frozen rest of a tower that trains in part.
    """
    model.train()
    for name, child in model.named_children():
        vision = name == "visual"
        child.train(trained.vision if vision else trained.text)
        if ("vision" if vision else "text") not in trained.whole:
            _rest(child)


def _rest(module: nn.Module) -> None:
    """Put modules that have parameters, all of them frozen, into evaluation mode."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _rest(child)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for the duration of the block."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
