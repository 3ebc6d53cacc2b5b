"""What of a model trains: freezing its parts, and the mode that each part runs in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from clic.errors import ConfigError
from clic.models.depths import SCALARS, VISION_PREFIX, tower
from clic.parts import Trained, parse


def set_trainable(model: nn.Module, train: str, train_logit_scale: bool) -> Trained:
    """Freeze the parts of a model that do not train; return which towers train.

    `train` has the form of `model.train`: `text`, `vision`, `both`, or the last layers of a tower
    such as `text.last:4`, joined by `+`. Everything outside the vision tower counts as text;
    `train_logit_scale` decides whether logit_scale and logit_bias train with it.

    Raises:
        ConfigError: `train` is unknown, or a tower has fewer layers than it names.
    """
    trained = parse(train)
    frozen: set[str] = set()
    for name, last in trained.last.items():
        found = tower(model, name, f"model.train={train}")
        if last > found.layers:
            raise ConfigError(
                f"model.train={train}: the {name} tower has {found.layers} layers; name at most "
                f"that many, or {name} for all of it"
            )
        frozen |= {n for n, depth in found.depths.items() if depth <= found.layers - last}
    for name, parameter in model.named_parameters():
        if name.startswith(VISION_PREFIX):
            trains = trained.vision
        elif name in SCALARS:
            trains = trained.text and train_logit_scale
        else:
            trains = trained.text
        parameter.requires_grad_(trains and name not in frozen)
    return trained


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
    """Put what trains into training mode, and what is frozen into evaluation mode.

    A frozen tower in training mode would still update BatchNorm's statistics and apply dropout. Of
    a tower of which only the last layers train, so would the frozen layers.
    """
    model.train()
    for name, child in model.named_children():
        vision = name == "visual"
        child.train(trained.vision if vision else trained.text)
        if ("vision" if vision else "text") in trained.last:
            _rest(child)


def _rest(module: nn.Module) -> None:
    """Put the modules that have parameters, none of which trains, into evaluation mode."""
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
