"""A model for inference: images and captions in, unit-norm features out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clic import images as image_ops
from clic import models, runs
from clic.distributed import choose_device, matrix_products
from clic.errors import DataError, pick
from clic.io.processes import EMULATED, cpu_has_bf16
from clic.models import ClipModel

ImageLike = Image.Image | str | Path | bytes | np.ndarray
PRECISIONS = {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DECODE = "exact"
"""Inference decodes images as PIL does, whatever training does."""
FEATURES = 4
"""Version of the features; increased when the same tower and input give different ones."""


class Encoder:
    """Encodes images and captions with a CLIP-like model.

    Args:
        clip: The model; each call restores the mode (training or evaluation) that it was in.
        batch_size: Images per forward pass, and texts if they are padded.
        precision: `fp32`; `bf16` or `fp16` to encode under autocast; `auto` for fp16 on CUDA, whose
            cosines have three more bits than those of bf16, and fp32 elsewhere.

    Raises:
        ConfigError: `precision` is unknown.
    """

    texts_at_once = 2048
    """Captions worth passing in one call: those with a common prefix share work."""

    def __init__(self, clip: ClipModel, batch_size: int = 128, precision: str = "fp32") -> None:
        pick(PRECISIONS, precision, "precision")
        if precision == "auto":
            precision = "fp16" if clip.device.type == "cuda" else "fp32"
        if precision == "bf16" and clip.device.type == "cpu" and cpu_has_bf16() is False:
            warnings.warn(f"precision=bf16: {EMULATED}; use precision=fp32", stacklevel=2)
        self.clip, self.batch_size, self.precision = clip, batch_size, precision
        self._pooled_images = models.PooledImages(clip.model)
        self._pooled_texts = models.PooledTexts(clip.model)
        # Token ids from `text_key` wait here for `encode_text`, so that no text is tokenized twice.
        self._keyed: dict[str, np.ndarray] = {}

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.clip.device

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name, architecture, sizes and hashes of the weights."""
        return models.identity(self.clip)

    @cached_property
    def image_key(self) -> tuple[Any, ...]:
        """Everything that image features depend on: models with equal keys encode alike."""
        architecture, *numerics = self._numerics
        preprocess = self.clip.preprocess
        return self.identity["vision_sha256"], architecture, preprocess, DECODE, *numerics

    @property
    def image_tower_key(self) -> tuple[Any, ...]:
        """Key of the image tower in the cache of features."""
        return self.image_key

    @cached_property
    def text_tower_key(self) -> tuple[Any, ...]:
        """Key of the text tower in the cache of features."""
        return self.identity["text_sha256"], *self._numerics

    @property
    def _numerics(self) -> tuple[Any, ...]:
        versions = [metadata.version(name) for name in ("torch", "open_clip_torch", "pillow")]
        architecture = json.dumps(self.identity["architecture"], sort_keys=True)
        return architecture, self.precision, self.device.type, FEATURES, *versions

    def text_key(self, caption: str) -> tuple[int, ...]:
        """Return the token ids of a caption: captions with equal keys have equal features."""
        if caption not in self._keyed:
            self._keyed[caption] = self._tokenize(caption)
        return tuple(self._keyed[caption].tolist())

    def prepare_image(self, image: ImageLike) -> np.ndarray:
        """Decode and resize an image to uint8 [S, S, 3]; safe to call from several threads.

        It may be a PIL image, a path, encoded bytes or a uint8 [H, W, 3] RGB array.

        Raises:
            DataError: The image is missing or broken.
        """
        preprocess = self.clip.preprocess
        size, mode = preprocess.size, preprocess.resize_mode
        return image_ops.single(_decode(image), size, mode, preprocess.interpolation, DECODE)

    def encode_prepared(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """Encode the results of `prepare_image`: float32 [N, D] on the CPU, unit norm."""
        preprocess = self.clip.preprocess
        parts = []
        for start in range(0, len(pixels), self.batch_size):
            stacked = np.stack(pixels[start : start + self.batch_size])
            batch = torch.from_numpy(stacked).to(self.device)
            batch = image_ops.normalise(batch, preprocess.mean, preprocess.std)
            with self._inference():
                parts.append(_unit(self._pooled_images(batch)))
        return self._joined(parts)

    def encode_image(self, images: Sequence[ImageLike]) -> Tensor:
        """Encode N images of the types of `prepare_image`; float32 [N, D] on the CPU, unit norm.

        Raises:
            DataError: An image is missing or broken.
        """
        parts = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            parts.append(self.encode_prepared([self.prepare_image(image) for image in batch]))
        return self._joined(parts)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Encode N captions without changing them; float32 [N, D] on the CPU, unit norm."""
        packed = self._pooled_texts.packed
        at_once = self.texts_at_once if packed else self.batch_size
        keyed = [self._keyed.pop(caption, None) for caption in captions]
        ids = [
            self._tokenize(caption) if known is None else known
            for caption, known in zip(captions, keyed, strict=True)
        ]
        # Sorting puts common prefixes into the same pack, or similar lengths into the same batch.
        keys = [row.tolist() if packed else [np.count_nonzero(row)] for row in ids]
        order = sorted(range(len(ids)), key=keys.__getitem__)
        parts = []
        for start in range(0, len(order), at_once):
            tokens = torch.from_numpy(np.stack([ids[i] for i in order[start : start + at_once]]))
            with self._inference():
                parts.append(_unit(self._pooled_texts(tokens.long(), self.device)))
        features = self._joined(parts)
        result = torch.empty_like(features)
        result[torch.tensor(order, dtype=torch.int64)] = features
        return result

    def similarity(self, images: Sequence[ImageLike], captions: Sequence[str]) -> Tensor:
        """Return the cosine of each image and caption, float32 [N images, M captions]."""
        return self.encode_image(images) @ self.encode_text(captions).T

    def _tokenize(self, caption: str) -> np.ndarray:
        return self.clip.tokenizer([caption])[0].numpy().astype(np.int32)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        width = int(self.clip.source.architecture.get("embed_dim", 0))
        return torch.cat(parts) if parts else torch.empty(0, width)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        dtype = PRECISIONS[self.precision]
        with (
            models.evaluation_mode(self.clip.model),
            torch.inference_mode(),
            matrix_products(tf32=False),  # torch allows it in convolutions by default
            torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None),
        ):
            yield


def load(
    name: str | Path,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 128,
    quick_gelu: bool | None = None,
) -> Encoder:
    """Load a model for inference.

    Args:
        name: `ViT-B-32:openai`, `local-dir:PATH`, `hf-hub:ORG/NAME`, `shapes-base`, or the path of
            a run, a checkpoint, an open_clip folder or a Hugging Face CLIP folder, which may be
            a `Path`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: See `Encoder`; the weights stay fp32.
        batch_size: See `Encoder`.
        quick_gelu: Whether the weights file of `ViT-B-32:FILE` was trained with QuickGELU, which
            the names `ViT-B-32-quickgelu:FILE` and `ViT-B-32-gelu:FILE` can specify instead.

    Raises:
        ModelError: There is no such model.
    """
    source = runs.source_of(str(name))
    clip = models.create(source, device=choose_device(device), quick_gelu=quick_gelu)
    return Encoder(clip, batch_size, precision)


def _decode(image: ImageLike) -> np.ndarray:
    if isinstance(image, Image.Image):
        return np.asarray(image_ops.to_rgb(image))
    if isinstance(image, (str, Path)):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"image {image} cannot be read: {error.strerror}") from error
        return image_ops.decode(data)
    return image_ops.decode(image)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1).cpu()
