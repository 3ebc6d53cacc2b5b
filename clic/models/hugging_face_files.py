"""The files of a Hugging Face folder, for any kind of CLIP: config, tensors, preprocessing."""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from clic.errors import ModelError
from clic.models import weight_files
from clic.runs import HUGGING_FACE_CONFIG as CONFIG_FILE
from clic.runs import HUGGING_FACE_WEIGHTS

WEIGHTS_FILE, SHARDS_FILE = HUGGING_FACE_WEIGHTS
PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"  # where transformers 5 puts the same entries
TOKENIZER_FILE = "tokenizer_config.json"
KINDS = ("clip", "siglip")
FILES = (
    CONFIG_FILE, WEIGHTS_FILE, SHARDS_FILE, "model-*.safetensors", PREPROCESSOR_FILE,
    PROCESSOR_FILE, TOKENIZER_FILE, "tokenizer.json", "tokenizer.model", "spiece.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
"""Files to download from a hub repository: no pickles, no code."""
INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raises `ModelError` if there is none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} should hold a JSON object; get it again")
    return config


def from_hub(repository: str) -> Path | None:
    """Return the folder of a hub repository in Hugging Face's format, downloaded if needed.

    None if neither the hub nor its cache has such a repository.

    Raises:
        ModelError: The repository contains something else, or its weights cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        config = hf_hub_download(repository, CONFIG_FILE)
    except Exception:  # noqa: BLE001, the client raises many types; all mean "unavailable"
        return None
    kind = read_json(Path(config)).get("model_type")
    if kind not in KINDS:
        raise ModelError(
            f"hf-hub:{repository}: model_type={kind!r} is not read; use one of "
            f"{', '.join(map(repr, KINDS))}, or a repository with an open_clip_config.json"
        )
    try:
        return Path(snapshot_download(repository, allow_patterns=list(FILES)))
    except Exception as error:  # as above
        raise ModelError(
            f"hf-hub:{repository} could not be downloaded ({str(error).splitlines()[0]}); check "
            "the network"
        ) from error


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder under their own names, from one file or several.

    Raises:
        ModelError: A file is missing or damaged, or lies outside the folder.
    """
    names = [WEIGHTS_FILE]
    if not (folder / WEIGHTS_FILE).is_file():
        names = sorted(set(read_json(folder / SHARDS_FILE).get("weight_map", {}).values()))
    found: dict[str, Tensor] = {}
    for name in names:
        if PurePath(name).name != name:
            raise ModelError(f"{folder / SHARDS_FILE}: {name!r} lies outside the folder")
        found.update(weight_files.read(folder / name))
    return found


def preprocess(folder: Path, image_size: int) -> dict[str, Any]:
    """Return the entries of open_clip's `preprocess_cfg` that a folder specifies, and the size.

    Raises:
        ModelError: open_clip does not support this preprocessing.
    """
    path = folder / PREPROCESSOR_FILE
    if path.is_file():
        config = read_json(path)
    else:
        path = folder / PROCESSOR_FILE
        config = read_json(path).get("image_processor", {}) if path.is_file() else {}
    if not config:
        return {"size": image_size}
    size, crop = config.get("size", image_size), config.get("crop_size", image_size)
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size
    sides = {shortest} if shortest else {size.get("height"), size.get("width")}
    if config.get("do_center_crop", True):
        sides |= set(crop.values()) if isinstance(crop, dict) else {crop}
    elif shortest:
        sides.add(None)  # the longer side would keep its length
    switched_off = [name for name in ("do_resize", "do_normalize") if not config.get(name, True)]
    if sides != {image_size} or switched_off:
        what = ", ".join(switched_off) or f"size={size}, crop_size={crop}"
        raise ModelError(
            f"{path}: {what} does not make images of {image_size} x {image_size}; fix the file"
        )
    found: dict[str, Any] = {
        "size": image_size,
        "interpolation": INTERPOLATION.get(config.get("resample", 3)),
        "resize_mode": "shortest" if shortest else "squash",
    }
    if found["interpolation"] is None:
        raise ModelError(f"{path}: resample={config['resample']}; only 2 and 3 are supported")
    for key, name in (("mean", "image_mean"), ("std", "image_std")):
        if name in config:
            found[key] = tuple(config[name])
    return found


def ratio(width: int, hidden: int) -> float:
    """Return the `mlp_ratio` from which open_clip recovers the width of an MLP."""
    found = hidden / width
    # open_clip rounds the product down.
    return found if int(width * found) == hidden else math.nextafter(found, math.inf)
