"""Checks that loading a model folder or hub repository runs none of its code.

In open_clip 3, a configuration can lead to code through transformers' tokenizers and text towers
(`trust_remote_code`, `auto_map`, pickled vocabularies), through arguments passed on to them, and
through timm names that point elsewhere. For pickled weights see `weight_files`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clic.errors import ModelError

TOKENIZER_ARGUMENTS = {
    "additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token",
    "use_fast",
}  # fmt: skip
"""The `tokenizer_kwargs` that only change how text is split."""
CODE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill")


def check_runs_nothing(
    architecture: dict[str, Any], where: object, folder: Path | None = None
) -> None:
    """Refuse a `model_cfg` that would run code when its model is loaded.

    Errors call the configuration `where`; the tokenizer files in `folder` are checked too.

    Raises:
        ModelError: It would run code, or is not a configuration of open_clip.
    """
    towers = {name: architecture.get(name) for name in ("text_cfg", "vision_cfg")}
    for name, tower in towers.items():
        if not isinstance(tower, dict):
            raise ModelError(f"{where}: {name} is missing or not a JSON object; download it again")
    _check_words(architecture, where)
    text, vision = architecture["text_cfg"], architecture["vision_cfg"]
    arguments = text.get("tokenizer_kwargs") or {}
    foreign = sorted(set(arguments) - TOKENIZER_ARGUMENTS)
    if foreign:
        raise ModelError(
            f"{where}: tokenizer_kwargs has {foreign[0]!r}, which could read or run something "
            f"other than the tokenizer; only {', '.join(sorted(TOKENIZER_ARGUMENTS))} are allowed"
        )
    if ":" in str(vision.get("timm_model_name") or ""):
        raise ModelError(
            f"{where}: timm_model_name={vision['timm_model_name']!r} points to another place; "
            "only names of timm's own models are allowed"
        )
    if folder is not None and text.get("hf_tokenizer_name"):
        _check_tokenizer_files(folder)


def check_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a Hugging Face folder that would run code when its tokenizer is read.

    `config` is the content of its config.json.

    Raises:
        ModelError: It would run code.
    """
    _check_words(config, folder)
    _check_tokenizer_files(folder)


def check_text_tower(name: str) -> None:
    """Refuse a Hugging Face text tower whose repository or folder brings its own code.

    transformers would ask on the terminal whether to run the code; with `trust_remote_code=False`
    it raises ValueError instead, or uses a class of its own.
    """
    from transformers import AutoConfig

    AutoConfig.from_pretrained(name, trust_remote_code=False)


def _check_words(config: Any, where: object) -> None:
    """Refuse the two keys that ask for code, at any depth."""
    if isinstance(config, Mapping):
        for word in ("trust_remote_code", "auto_map"):
            if config.get(word):
                raise ModelError(
                    f"{where}: {word} asks to run code that comes with the model, which is not "
                    f"done here; if the model works without it, remove {word} from the file"
                )
        for value in config.values():
            _check_words(value, where)
    elif isinstance(config, list):
        for value in config:
            _check_words(value, where)


def _check_tokenizer_files(folder: Path) -> None:
    """Refuse pickles and custom classes that AutoTokenizer would load from a folder."""
    for path in sorted(folder.iterdir()):
        if path.suffix in CODE_SUFFIXES:
            raise ModelError(
                f"{path} is a pickle, which runs code when a tokenizer reads it; remove it, "
                "or save the tokenizer as tokenizer.json"
            )
        if path.suffix == ".json" and path.name in ("config.json", "tokenizer_config.json"):
            try:
                config = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ModelError(f"{path} cannot be read: {error}") from None
            _check_words(config, path)
