"""Models between two models, written as open_clip folders."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clic import models, provenance, runs
from clic.errors import ConfigError
from clic.io.files import file_sha256
from clic.patching.interpolation import blend, check_alpha, check_names
from clic.patching.weights import Weights, check_architecture, open_weights

RECORD_FILE = "patch.json"


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
                del state  # scoring loads the model once more
                results.append({"alpha": alpha, **score(model)})
    return results


def _blend_all(base: Weights, tuned: Weights, alpha: float) -> dict[str, Tensor]:
    """Return theta(alpha) of two open models, read tensor by tensor."""
    check_architecture(base, tuned)
    check_names(base.names, tuned.names)
    return {name: blend(name, base.read(name), tuned.read(name), alpha) for name in base.names}


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything but an earlier patched model or an empty folder."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / RECORD_FILE).is_file()):
        raise ConfigError(f"out={out} exists and is no patched model; choose another folder")


def _save(folder: Path, state: dict[str, Tensor], tuned: Weights) -> None:
    """Fill an open_clip folder; all but the weights are the tuned model's."""
    from safetensors.torch import save_file

    weights, config = folder / runs.OPEN_CLIP_WEIGHTS, folder / runs.OPEN_CLIP_CONFIG
    save_file(state, weights)
    config.write_text(json.dumps(tuned.config, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(config, weights)  # safetensors makes it readable for its owner alone
    for file in tuned.tokenizer_files:
        shutil.copyfile(file, folder / file.name)
