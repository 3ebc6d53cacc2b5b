"""A CLIP-like model with what belongs to it, made by open_clip."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clic.errors import ModelError
from clic.models import hugging_face
from clic.models.source import INCLUDED, Source, resolve
from clic.models.towers import OpenClip

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the vision tower's input.

    Attributes:
        size: Side S of the square input in pixels.
        mean: Mean of each channel, of pixels in 0 to 1.
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
    """An open_clip model together with its tokenizer, preprocessing and architecture.

    Attributes:
        model: open_clip's module (CLIP or CustomTextCLIP).
        tokenizer: list of N captions -> int64 [N, L].
        preprocess: What its vision tower expects.
        source: Where it came from.
    """

    model: OpenClip
    tokenizer: Tokenizer
    preprocess: Preprocess
    source: Source

    @property
    def context_length(self) -> int:
        """Number L of tokens of the text tower's input."""
        return int(getattr(self.tokenizer, "context_length", 77))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


def create(
    name: str,
    pretrained: str | None = INCLUDED,
    device: torch.device | str = "cpu",
) -> ClipModel:
    """Build a model and load its weights, in fp32.

    Args:
        name: See `resolve`.
        pretrained: See `resolve`; None leaves the weights random (torch's global seed).
        device: Where the weights go.

    Raises:
        ModelError: The model cannot be found, or its weights do not fit the architecture.
    """
    return build(resolve(name, pretrained), device)


def build(source: Source, device: torch.device | str = "cpu") -> ClipModel:
    """Build the model that `resolve` found; see `create`."""
    import open_clip
    from safetensors import SafetensorError

    is_architecture = not source.open_clip_name.startswith(("local-dir:", "hf-hub:"))
    with quiet():
        try:
            if source.hugging_face_folder is not None:
                return _from_hugging_face(source, source.hugging_face_folder, device)
            model = open_clip.create_model(
                source.open_clip_name,
                pretrained=source.pretrained if is_architecture else None,
                load_weights=source.pretrained is not None,
                pretrained_text=source.pretrained is not None,
                force_quick_gelu=bool(source.architecture.get("quick_gelu", False)),
                device=device,
            )
            tokenizer = tokenizer_of(source)
        except ImportError as error:
            raise ModelError(
                f"model {source.name!r} needs the package {error.name!r}; pip install {error.name}"
            ) from error
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            raise _not_built(source, error) from error
    return ClipModel(model, tokenizer, _preprocess_of(model), source)


def tokenizer_of(source: Source) -> Tokenizer:
    """Return the tokenizer of a model that need not be built."""
    import open_clip

    if source.hugging_face_folder is not None:
        context_length = source.architecture["text_cfg"]["context_length"]
        return open_clip.SimpleTokenizer(context_length=context_length)
    return open_clip.get_tokenizer(source.open_clip_name)


def _from_hugging_face(source: Source, folder: Path, device: torch.device | str) -> ClipModel:
    import open_clip
    from open_clip.transform import PreprocessCfg

    model = open_clip.CLIP(**source.architecture)
    size = source.architecture["vision_cfg"]["image_size"]
    config = {**vars(PreprocessCfg()), **hugging_face.preprocess(folder, size)}
    open_clip.set_model_preprocess_cfg(model, config)
    if source.pretrained is not None:
        model.load_state_dict(hugging_face.weights(folder))
    model.to(device)
    return ClipModel(model, tokenizer_of(source), _preprocess_of(model), source)


def _not_built(source: Source, error: Exception) -> ModelError:
    # A state dict that does not fit lists every tensor: the first few say enough.
    reason = textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" ...")
    remedy = ""
    if "download" in reason:
        remedy = (
            "; check the network, or fetch the weights elsewhere and give the file as ARCH:FILE "
            "(clic-train: model.pretrained=FILE; a folder as local-dir:PATH)"
        )
    weights = source.pretrained or "random weights"
    return ModelError(f"model {source.name!r} ({weights}) could not be built: {reason}{remedy}")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the notes of open_clip and the hub's client: errors say what matters of them."""
    loggers = [logging.root, logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _preprocess_of(model: OpenClip) -> Preprocess:
    config = model.visual.preprocess_cfg
    size = config["size"]
    side = size if isinstance(size, int) else size[0]
    if not isinstance(size, int) and len(set(size)) > 1:
        raise ModelError(f"the vision tower's input of {size} pixels is not square; take another")
    if config.get("resize_mode") == "longest" and config.get("fill_color", 0):
        raise ModelError(
            f"the model's preprocess_cfg asks for fill_color={config['fill_color']} around images; "
            "only black bars (0) are supported"
        )
    return Preprocess(
        size=side,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation", "bicubic"),
        resize_mode=config.get("resize_mode", "shortest"),
    )
