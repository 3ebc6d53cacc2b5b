"""The tensors of an open_clip folder, read one at a time, and what lies beside them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clic import models, runs
from clic.errors import ModelError
from clic.patching.interpolation import first_few

TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""What a Hugging Face tokenizer leaves in an open_clip folder; it goes with the weights."""


@dataclass(frozen=True)
class Weights:
    """A model's tensors, to be read one at a time, and its configuration.

    Attributes:
        label: The model as the user named it.
        file: Where the tensors are.
        names: Names of its tensors.
        read: Name -> tensor.
        config: open_clip's `model_cfg` and `preprocess_cfg`.
        tokenizer_files: Files that go with the weights.
    """

    label: str
    file: Path
    names: list[str]
    read: Callable[[str], Tensor]
    config: dict[str, Any]
    tokenizer_files: list[Path]


@contextmanager
def open_weights(model: str | Path) -> Iterator[Weights]:
    """Open a model for reading; what is no open_clip folder is first built, and kept as one."""
    name = runs.source_of(str(model))
    folder = Path(name.removeprefix("local-dir:"))
    if name.startswith("local-dir:") and runs.is_open_clip_folder(folder):
        with _open_folder(str(model), folder) as weights:
            yield weights
        return
    with tempfile.TemporaryDirectory(prefix="clic-patch-") as work:
        folder = models.save(models.create(name), Path(work) / "model")
        with _open_folder(str(model), folder) as weights:
            yield weights


@contextmanager
def _open_folder(label: str, folder: Path) -> Iterator[Weights]:
    from safetensors import SafetensorError, safe_open

    path = folder / runs.OPEN_CLIP_WEIGHTS
    try:
        config = json.loads((folder / runs.OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{runs.OPEN_CLIP_CONFIG} should hold a JSON object")
        handle = safe_open(str(path), framework="pt")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be read as an open_clip folder ({error}); copy or make it again"
        ) from error
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    with handle as tensors:

        def read(name: str) -> Tensor:
            tensor = tensors.get_tensor(name)
            models.check_numbers({name: tensor}, path)
            return tensor

        yield Weights(label, path, list(tensors.keys()), read, config, files)


def check_architecture(base: Weights, tuned: Weights) -> None:
    """Raise `ModelError` where two models differ in their architecture."""
    first, second = (models.filled(side.config.get("model_cfg", {})) for side in (base, tuned))
    differing = list(_differences(first, second))
    if differing:
        raise ModelError(
            f"{base.label} and {tuned.label} differ in architecture: {first_few(differing)}; "
            "only a model and what was tuned from it can be patched"
        )


def _differences(first: Any, second: Any, name: str = "") -> Iterator[str]:
    """Yield `field (a against b)` wherever two nested configurations differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from _differences(first.get(key), second.get(key), f"{name}.{key}".strip("."))
    elif first != second:
        yield f"{name} ({first} against {second})"
