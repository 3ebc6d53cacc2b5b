"""Patched models as open_clip folders: the two models are read, and the one between written."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clic import models, provenance, runs
from clic.errors import ConfigError, ModelError
from clic.io.files import file_sha256
from clic.patching.interpolation import blend, check_alpha, check_architecture, check_names

RECORD_FILE = "patch.json"
FILES_BESIDE = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    f"{models.TEXT_TOWER}/config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""A Hugging Face tokenizer's and text tower's files in an open_clip folder, copied with it."""


@dataclass(frozen=True)
class Weights:
    """An open model, whose tensors are read one at a time.

    Attributes:
        label: The model as the user named it.
        file: The file of the tensors.
        names: Names of the tensors.
        read: Returns the tensor of a name.
        config: open_clip's `model_cfg` and `preprocess_cfg`.
        files_beside: Files that are copied with the weights.
    """

    label: str
    file: Path
    names: list[str]
    read: Callable[[str], Tensor]
    config: dict[str, Any]
    files_beside: list[Path]


@contextmanager
def open_weights(model: str | Path) -> Iterator[Weights]:
    """Open a model for reading; any other source is first saved as a temporary open_clip folder."""
    name = runs.source_of(str(model))
    folder = Path(name.removeprefix("local-dir:"))
    with ExitStack() as stack:
        if not (name.startswith("local-dir:") and runs.is_open_clip_folder(folder)):
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="clic-patch-"))
            folder = models.save(models.create(name), Path(work) / "model")
        yield stack.enter_context(_open_folder(str(model), folder))


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
    files = [folder / name for name in FILES_BESIDE if (folder / name).is_file()]
    with handle as tensors:

        def read(name: str) -> Tensor:
            tensor = tensors.get_tensor(name)
            models.check_numbers({name: tensor}, path)
            return tensor

        yield Weights(label, path, list(tensors.keys()), read, config, files)


def patch(base: str | Path, tuned: str | Path, alpha: float, out: str | Path) -> Path:
    """Write the model between two models as an open_clip folder.

    Weights are read tensor by tensor, so that memory holds the new model but neither input. The
    folder appears complete or not at all, and replaces an earlier patched model.

    Args:
        base: Model of alpha 0: a run, checkpoint or open_clip folder, or a name such as
            ``ViT-B-32:openai``.
        tuned: Model of alpha 1, likewise.
        alpha: 0 to 1.
        out: Folder to write.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: `alpha` lies outside 0..1, or `out` holds something else or cannot be written.
        ModelError: A model is missing, or the two do not fit.
    """
    check_alpha(alpha)
    out = Path(out).expanduser()
    _check_replaceable(out)
    with open_weights(base) as first, open_weights(tuned) as second:
        state = _blend_all(first, second, alpha)
        record = {
            "alpha": alpha,
            "base": str(base),
            "base_file_sha256": file_sha256(first.file),
            "tuned": str(tuned),
            "tuned_file_sha256": file_sha256(second.file),
            **provenance.code(),
        }
        with models.whole_folder(out, out.parent) as new:
            _save(new, state, second)
            (new / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return out


def sweep(
    base: str | Path,
    tuned: str | Path,
    alphas: Sequence[float],
    score: Callable[[Path], dict[str, Any]],
    folder: str | Path,
) -> list[dict[str, Any]]:
    """Score the model of each alpha without keeping the models.

    The two models are opened only once.

    Args:
        base: Model of alpha 0, as `patch` takes it.
        tuned: Model of alpha 1.
        alphas: The alphas to score, each 0 to 1.
        score: Returns the results of an open_clip folder.
        folder: Existing folder with enough disk space for one model at a time.

    Returns:
        For each alpha ``{"alpha": alpha, **score(model)}``.

    Raises:
        ConfigError: An alpha lies outside 0..1, or `folder` cannot be written to.
        ModelError: A model is missing, or the two do not fit.
    """
    for alpha in alphas:
        check_alpha(alpha)
    results = []
    with open_weights(base) as first, open_weights(tuned) as second:
        for alpha in alphas:
            state = _blend_all(first, second, alpha)
            with models.writing(Path(folder)):
                work = tempfile.TemporaryDirectory(prefix=".sweep-", dir=folder)
            with work:
                model = Path(work.name) / runs.alpha_folder(alpha)
                with models.writing(Path(folder)):
                    model.mkdir()
                    _save(model, state, second)
                del state  # Scoring loads the model again.
                results.append({"alpha": alpha, **score(model)})
    return results


def _blend_all(base: Weights, tuned: Weights, alpha: float) -> dict[str, Tensor]:
    """Return theta(alpha) of two open models, read tensor by tensor."""
    check_architecture(base, tuned)
    check_names(base.names, tuned.names)
    return {name: blend(name, base.read(name), tuned.read(name), alpha) for name in base.names}


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything except an earlier patched model or an empty folder."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / RECORD_FILE).is_file()):
        raise ConfigError(f"out={out} exists and is not a patched model; choose another folder")


def _save(folder: Path, state: dict[str, Tensor], tuned: Weights) -> None:
    """Fill an open_clip folder; everything except the weights comes from the tuned model."""
    from safetensors.torch import save_file

    weights, config = folder / runs.OPEN_CLIP_WEIGHTS, folder / runs.OPEN_CLIP_CONFIG
    save_file(state, weights)
    config.write_text(json.dumps(tuned.config, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(config, weights)  # safetensors makes it readable only by its owner.
    for file in tuned.files_beside:
        copy = folder / file.relative_to(tuned.file.parent)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
