"""A CLIP-like model built by open_clip, with its tokenizer and preprocessing.

It is built without drawing the random weights that loading would overwrite. Drawing them would be
most of the loading time: 1.5 s of ViT-B/32's 2.3 s.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from clic.errors import ModelError
from clic.models import families, hugging_face, siglip, trust
from clic.models import weight_files as weights
from clic.models.depths import SCALARS
from clic.models.source import INCLUDED, ModelSource, resolve
from clic.models.text_encoder import OpenClip

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model",
                "sentencepiece.bpe.model", "tokenizer.model")  # fmt: skip
"""A Hugging Face tokenizer's folder contains at least one of these files."""
BIG_VISION = (".npz", ".npy")
"""Suffixes of big_vision's weights files."""
Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image for the vision tower.

    Attributes:
        size: Side S of the square input in pixels.
        mean: Mean of each channel, for pixel values from 0 to 1.
        std: Standard deviation of each channel.
        interpolation: `bicubic` or `bilinear`.
        resize_mode: `shortest` (then centre crop), `squash` or `longest` (then black bars).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"


@dataclass
class ClipModel:
    """An open_clip module (CLIP or CustomTextCLIP) with its tokenizer, preprocessing and source.

    The tokenizer turns a list of N captions into int64 [N, L].
    """

    model: OpenClip
    tokenizer: Tokenizer
    preprocess: Preprocess
    source: ModelSource

    @property
    def context_length(self) -> int:
        """Number L of tokens of the text tower's input."""
        return int(getattr(self.tokenizer, "context_length", 77))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device


def create(
    name: str,
    pretrained: str | None = INCLUDED,
    device: torch.device | str = "cpu",
    quick_gelu: bool | None = None,
) -> ClipModel:
    """Build a model on a device and load its weights, in fp32, with the arguments of `resolve`.

    Weights that `pretrained` = None leaves random are drawn with torch's global seed.

    Raises:
        ModelError: The model cannot be found, or its weights do not fit the architecture.
    """
    return build(resolve(name, pretrained, quick_gelu), device)


def build(source: ModelSource, device: torch.device | str = "cpu") -> ClipModel:
    """Build the model that `resolve` found; see `create`."""
    with quiet(), _drawing(source):
        try:
            clip = _build(source, device)
        except ImportError as error:
            raise ModelError(
                f"model {source.name!r} needs the package {error.name!r}; pip install {error.name}"
            ) from error
        except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, OSError) as error:
            raise _not_built(source, error) from error
    if source.pretrained is not None:
        weights.check_numbers(clip.model.state_dict(), source.weights_file or source.reference)
    return clip


def _drawing(source: ModelSource) -> AbstractContextManager[Any]:
    """Return the context to build in: random weights are drawn only if they are kept.

    They are also kept for big_vision's files, which are loaded tensor by tensor, so nothing shows
    which tensors are left out.
    """
    file = source.weights_file
    kept = source.pretrained is None or (file is not None and file.suffix in BIG_VISION)
    return nullcontext() if kept else Undrawn()


# Tensor methods are intercepted only if none of the functions of `init` has called them.
_DRAWS: tuple[Callable[..., Tensor], ...] = (
    *(Tensor.normal_, Tensor.uniform_),
    *(init.normal_, init.uniform_, init.trunc_normal_),
    *(init.kaiming_normal_, init.kaiming_uniform_, init.xavier_normal_, init.xavier_uniform_),
)
"""The random initialisations of torch, open_clip, timm and transformers."""


class Undrawn(TorchFunctionMode):
    """Fills tensors with NaN instead of random numbers.

    The check for NaN then finds a weight that loading leaves out, so none stays random. The calls
    in question only draw floating tensors.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else given["tensor"]
            tensor.detach().fill_(float("nan"))
            return tensor
        return func(*args, **given)


def _build(source: ModelSource, device: torch.device | str) -> ClipModel:
    import open_clip

    if source.hugging_face_folder is not None:
        return _from_hugging_face(source, source.hugging_face_folder, device)
    families.register()
    tokenizer = tokenizer_of(source)  # first: it may be missing, and building takes long
    overrides: dict[str, Any] = {}
    if source.text_tower is not None:
        trust.check_text_tower(source.text_tower)
        text = {**source.architecture["text_cfg"], "hf_model_name": source.text_tower}
        overrides["text_cfg"] = {**text, "hf_model_pretrained": False}
    own = source.weights_file is not None or source.pretrained is None
    is_architecture = not source.open_clip_name.startswith(("local-dir:", "hf-hub:"))
    quick_gelu = bool(source.architecture.get("quick_gelu", False))
    model = open_clip.create_model(
        source.open_clip_name,
        pretrained=source.pretrained if is_architecture and not own else None,
        load_weights=not own,
        require_pretrained=not own,
        pretrained_text=False,
        quick_gelu=quick_gelu,
        force_quick_gelu=quick_gelu,  # only silences a warning about tags trained with it
        device=device,
        **overrides,
    )
    if source.pretrained is None:
        families.draw_rest(model)
    if is_architecture and own:
        known = families.preprocessing(source.open_clip_name)
        open_clip.set_model_preprocess_cfg(model, {**model.visual.preprocess_cfg, **known})
    siglip.set_activation(model, source.architecture)
    if source.weights_file is not None:
        _load(model, source.weights_file)
    return ClipModel(model, tokenizer, preprocess_of(model), source)


def _load(model: OpenClip, file: Path) -> None:
    """Load a weights file as open_clip's `load_checkpoint` does, but read by `weight_files`."""
    from open_clip import factory

    if file.suffix in BIG_VISION:
        factory.load_checkpoint(model, str(file))
        return
    state = weights.read(file)
    families.check_context(state, getattr(model, "context_length", 0), file)
    state = families.joined(state)
    if any(name.startswith(("text_model.", "vision_model.")) for name in state):
        raise ModelError(
            f"{file} has the tensor names of Hugging Face; give its folder, with config.json next "
            "to the file, as the model"
        )
    state = factory.convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = factory.convert_to_custom_text_state_dict(state)
    for name in SCALARS:
        own = getattr(model, name, None)
        if own is not None and name in state:
            state[name] = state[name].reshape(own.shape)
    if "logit_bias" not in state and getattr(model, "logit_bias", None) is not None:
        state["logit_bias"] = torch.zeros_like(model.logit_bias)
    position_ids = "text.transformer.embeddings.position_ids"
    if position_ids in state and position_ids not in model.state_dict():  # older transformers
        del state[position_ids]
    factory.resize_pos_embed(state, model)
    factory.resize_text_pos_embed(state, model)
    model.load_state_dict(state)


def tokenizer_of(source: ModelSource) -> Tokenizer:
    """Return the tokenizer of a model without building the model.

    Raises:
        ModelError: Its files cannot be found, or some of them are missing.
    """
    named = source.architecture["text_cfg"].get("hf_tokenizer_name")
    if named and source.folder is not None:
        check_vocabulary(source.folder, named)
    try:
        tokenizer = _tokenizer(source)
    except OSError as error:
        raise ModelError(
            f"the tokenizer of model {source.name!r}, {named}, is not on this disk, and the hub "
            f"does not give it; run hf download {named} where it does and copy its cache "
            "(HF_HOME), or give a folder that clic wrote, which holds the tokenizer"
        ) from error
    if named and getattr(tokenizer.tokenizer, "pad_token", "") is None:  # type: ignore[attr-defined]
        raise ModelError(
            f"the tokenizer of model {source.name!r}, {named}, has no padding token; copy its "
            "tokenizer_config.json beside its vocabulary"
        )
    return tokenizer


def check_vocabulary(folder: Path, named: str) -> None:
    """Refuse a model's folder without its tokenizer: transformers would make an empty one.

    Raises:
        ModelError: None of the vocabulary files is there.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"{folder} lacks its tokenizer, {named}: none of {', '.join(VOCABULARIES)} is there; "
            "copy the tokenizer's files into it"
        )


def _tokenizer(source: ModelSource) -> Tokenizer:
    import open_clip

    text = source.architecture["text_cfg"]
    trust = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    if source.hugging_face_folder is not None:
        length = text["context_length"]
        if not trust:
            return open_clip.SimpleTokenizer(context_length=length)
        words = {**text.get("tokenizer_kwargs", {}), **trust}
        return open_clip.tokenizer.HFTokenizer(str(source.folder), context_length=length, **words)
    return open_clip.get_tokenizer(source.open_clip_name, **trust)


def _from_hugging_face(source: ModelSource, folder: Path, device: torch.device | str) -> ClipModel:
    import open_clip
    from open_clip.transform import PreprocessCfg

    architecture = dict(source.architecture)
    kind = open_clip.CustomTextCLIP if architecture.pop("custom_text", False) else open_clip.CLIP
    model = kind(**architecture)
    siglip.set_activation(model, architecture)
    size = source.architecture["vision_cfg"]["image_size"]
    config = {**vars(PreprocessCfg()), **hugging_face.preprocess(folder, size)}
    open_clip.set_model_preprocess_cfg(model, config)
    if source.pretrained is not None:
        model.load_state_dict(hugging_face.weights(folder))
    model.to(device)
    return ClipModel(model, tokenizer_of(source), preprocess_of(model), source)


def _not_built(source: ModelSource, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):  # transformers' own message advises running it
        return ModelError(
            f"the text tower or tokenizer of {source.name!r} brings its own code, which is not run "
            "here; use a model of transformers' own classes"
        )
    # A state-dict mismatch lists every tensor; the beginning is enough.
    reason = textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" ...")
    if "download" in reason:
        reason += (
            "; check the network, or download the weights elsewhere and give the file as ARCH:FILE "
            "(clic-train: model.pretrained=FILE; a folder as local-dir:PATH)"
        )
    weights = source.pretrained or "random weights"
    return ModelError(f"model {source.name!r} ({weights}) could not be built: {reason}")


_EXPECTED = "No pretrained weights loaded"  # open_clip only builds the model; we load the file
_warned: set[str] = set()


def _warn_once(record: logging.LogRecord) -> bool:
    """Print each open_clip warning once; drop its errors, which are raised as well."""
    text = record.getMessage()
    if record.levelno == logging.WARNING and _EXPECTED not in text and text not in _warned:
        _warned.add(text)
        print(f"open_clip: {text}", file=sys.stderr)
    return False


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers of open_clip and the hub's client, except for open_clip's warnings."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    logging.root.addFilter(_warn_once)  # open_clip logs to the root logger
    try:
        yield
    finally:
        logging.root.removeFilter(_warn_once)
        hub.setLevel(level)


def preprocess_of(model: OpenClip) -> Preprocess:
    """Return a model's preprocessing.

    Raises:
        ModelError: clic does not support it.
    """
    config = model.visual.preprocess_cfg
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ModelError(
            f"the vision tower's input of {size} pixels is not square, and clic's "
            "canvases are; use a square size of the model"
        )
    if config.get("resize_mode") == "longest" and config.get("fill_color", 0):
        raise ModelError(
            f"the model's preprocess_cfg asks for fill_color={config['fill_color']} around images; "
            "only black bars (0) are supported"
        )
    return Preprocess(
        size=sides.pop(),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation", "bicubic"),
        resize_mode=config.get("resize_mode", "shortest"),
    )


OFFLINE = "HF_HUB_OFFLINE"
ENDPOINT = "HF_ENDPOINT"
SECONDS = 3.0


def go_offline_if_unreachable() -> None:
    """Set HF_HUB_OFFLINE if the hub does not answer, before its client is imported.

    The client would otherwise try for about a minute before it uses earlier downloads or gives
    up. This does nothing if the variable is set, if there is a proxy, or if the client has already
    been imported and has read its settings.
    """
    if OFFLINE in os.environ or getproxies() or "huggingface_hub.constants" in sys.modules:
        return
    address = urlsplit(os.environ.get(ENDPOINT) or "https://huggingface.co")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        os.environ[OFFLINE] = "1"
        what = f"{address.hostname} cannot be reached, so only models on this disk are used"
        print(f"{what} ({OFFLINE}=1)", file=sys.stderr)
