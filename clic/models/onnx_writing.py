"""A model as two ONNX files, one for each tower, checked against the model with onnxruntime."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clic.errors import ConfigError, ModelError
from clic.models import exporting
from clic.models.freezing import evaluation_mode
from clic.models.loading import ClipModel, create
from clic.models.saving import whole_folder

IMAGE_FILE, TEXT_FILE, CONFIG_FILE = "image.onnx", "text.onnx", "clic_onnx.json"
FEATURES = "features"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest allowed difference of a unit-norm feature between onnxruntime and the model."""
ONE_FILE = 1_500_000_000
"""Bytes of weights above which they go beside the ONNX file, which is limited to 2 GB."""


class _Encoder(nn.Module):
    """A tower with normalised output, as the `forward` that is exported."""

    def __init__(self, model: Any, tower: str) -> None:
        super().__init__()
        self.model, self.tower = model, tower

    def forward(self, inputs: Tensor) -> Tensor:
        encode = self.model.encode_image if self.tower == "image" else self.model.encode_text
        return F.normalize(encode(inputs), dim=-1)


def check_installed() -> None:
    """Raise `ConfigError` if a package that --to onnx needs is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"to=onnx needs {', '.join(missing)}; pip install 'clic[onnx]' (in a checkout: "
            "pip install -e '.[onnx]')"
        )


def export(clip: ClipModel, folder: Path, records: Sequence[Path] = ()) -> Path:
    """Write a model as `image.onnx` and `text.onnx`, with its preprocessing and tokenizer.

    `image.onnx` takes normalised pixels, float32 [N, 3, S, S], `text.onnx` token ids, int64 [N, L]
    of the whole context; both give `features`, float32 [N, D], unit norm, for any N. The
    preprocessing, the context, logit_scale and logit_bias are in `clic_onnx.json`, the tokenizer's
    files beside it. Both files are run with onnxruntime on other inputs than they were traced with,
    and compared with the model.

    Args:
        clip: The model.
        folder: The folder to write; it appears complete or not at all, and replaces an earlier one.
        records: Files to copy into the folder.

    Raises:
        ConfigError: A package is missing, or the folder cannot be written.
        ModelError: A tower cannot be exported, or computes other features.
    """
    check_installed()
    with whole_folder(folder, folder.parent) as new, evaluation_mode(clip.model):
        found = {}
        for tower, file in (("image", IMAGE_FILE), ("text", TEXT_FILE)):
            _write(clip, tower, new / file)
            found[tower] = _difference(clip, tower, new / file)
        _write_tokenizer(clip, new)
        content = {**_inputs(clip), "largest_difference": found}
        text = json.dumps(content, indent=2) + "\n"
        (new / CONFIG_FILE).write_text(text, encoding="utf-8")
        for record in records:
            shutil.copyfile(record, new / record.name)
    return folder


def convert(folder: Path, records: Sequence[str] = ()) -> Path:
    """Replace an open_clip folder with the ONNX files of the same model; see `export`."""
    kept = [folder / name for name in records if (folder / name).is_file()]
    return export(create(str(folder)), folder, kept)


def _inputs(clip: ClipModel) -> dict[str, Any]:
    """Return how to prepare images and texts, and how to turn features into logits."""
    bias = getattr(clip.model, "logit_bias", None)
    return {
        "image": {**asdict(clip.preprocess), "values": "0 to 1, then (value - mean) / std"},
        "text": {"context_length": clip.context_length},
        "logit_scale": float(clip.model.logit_scale.detach().exp()),
        "logit_bias": None if bias is None else float(bias.detach()),
    }


def _example(clip: ClipModel, tower: str, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if tower == "image":
        size = clip.preprocess.size
        return torch.randn(count, 3, size, size, generator=generator)
    texts = ["a photo of a dog", "two cats on a red chair. a man.", "", "a " * 9, "blue"]
    return clip.tokenizer([texts[(seed + i) % len(texts)] for i in range(count)]).long()


def _write(clip: ClipModel, tower: str, path: Path) -> None:
    part = clip.model.visual if tower == "image" else clip.model
    weights = sum(p.numel() * p.element_size() for p in part.parameters())
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operator has no counterpart in ONNX
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's warnings about itself
            torch.onnx.export(
                _Encoder(clip.model, tower).eval(),
                (_example(clip, tower, 2, 0).to(clip.device),),
                str(path),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["pixels" if tower == "image" else "tokens"],
                output_names=[FEATURES],
                external_data=weights > ONE_FILE,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises many types
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error)
        raise ModelError(
            f"the {tower} tower of {clip.source.name} cannot be written as ONNX ({reason}); keep "
            "the open_clip folder"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _difference(clip: ClipModel, tower: str, path: Path) -> float:
    """Return the largest difference of a feature from the model's; raise `ModelError` if large."""
    import onnxruntime

    inputs = _example(clip, tower, 3, 1)
    with torch.no_grad():
        expected = _Encoder(clip.model, tower)(inputs.to(clip.device)).cpu().numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run([FEATURES], {session.get_inputs()[0].name: inputs.numpy()})[0]
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # `>` would accept NaN
        raise ModelError(
            f"the {tower} tower of {clip.source.name} computes other features in ONNX (off by "
            f"{difference:.2g}), so it is not written; keep the open_clip folder"
        )
    return difference


def _write_tokenizer(clip: ClipModel, folder: Path) -> None:
    if hasattr(clip.tokenizer, "save_pretrained"):
        clip.tokenizer.save_pretrained(str(folder))
        return
    for name, content in exporting.tokenizer_files(clip).items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
