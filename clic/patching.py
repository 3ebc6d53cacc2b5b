"""Weights between a base model and the one that was tuned from it (WiSE-FT, arXiv 2109.01903).

CLoVe (arXiv 2402.15021, section 3.3) patches its models with alpha = 0.6.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clic import models, provenance, runs
from clic.errors import ConfigError, ModelError

RECORD_FILE = "patch.json"
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


def interpolate(
    base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return theta(alpha) = (1 - alpha) * theta_base + alpha * theta_tuned (arXiv 2109.01903).

    Computed in fp32 (float64 stays) and given in the wider of the two dtypes. Integer and boolean
    tensors must agree and are copied; so are infinite entries (the causal mask's -inf), and
    tensors that are equal already, so that a frozen tower keeps its bits. Alpha 0 and 1 give the
    inputs' values exactly.

    Args:
        base: Tensors of the base model by name.
        tuned: Tensors of the tuned model, the same names and shapes.
        alpha: 0 (base) to 1 (tuned).

    Raises:
        ConfigError: `alpha` lies outside 0..1.
        ModelError: Names, shapes, or tensors that must agree, do not.
    """
    _check_alpha(alpha)
    _check_names(base.keys(), tuned.keys())
    return {name: _blend(name, base[name], tuned[name], alpha) for name in base}


def patch(base: str | Path, tuned: str | Path, alpha: float, out: str | Path) -> Path:
    """Write the model between two models as an open_clip folder.

    Weights are read tensor by tensor, so memory holds the new model and no whole input. The folder
    appears whole or not at all, and replaces an earlier patched model.

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
    _check_alpha(alpha)
    out = Path(out).expanduser()
    _check_replaceable(out)
    with _open(base) as first, _open(tuned) as second:
        state = _blend_all(first, second, alpha)
        record = {
            "alpha": alpha,
            "base": str(base),
            "base_file_sha256": _file_sha256(first.file),
            "tuned": str(tuned),
            "tuned_file_sha256": _file_sha256(second.file),
            **provenance.code(),
        }
        _write(out, state, second, record)
    return out


def sweep(
    base: str | Path,
    tuned: str | Path,
    alphas: Sequence[float],
    score: Callable[[Path], dict[str, Any]],
    folder: str | Path,
) -> list[dict[str, Any]]:
    """Score the model of each alpha; the models themselves are not kept.

    The two models are opened once, however many alphas there are.

    Args:
        base: Model of alpha 0, as `patch` takes it.
        tuned: Model of alpha 1.
        alphas: Which to score, each 0 to 1.
        score: Called with each model's open_clip folder; returns what to say of it.
        folder: Existing folder that has room for one model at a time.

    Returns:
        For each alpha ``{"alpha": alpha, **score(model)}``.

    Raises:
        ConfigError: An alpha lies outside 0..1, or `folder` cannot be written to.
        ModelError: A model is missing, or the two do not fit.
    """
    for alpha in alphas:
        _check_alpha(alpha)
    results = []
    with _open(base) as first, _open(tuned) as second:
        for alpha in alphas:
            state = _blend_all(first, second, alpha)
            with _writing(Path(folder)):
                work = tempfile.TemporaryDirectory(prefix=".sweep-", dir=folder)
            with work:
                model = Path(work.name) / runs.alpha_folder(alpha)
                with _writing(Path(folder)):
                    _save(model, state, second)
                del state  # scoring loads the model once more
                results.append({"alpha": alpha, **score(model)})
    return results


@dataclass(frozen=True)
class _Weights:
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
def _open(model: str | Path) -> Iterator[_Weights]:
    """Open a model for reading; a name that is no folder is first built, and kept as a folder."""
    path = Path(str(model).removeprefix("local-dir:")).expanduser()
    if path.is_dir():
        with _open_folder(str(model), runs.resolve(path)) as weights:
            yield weights
        return
    with tempfile.TemporaryDirectory(prefix="clic-patch-") as work:
        folder = models.save(models.create(str(model)), Path(work) / "model")
        with _open_folder(str(model), folder) as weights:
            yield weights


@contextmanager
def _open_folder(label: str, folder: Path) -> Iterator[_Weights]:
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
        yield _Weights(label, path, list(tensors.keys()), tensors.get_tensor, config, files)


def _check_alpha(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha={alpha} lies outside 0..1; 0 is the base model, 1 the tuned one")


def _check_names(base: Sequence[str] | Any, tuned: Sequence[str] | Any) -> None:
    only_base, only_tuned = sorted(set(base) - set(tuned)), sorted(set(tuned) - set(base))
    if only_base or only_tuned:
        raise ModelError(
            "the models differ in their tensors: "
            f"only in the base {_some(only_base)}; only in the tuned {_some(only_tuned)}"
        )


def _check_architecture(base: _Weights, tuned: _Weights) -> None:
    first, second = base.config.get("model_cfg", {}), tuned.config.get("model_cfg", {})
    differing = list(_differences(first, second))
    if differing:
        raise ModelError(
            f"{base.label} and {tuned.label} differ in architecture: {_some(differing)}; "
            "only a model and what was tuned from it can be patched"
        )


def _differences(first: Any, second: Any, name: str = "") -> Iterator[str]:
    """Yield `field (a against b)` wherever two nested configurations differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from _differences(first.get(key), second.get(key), f"{name}.{key}".strip("."))
    elif first != second:
        yield f"{name} ({first} against {second})"


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(names[:count]) or "none"
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown


def _blend_all(base: _Weights, tuned: _Weights, alpha: float) -> dict[str, Tensor]:
    """Return theta(alpha) of two open models, read tensor by tensor."""
    _check_architecture(base, tuned)
    _check_names(base.names, tuned.names)
    return {name: _blend(name, base.read(name), tuned.read(name), alpha) for name in base.names}


def _blend(name: str, base: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    """Return one tensor of theta(alpha); see `interpolate`."""
    if base.shape != tuned.shape:
        raise ModelError(
            f"tensor {name!r} has shape {list(base.shape)} in the base "
            f"and {list(tuned.shape)} in the tuned"
        )
    floating = base.is_floating_point(), tuned.is_floating_point()
    if not any(floating):
        if base.dtype != tuned.dtype or not torch.equal(base, tuned):
            raise ModelError(f"tensor {name!r} holds no weights, yet differs between the models")
        return base.clone()
    if not all(floating):
        raise ModelError(
            f"tensor {name!r} is {base.dtype} in the base and {tuned.dtype} in the tuned"
        )
    dtype = torch.promote_types(base.dtype, tuned.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    first, second = base.to(exact), tuned.to(exact)
    infinite = first.isinf()
    if not torch.equal(infinite, second.isinf()) or not torch.equal(
        first[infinite], second[infinite]
    ):
        raise ModelError(f"tensor {name!r} is infinite in different places in the two models")
    if alpha == 1.0:
        return tuned.to(dtype, copy=True)
    if alpha == 0.0 or torch.equal(first, second):
        return base.to(dtype, copy=True)
    mixed = (1.0 - alpha) * first + alpha * second
    return torch.where(infinite, first, mixed).to(dtype)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything but an earlier patched model or an empty folder."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / RECORD_FILE).is_file()):
        raise ConfigError(f"out={out} exists and is no patched model; choose another folder")


def _write(out: Path, state: dict[str, Tensor], tuned: _Weights, record: dict[str, Any]) -> None:
    """Write a patched model as a whole or not at all, in the place of an earlier one."""
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
            new = Path(work) / "new"
            _save(new, state, tuned)
            (new / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if out.exists():
                os.replace(out, Path(work) / "old")  # deleted with `work`, when the new one stands
            os.replace(new, out)


def _save(folder: Path, state: dict[str, Tensor], tuned: _Weights) -> None:
    """Make an open_clip folder; all but the weights are the tuned model's."""
    from safetensors.torch import save_file

    folder.mkdir()
    weights, config = folder / runs.OPEN_CLIP_WEIGHTS, folder / runs.OPEN_CLIP_CONFIG
    save_file(state, weights)
    config.write_text(json.dumps(tuned.config, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(config, weights)  # safetensors makes it readable for its owner alone
    for file in tuned.tokenizer_files:
        shutil.copyfile(file, folder / file.name)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a full disk or a missing permission raises into one line that names `path`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"cannot write {path} ({error}); free space, or choose another folder"
        ) from error
