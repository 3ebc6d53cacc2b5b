"""Patched models as open_clip folders: read two models and write the one between them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from clic import models, provenance, runs
from clic.errors import ConfigError, ModelError
from clic.patching.alpha_rules import AlphaRules
from clic.patching.blending import write_blend
from clic.patching.interpolation import check_architecture, check_names
from clic.patching.tensor_files import TensorFiles, open_tensors

RECORD_FILE = "patch.json"
FILES_BESIDE = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    f"{models.TEXT_TOWER}/config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files of a Hugging Face tokenizer or text tower in an open_clip folder, copied with it."""


WEIGHTS_INDEX = f"{runs.OPEN_CLIP_WEIGHTS}.index.json"
"""Lists the weight files of an open_clip folder that has several, in Hugging Face's format."""


@dataclass(frozen=True)
class Weights:
    """A model opened for reading, whose tensors are read in pieces.

    Attributes:
        label: The model as the user named it.
        folder: Its open_clip folder.
        tensors: Its tensors.
        config: open_clip's `model_cfg` and `preprocess_cfg`.
        files_beside: Files that are copied with the weights.
    """

    label: str
    folder: Path
    tensors: TensorFiles
    config: dict[str, Any]
    files_beside: list[Path]


@contextmanager
def open_weights(model: str | Path) -> Iterator[Weights]:
    """Open a model for reading; any other source is first saved as a temporary open_clip folder."""
    folder = Path(str(model).removeprefix("local-dir:")).expanduser()
    with ExitStack() as stack:
        if not _is_sharded(folder):
            name = runs.source_of(str(model))
            folder = Path(name.removeprefix("local-dir:"))
            if not (name.startswith("local-dir:") and runs.is_open_clip_folder(folder)):
                work = stack.enter_context(tempfile.TemporaryDirectory(prefix="clic-patch-"))
                folder = models.save(models.create(name), Path(work) / "model")
        yield stack.enter_context(_open_folder(str(model), folder))


def _is_sharded(folder: Path) -> bool:
    """Return whether a folder contains an open_clip model with several weight files."""
    return all((folder / name).is_file() for name in (runs.OPEN_CLIP_CONFIG, WEIGHTS_INDEX))


@contextmanager
def _open_folder(label: str, folder: Path) -> Iterator[Weights]:
    try:
        config = _read_object(folder / runs.OPEN_CLIP_CONFIG)
        paths = [folder / runs.OPEN_CLIP_WEIGHTS]
        if not paths[0].is_file():
            names = set(_read_object(folder / WEIGHTS_INDEX)["weight_map"].values())
            paths = [folder / check_name(name, folder / WEIGHTS_INDEX) for name in sorted(names)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder} cannot be read as an open_clip folder ({error}); copy or make it again"
        ) from error
    files = [folder / name for name in FILES_BESIDE if (folder / name).is_file()]
    with open_tensors(paths) as tensors:
        yield Weights(label, folder, tensors, config, files)


def _read_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} should hold a JSON object")
    return content


def check_name(name: str, listed_in: Path) -> str:
    """Return the name of a file beside `listed_in`; raises `ModelError` if it is a path."""
    if PurePath(name).name != name:
        raise ModelError(f"{listed_in}: {name!r} lies outside the folder")
    return name


def patch(
    base: str | Path,
    tuned: str | Path,
    alpha: float | None,
    out: str | Path,
    *,
    alpha_text: float | None = None,
    alpha_vision: float | None = None,
    rules: Mapping[str, float] | None = None,
    alpha_depth: tuple[float, float] | None = None,
    extrapolate: bool = False,
) -> Path:
    """Write the model between two models as an open_clip folder.

    theta(alpha) = (1 - alpha) * theta_base + alpha * theta_tuned (arXiv 2109.01903), with
    one alpha for all tensors or one for each part; see `AlphaRules`. Weights are read and written
    piece by piece, so neither model is ever in memory as a whole. The folder appears complete or
    not at all, and replaces an earlier patched model.

    Args:
        base: Model of alpha 0: a run, checkpoint or open_clip folder, or a name such as
            ``ViT-B-32:openai``.
        tuned: Model of alpha 1, likewise.
        alpha: 0 to 1; None if the parts have their own.
        out: Folder to write.
        alpha_text: Alpha of everything outside the vision tower.
        alpha_vision: Alpha of the vision tower.
        rules: Alphas by regular expression, searched for in the tensors' names; the last match
            wins, over the towers' alphas too.
        alpha_depth: Alphas of the first and the last block, linear between them; instead of
            `alpha`.
        extrapolate: Allow alphas below 0 and above 1.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: An alpha lies outside 0..1, a rule matches no tensor, or `out` contains
            something else or cannot be written.
        ModelError: A model is missing, or the two do not fit.
    """
    named = tuple((rules or {}).items())
    parts = AlphaRules(alpha, alpha_depth, alpha_text, alpha_vision, named, extrapolate)
    return patch_by_rules(base, tuned, parts, out)


def patch_by_rules(
    base: str | Path,
    tuned: str | Path,
    rules: AlphaRules,
    out: str | Path,
    inspect: Callable[[Path], None] | None = None,
) -> Path:
    """Write a model as `patch` does, from existing rules.

    `inspect` is called with the complete folder before it is moved to `out`; if it raises an error,
    nothing is written there, and an earlier patched model stays.
    """
    rules.check()
    out = Path(out).expanduser()
    check_replaceable(out)
    with open_weights(base) as first, open_weights(tuned) as second:
        check_apart(out, first, second)
        check_architecture(first, second)
        check_names(first.tensors.layout, second.tensors.layout)
        alphas, shares = rules.resolve(first.tensors.layout)
        with models.whole_folder(out, out.parent) as new:
            write_blend(first.tensors, second.tensors, alphas, new / runs.OPEN_CLIP_WEIGHTS)
            write_files_beside(new, second)
            record = {
                **rules.to_dict(),
                **({"parts": [asdict(share) for share in shares]} if rules.in_parts else {}),
                "base": str(base),
                "base_file_sha256": first.tensors.sha256(),
                "tuned": str(tuned),
                "tuned_file_sha256": second.tensors.sha256(),
                **provenance.code(),
            }
            (new / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if inspect is not None:
                inspect(new)
    return out


def check_replaceable(out: Path) -> None:
    """Refuse to replace anything except an earlier patched model or an empty folder."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / RECORD_FILE).is_file()):
        raise ConfigError(f"out={out} exists and is not a patched model; choose another folder")


def check_apart(out: Path, *inputs: Weights) -> None:
    """Refuse to replace one of the models that are read."""
    for one in inputs:
        if out.exists() and out.samefile(one.folder):
            raise ConfigError(f"out={out} is {one.label}, which is read; choose another folder")


def write_files_beside(folder: Path, model: Weights) -> None:
    """Write everything in an open_clip folder except the weights, as `model` has it."""
    config = folder / runs.OPEN_CLIP_CONFIG
    config.write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
    for file in model.files_beside:
        copy = folder / file.relative_to(model.folder)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
