"""Saves models as open_clip folders, atomically, and identifies a model by its weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clic.errors import ConfigError
from clic.models.depths import SCALARS, VISION_PREFIX
from clic.models.loading import ClipModel
from clic.models.source import CONFIG_FILE, TEXT_TOWER, WEIGHTS_FILE


def save(clip: ClipModel, folder: Path) -> Path:
    """Save a model as an open_clip folder, for `local-dir:PATH` or a push to the hub.

    The folder appears complete or not at all, replaces an earlier one, and is returned. The weights
    file contains only tensors, so equal weights give equal files.

    Raises:
        ConfigError: The folder cannot be written.
    """
    with whole_folder(folder, folder.parent) as new:
        write_files(clip, new)
    return folder


def write_files(clip: ClipModel, folder: Path) -> None:
    """Write a model's files into an existing folder, in open_clip's format."""
    from safetensors.torch import save_file

    weights_file, config_file = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    state = clip.model.state_dict()
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, weights_file)
    preprocess = dict(clip.model.visual.preprocess_cfg)
    config = {"model_cfg": clip.source.architecture, "preprocess_cfg": preprocess}
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(config_file, weights_file)  # safetensors makes it readable by its owner only
    if hasattr(clip.tokenizer, "save_pretrained"):  # unlike CLIP's own, it needs files
        clip.tokenizer.save_pretrained(str(folder))
    if clip.source.architecture["text_cfg"].get("hf_model_name"):
        # open_clip's config names the tower by a repository or path, which may be missing where the
        # folder is loaded; transformers builds the same tower from this configuration.
        clip.model.text.config.save_pretrained(str(folder / TEXT_TOWER))


@contextmanager
def whole_folder(folder: Path, work: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` atomically when the block succeeds.

    Until then it is in `work`, on the same disk, which is created if it is missing. If the block
    fails, the new folder is removed and an earlier one stays.

    Raises:
        ConfigError: The folder cannot be written.
    """
    with writing(folder):
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}-", dir=work, ignore_cleanup_errors=True
        ) as hidden:
            new, old = Path(hidden) / "new", Path(hidden) / "old"
            new.mkdir()
            yield new
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the error of a full disk or a missing permission into a `ConfigError` about `path`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(
            f"cannot write {path} ({reason}); free space and give the same command again, "
            "or choose another folder"
        ) from error


def weights_sha256(model: nn.Module, prefix: str = "") -> str:
    """Return the SHA-256 of the names, types and values of the tensors with a prefix."""
    return _joined({k: _digest(v) for k, v in model.state_dict().items() if k.startswith(prefix)})


def _digest(value: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's type, shape and values."""
    value = value.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}\n".encode())
    digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _joined(digests: dict[str, bytes]) -> str:
    """Return the SHA-256 of tensors' names and digests, so that each tensor is read once."""
    lines = (f"{name} {digest.hex()}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def identity(clip: ClipModel, known: dict[str, bytes] | None = None) -> dict[str, Any]:
    """Return name, source, architecture, sizes and the hashes of the weights.

    Args:
        clip: The model.
        known: Digests of tensors by name, which are used as they are; missing ones are added. This
            saves a sweep from hashing the towers that do not change.
    """
    source = clip.source
    digests = {} if known is None else known
    for name, value in clip.model.state_dict().items():
        if name not in digests:
            digests[name] = _digest(value)
    vision = {k: v for k, v in digests.items() if k.startswith(VISION_PREFIX)}
    text = {k: v for k, v in digests.items() if k not in vision and k not in SCALARS}
    return {
        "name": source.name,
        "source": source.open_clip_name,
        "pretrained": source.pretrained,
        "architecture": source.architecture,
        "activation": source.activation,
        "parameters": sum(p.numel() for p in clip.model.parameters()),
        "image_size": clip.preprocess.size,
        "context_length": clip.context_length,
        "weights_sha256": _joined(digests),
        "vision_sha256": _joined(vision),
        "text_sha256": _joined(text),
    }
