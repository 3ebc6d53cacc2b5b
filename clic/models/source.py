"""Where a model's architecture and weights come from, resolved from the name a user types."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clic.errors import ModelError, did_you_mean
from clic.models import hub, hugging_face

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
INCLUDED = "included"
"""`pretrained` of a name that carries its weights: a folder, a hub repository, `shapes-base`."""

PACKAGED = {"shapes-base": Path(__file__).parent.parent / "shapes" / "base"}
"""Models that ship with the package, by name."""


@dataclass(frozen=True)
class Source:
    """A model before it is built.

    Attributes:
        name: As the user typed it.
        open_clip_name: What open_clip's factory is given.
        pretrained: open_clip tag, weights file, `included`, or None for random weights.
        architecture: open_clip's `model_cfg`, resolved (QuickGELU included).
    """

    name: str
    open_clip_name: str
    pretrained: str | None
    architecture: dict[str, Any]

    @property
    def hugging_face_folder(self) -> Path | None:
        """The folder, where it is one of Hugging Face's that open_clip itself cannot read."""
        folder = Path(self.open_clip_name.removeprefix("local-dir:"))
        local = self.open_clip_name.startswith("local-dir:")
        foreign = local and not (folder / CONFIG_FILE).is_file() and hugging_face.is_folder(folder)
        return folder if foreign else None


def resolve(name: str, pretrained: str | None = INCLUDED) -> Source:
    """Find the architecture and weights that a name stands for, without loading weights.

    Args:
        name: `shapes-base`, `local-dir:PATH`, `hf-hub:ORG/NAME`, the plain path of an open_clip
            folder or of a Hugging Face CLIP folder, or an open_clip architecture, `ViT-B-32:openai`
            naming its tag too.
        pretrained: Tag or weights file of an architecture; `included` where the name carries its
            weights; None for random weights.

    Raises:
        ModelError: The name stands for nothing, or `pretrained` does not go with it.
    """
    if name in PACKAGED:
        return _from_folder(name, PACKAGED[name], pretrained)
    if name.startswith("local-dir:"):
        return _from_folder(name, Path(name.removeprefix("local-dir:")).expanduser(), pretrained)
    if name.startswith("hf-hub:"):
        hub.go_offline_if_unreachable()
        return _from_hub(name, pretrained)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(name, path, pretrained)
    if pretrained and (":" in name or not (pretrained == INCLUDED or Path(pretrained).is_file())):
        hub.go_offline_if_unreachable()
    return _from_architecture(name, pretrained)


def _only_included(name: str, pretrained: str | None) -> None:
    if pretrained not in (INCLUDED, None):
        raise ModelError(
            f"model.pretrained={pretrained!r} does not go with model.name={name!r}, which carries "
            f"its own weights; use model.pretrained={INCLUDED} (or null for random weights)"
        )


def _from_folder(name: str, folder: Path, pretrained: str | None) -> Source:
    _only_included(name, pretrained)
    config_path = folder / CONFIG_FILE
    if not config_path.is_file() and hugging_face.is_folder(folder):
        architecture = hugging_face.architecture(folder)
        return Source(name, f"local-dir:{folder.resolve()}", pretrained, architecture)
    if not config_path.is_file():
        raise ModelError(
            f"{folder} holds no {CONFIG_FILE}; give an open_clip folder, or a CLIP folder of "
            "Hugging Face's with config.json and model.safetensors"
        )
    if pretrained and not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS_FILE}; save the model as safetensors there")
    architecture = _read_config(config_path)["model_cfg"]
    return Source(name, f"local-dir:{folder.resolve()}", pretrained, architecture)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise ModelError(f"{path} has no 'model_cfg'; it is not an open_clip folder's config")
    return config


def _from_hub(name: str, pretrained: str | None) -> Source:
    from open_clip.pretrained import download_pretrained_from_hf

    _only_included(name, pretrained)
    repository = name.removeprefix("hf-hub:")
    try:
        path = download_pretrained_from_hf(repository, filename=CONFIG_FILE)
    except Exception as error:  # the hub's client raises many types; all mean "not to be had"
        raise ModelError(
            f"{name}: its {CONFIG_FILE} could not be fetched "
            f"({str(error).splitlines()[0]}); check the name and the network"
        ) from error
    return Source(name, name, pretrained, _read_config(Path(path))["model_cfg"])


def _from_architecture(name: str, pretrained: str | None) -> Source:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    architecture_name, _, tag = name.partition(":")
    if tag:
        if pretrained not in (INCLUDED, None):
            raise ModelError(f"model.name={name!r} already names weights; leave out {pretrained!r}")
        pretrained = tag if pretrained else None
    architecture = open_clip.get_model_config(architecture_name)
    if architecture is None:
        raise ModelError(_unknown_name(architecture_name, open_clip.list_models()))
    if pretrained == INCLUDED:
        tags = open_clip.list_pretrained_tags_by_model(architecture_name)
        raise ModelError(
            f"model {name!r} is an architecture without weights; name a tag, "
            f"e.g. {architecture_name}:{tags[0] if tags else 'FILE'} "
            f"(known: {_some(tags)}) "
            "(clic-train: model.pretrained=null starts from random weights)"
        )
    architecture = deepcopy(architecture)
    if pretrained is None or Path(pretrained).is_file():
        return Source(name, architecture_name, pretrained, architecture)
    tag_config = get_pretrained_cfg(architecture_name, pretrained)
    if not tag_config:
        tags = open_clip.list_pretrained_tags_by_model(architecture_name)
        # The words of the command: clic-eval has no model.pretrained.
        given = f"model {name!r}: {tag!r}" if tag else f"model.pretrained={pretrained!r}"
        raise ModelError(
            f"{given} is neither a tag of {architecture_name} nor a file"
            f"{did_you_mean(pretrained, tags)} (tags: {_some(tags)})"
        )
    if tag_config.get("quick_gelu", False):  # the activation that these weights were trained with
        architecture["quick_gelu"] = True
    return Source(name, architecture_name, pretrained, architecture)


def _some(tags: list[str], count: int = 8) -> str:
    shown = ", ".join(tags[:count]) or "none"
    return f"{shown} and {len(tags) - count} more" if len(tags) > count else shown


def _unknown_name(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, [*known, *PACKAGED])
    return (
        f"model {name!r} is no open_clip architecture, no folder and no packaged model{hint}; "
        "use e.g. ViT-B-32:openai, local-dir:PATH, hf-hub:ORG/NAME, a run's folder or shapes-base"
    )
