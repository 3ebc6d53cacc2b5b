"""The architecture and weights of a model, resolved from the name that a user types."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clic import runs
from clic.errors import ModelError, did_you_mean
from clic.models import families, hugging_face, loading
from clic.models import hugging_face_files as files
from clic.models import weight_files as weights
from clic.models.trust import check_runs_nothing
from clic.runs import OPEN_CLIP_CONFIG as CONFIG_FILE
from clic.runs import OPEN_CLIP_WEIGHTS as WEIGHTS_FILE

TEXT_TOWER = "text_tower"
"""Folder within an open_clip folder for the configuration of a Hugging Face text tower."""

INCLUDED = "included"
"""`pretrained` of a name that includes its weights: a folder, a hub repository, `shapes-base`."""

PACKAGED = {"shapes-base": Path(__file__).parent.parent / "shapes" / "base"}
"""Models that ship with the package, by name."""

ACTIVATIONS = {"-quickgelu": True, "-gelu": False}
"""Suffixes of an architecture's name that say whether a weights file was trained with QuickGELU."""

QUICK_FILES = {"negclip.pth": "ViT-B-32", "negclip.pt": "ViT-B-32"}
"""Published weights files that use QuickGELU, such as NegCLIP's, and their architectures."""
_noted: set[Path] = set()


@dataclass(frozen=True)
class ModelSource:
    """A model before it is built.

    Attributes:
        name: As the user typed it.
        open_clip_name: The name for open_clip's factory.
        pretrained: open_clip tag, weights file, `included`, or None for random weights.
        architecture: open_clip's `model_cfg`, QuickGELU included.
    """

    name: str
    open_clip_name: str
    pretrained: str | None
    architecture: dict[str, Any]

    @property
    def folder(self) -> Path | None:
        """The folder that contains the model, or None."""
        local = self.open_clip_name.startswith("local-dir:")
        return Path(self.open_clip_name.removeprefix("local-dir:")) if local else None

    @property
    def text_tower(self) -> str | None:
        """Where transformers finds the text tower's configuration; None if it is open_clip's own.

        The model's own folder is tried first, so that it loads offline and after a move.
        """
        named: str | None = self.architecture["text_cfg"].get("hf_model_name")
        if named and self.folder is not None and (self.folder / TEXT_TOWER).is_dir():
            return str(self.folder / TEXT_TOWER)
        return named

    @property
    def weights_file(self) -> Path | None:
        """The weights file, named by `pretrained` or in the folder; None for tags and the hub."""
        if self.folder is not None:
            return None if self.pretrained is None else self.folder / WEIGHTS_FILE
        return _file(self.pretrained)

    @property
    def activation(self) -> str:
        """`QuickGELU` or `GELU`."""
        return "QuickGELU" if self.architecture.get("quick_gelu", False) else "GELU"

    @property
    def reference(self) -> str:
        """A name that resolves to this model, and its activation, from any working directory."""
        if self.folder is not None and self.name not in PACKAGED:
            # A folder in the hub's cache may vanish; the repository's name finds it again.
            return self.name if self.name.startswith("hf-hub:") else str(self.folder)
        if self.weights_file is None or self.folder is not None:
            tag = self.pretrained not in (INCLUDED, None) and ":" not in self.name
            return f"{self.name}:{self.pretrained}" if tag else self.name
        name, quick = self.open_clip_name, self.activation == "QuickGELU"
        if not name.endswith("-quickgelu") and quick != bool(_config(name).get("quick_gelu")):
            name += "-quickgelu" if quick else "-gelu"
        elif not quick and _has_twin(name):
            name += "-gelu"
        return f"{name}:{self.weights_file.resolve()}"

    @property
    def hugging_face_folder(self) -> Path | None:
        """The folder, if it is in Hugging Face's format, which open_clip cannot read."""
        folder = self.folder
        return folder if folder is not None and _is_hugging_face(folder) else None


def resolve(
    name: str, pretrained: str | None = INCLUDED, quick_gelu: bool | None = None
) -> ModelSource:
    """Find the architecture and weights that a name refers to, without loading the weights.

    Args:
        name: `shapes-base`, `local-dir:PATH`, `hf-hub:ORG/NAME`, the path of an open_clip folder
            or a Hugging Face CLIP folder, or an open_clip architecture. `ViT-B-32:openai` also
            names a tag, `ViT-B-32-quickgelu:FILE` and `ViT-B-32-gelu:FILE` a weights file and its
            activation. A bare file is enough if its tensors fit a single architecture.
        pretrained: Tag or weights file of an architecture; `included` if the name includes its
            weights; None for random weights.
        quick_gelu: Whether a weights file was trained, or random weights are to be trained,
            with QuickGELU; None leaves it to the name.

    Raises:
        ModelError: There is no such model, `pretrained` does not fit the name, the model would run
            code, or the activation of a weights file is unknown.
    """
    source = _resolve(name, pretrained, quick_gelu)
    if quick_gelu is not None and source.open_clip_name.startswith(("local-dir:", "hf-hub:")):
        raise ModelError(
            f"model.quick_gelu={str(quick_gelu).lower()} has no effect on {name!r}, whose own "
            f"configuration says {source.activation}; leave it out"
        )
    return source


def _resolve(name: str, pretrained: str | None, quick_gelu: bool | None) -> ModelSource:
    if name in PACKAGED:
        return _from_folder(name, PACKAGED[name], pretrained)
    if name.startswith("local-dir:"):
        return _from_folder(name, Path(name.removeprefix("local-dir:")).expanduser(), pretrained)
    if name.startswith("hf-hub:"):
        loading.go_offline_if_unreachable()
        return _from_hub(name, pretrained)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(name, path, pretrained)
    if path.is_file():
        _only_included(name, pretrained)
        found = _architecture_of_file(name, path)
        chosen = _from_architecture(found, str(path) if pretrained else None, quick_gelu)
        return replace(chosen, name=name)
    weights = name.partition(":")[2] or pretrained
    if pretrained and not (weights == INCLUDED or _file(weights)):
        loading.go_offline_if_unreachable()
    return _from_architecture(name, pretrained, quick_gelu)


def _is_hugging_face(folder: Path) -> bool:
    """Return whether a folder is in Hugging Face's format only."""
    return not (folder / CONFIG_FILE).is_file() and runs.is_hugging_face_folder(folder)


def _file(pretrained: str | None) -> Path | None:
    path = Path(pretrained or "").expanduser()
    return path if path.is_file() else None


def _architecture_of_file(name: str, path: Path) -> str:
    """Return the only architecture whose tensors have the names and shapes of those in a file.

    Its twin with the other activation counts as the same; the user must say which of the two it is.
    Shapes do not show the number of heads: architectures that differ only in it cannot be told
    apart, and the file is refused like one that fits none.
    """
    if (path.parent / CONFIG_FILE).is_file() and path.name == WEIGHTS_FILE:
        raise ModelError(
            f"{name} is the weights of an open_clip folder; name the folder {path.parent}"
        )
    families.register()
    fitting = weights.architectures(families.joined(weights.read(path)))
    built = [{**filled(_config(arch)), "quick_gelu": None} for arch in fitting]
    if fitting and all(one == built[0] for one in built):
        return next((arch for arch in fitting if _has_twin(arch)), fitting[0])
    hint = f" (of its shapes: {', '.join(fitting)})" if fitting else ""
    arch = fitting[0] if fitting else "ARCH"
    raise ModelError(
        f"{name} is a weights file, whose tensors do not tell its architecture; name both as "
        f"ARCH:FILE{hint}, e.g. {arch}:{name}"
    )


def _only_included(name: str, pretrained: str | None) -> None:
    if pretrained not in (INCLUDED, None):
        raise ModelError(
            f"model.pretrained={pretrained!r} does not go with model.name={name!r}, which includes "
            f"its own weights; use model.pretrained={INCLUDED} (or null for random weights)"
        )


def _from_folder(name: str, folder: Path, pretrained: str | None) -> ModelSource:
    _only_included(name, pretrained)
    config_path, resolved = folder / CONFIG_FILE, f"local-dir:{folder.resolve()}"
    if _is_hugging_face(folder):
        return ModelSource(name, resolved, pretrained, hugging_face.architecture(folder))
    if not config_path.is_file():
        raise ModelError(
            f"{folder} holds no {CONFIG_FILE}; give an open_clip folder, or a CLIP folder of "
            "Hugging Face's with config.json and model.safetensors"
        )
    if pretrained and not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS_FILE}; save the model as safetensors there")
    architecture = _model_cfg(config_path)
    check_runs_nothing(architecture, config_path, folder)
    return ModelSource(name, resolved, pretrained, architecture)


def _model_cfg(path: Path) -> dict[str, Any]:
    config = files.read_json(path)
    if "model_cfg" not in config:
        raise ModelError(f"{path} has no 'model_cfg'; it is not an open_clip folder's config")
    return config["model_cfg"]


def _from_hub(name: str, pretrained: str | None) -> ModelSource:
    from open_clip.pretrained import download_pretrained_from_hf

    _only_included(name, pretrained)
    repository = name.removeprefix("hf-hub:")
    try:
        path = download_pretrained_from_hf(repository, filename=CONFIG_FILE)
    except Exception as error:  # the hub's client raises many types; all mean "unavailable"
        folder = files.from_hub(repository)
        if folder is not None:
            return _from_folder(name, folder, pretrained)
        raise ModelError(
            f"{name}: its {CONFIG_FILE} could not be downloaded "
            f"({str(error).splitlines()[0]}); check the name and the network"
        ) from error
    architecture = _model_cfg(Path(path))
    check_runs_nothing(architecture, name)
    return ModelSource(name, name, pretrained, architecture)


def _from_architecture(name: str, pretrained: str | None, quick_gelu: bool | None) -> ModelSource:
    import open_clip

    families.register()
    architecture_name, _, tag = name.partition(":")
    if tag:
        if pretrained not in (INCLUDED, None):
            raise ModelError(f"model.name={name!r} already names weights; leave out {pretrained!r}")
        pretrained = tag if pretrained else None
    file = _file(pretrained)
    architecture_name, named = _activation_of(architecture_name, file is not None or not pretrained)
    architecture = open_clip.get_model_config(architecture_name)
    if architecture is None:
        hint = did_you_mean(architecture_name, [*open_clip.list_models(), *PACKAGED])
        raise ModelError(
            f"model {architecture_name!r} is not an open_clip architecture, a folder or a packaged "
            f"model{hint}; use e.g. ViT-B-32:openai, local-dir:PATH, hf-hub:ORG/NAME, a run's "
            "folder or shapes-base"
        )
    if pretrained == INCLUDED:
        tags = open_clip.list_pretrained_tags_by_model(architecture_name)
        raise ModelError(
            f"model {name!r} is an architecture without weights; name a tag, "
            f"e.g. {architecture_name}:{tags[0] if tags else 'FILE'} (known: {_some(tags)}) "
            "(clic-train: model.pretrained=null starts from random weights)"
        )
    architecture = deepcopy(architecture)
    if pretrained is None or file is not None:
        quick = _chosen_activation(name, architecture_name, architecture, named, quick_gelu, file)
        if quick is not None and quick != bool(architecture.get("quick_gelu", False)):
            architecture["quick_gelu"] = quick
        return ModelSource(name, architecture_name, pretrained, architecture)
    known = _of_tag(name, architecture_name, pretrained, quick_gelu)
    if known.get("quick_gelu", False):  # the activation that these weights were trained with
        architecture["quick_gelu"] = True
    return ModelSource(name, architecture_name, pretrained, architecture)


def _of_tag(
    name: str, architecture_name: str, pretrained: str, quick_gelu: bool | None
) -> dict[str, Any]:
    """Return what open_clip knows about the weights of a tag.

    Raises:
        ModelError: There is no such tag, it is a folder, or `quick_gelu` is given although the tag
            determines it.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    known: dict[str, Any] = get_pretrained_cfg(architecture_name, pretrained)
    if Path(pretrained).expanduser().is_dir():
        raise ModelError(
            f"model.pretrained={pretrained!r} is a folder, not a weights file; give the folder as "
            f"the model ({pretrained} in place of {name})"
        )
    if not known:
        tags = open_clip.list_pretrained_tags_by_model(architecture_name)
        # clic-eval has no setting model.pretrained.
        in_the_name = name.partition(":")[2] != ""
        given = f"model {name!r}: " if in_the_name else "model.pretrained="
        raise ModelError(
            f"{given}{pretrained!r} is neither a tag of {architecture_name} nor a file"
            f"{did_you_mean(pretrained, tags)} (tags: {_some(tags)})"
        )
    if quick_gelu is not None:
        raise ModelError(
            f"model.quick_gelu={str(quick_gelu).lower()} has no effect on the tag {pretrained!r}, "
            "whose activation open_clip knows; leave it out"
        )
    return known


def _config(architecture_name: str) -> dict[str, Any]:
    import open_clip

    return open_clip.get_model_config(architecture_name) or {}


def _has_twin(architecture_name: str) -> bool:
    return bool(_config(f"{architecture_name}-quickgelu"))


def _activation_of(name: str, free: bool) -> tuple[str, bool | None]:
    """Return open_clip's name of an architecture, and whether the given name says QuickGELU.

    If `free`, any architecture may have a suffix of `ACTIVATIONS`; with a tag, only those of
    open_clip.
    """
    if _config(name):
        return name, True if name.endswith("-quickgelu") else None
    for ending, quick in ACTIVATIONS.items():
        if free and name.endswith(ending) and _config(name.removesuffix(ending)):
            return name.removesuffix(ending), quick
    return name, None


def _chosen_activation(
    name: str,
    architecture_name: str,
    architecture: dict[str, Any],
    named: bool | None,
    setting: bool | None,
    file: Path | None,
) -> bool | None:
    """Return whether to use QuickGELU; None leaves it to the architecture's configuration.

    The activation does not show in the tensors, so weights of the other kind would load and
    silently compute wrong features.
    """
    if setting is not None and named not in (None, setting):
        raise ModelError(
            f"model.quick_gelu={str(setting).lower()} contradicts the name {name!r}; leave one out"
        )
    chosen = setting if setting is not None else named
    own_vision = "timm_model_name" in architecture["vision_cfg"]
    if chosen is not None and own_vision and "hf_model_name" in architecture["text_cfg"]:
        raise ModelError(
            f"QuickGELU or GELU cannot be chosen for {architecture_name}, both of whose towers "
            "have their own; leave it out"
        )
    if chosen is None and file and QUICK_FILES.get(file.name.lower()) == architecture_name:
        if file not in _noted:
            _noted.add(file)
            print(
                f"{file} has the name of weights that are published with QuickGELU, which is "
                f"used; if it is another file, name it as {architecture_name}-gelu:FILE (in "
                "clic-train also model.quick_gelu=false)",
                file=sys.stderr,
            )
        return True
    if chosen is None and file is not None and _has_twin(architecture_name):
        raise ModelError(
            f"{file} fits {architecture_name} with either activation, and the wrong one gives "
            "wrong features without an error; say which activation it was trained with: "
            f"{architecture_name}-quickgelu:FILE (OpenAI's weights and those fine-tuned from them, "
            f"such as NegCLIP; MetaCLIP, DFN) or {architecture_name}-gelu:FILE (most of LAION's "
            "and DataComp's); in clic-train also model.quick_gelu=true or false"
        )
    return chosen


def _some(tags: list[str], count: int = 8) -> str:
    shown = ", ".join(tags[:count]) or "none"
    return f"{shown} and {len(tags) - count} more" if len(tags) > count else shown


def filled(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return a `model_cfg` in a normal form, which is equal for equal models.

    It includes open_clip's defaults, omits entries that do not matter to a model with weights, and
    turns ratios into whole sizes, because 4.3637 and 6144 / 1408 build the same model.
    """
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    vision = {**asdict(CLIPVisionCfg()), **architecture.get("vision_cfg", {})}
    text = {**asdict(CLIPTextCfg()), **architecture.get("text_cfg", {})}
    for tower in (vision, text):
        for name in _TRAINING_ONLY:
            tower.pop(name, None)
        tower["mlp_width"] = int(tower["width"] * tower.pop("mlp_ratio"))
    if not isinstance(vision["layers"], (list, tuple)):
        vision["heads"] = vision["width"] // vision.pop("head_width")
    if text["pool_type"] != "eos":
        del text["eos_id"]  # nothing else reads it
    defaults = {"quick_gelu": False, "custom_text": False, "init_logit_bias": None}
    rest = {k: v for k, v in architecture.items() if k not in ("init_logit_scale", "output_dict")}
    return {**defaults, **rest, "vision_cfg": vision, "text_cfg": text}


_TRAINING_ONLY = ("timm_model_pretrained", "hf_model_pretrained", "patch_dropout", "timm_drop_path")
"""Entries of a tower about its initial weights, and about dropout."""
