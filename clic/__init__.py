"""clic teaches a CLIP-like model to understand composition without losing what it knew.

The four commands as a Python API:

    model = clic.load("runs/shapes-...")
    model.similarity(["photo.jpg"], ["a dog chases a cat", "a cat chases a dog"])
    report = clic.evaluate(model, ["shapes++"])
    clic.patch("shapes-base", "runs/shapes-.../model", alpha=0.5, out="patched")
    clic.sweep("shapes-base", "runs/shapes-.../model", "0:1:0.25", bench=["shapes"])
    clic.hard_negatives("a dog chases a cat")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clic.captions import hard_negatives
    from clic.evaluation import evaluate
    from clic.models.encoder import load
    from clic.patching import patch, soup, sweep

# Imported on first use, so that `clic-train --help` does not wait for torch.
_HOMES = {
    "evaluate": "clic.evaluation",
    "hard_negatives": "clic.captions",
    "load": "clic.models.encoder",
    "patch": "clic.patching",
    "soup": "clic.patching",
    "sweep": "clic.patching",
}

__all__ = ["__version__", "evaluate", "hard_negatives", "load", "patch", "soup", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clic' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
