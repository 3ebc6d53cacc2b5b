"""A model ready for use: images and captions in, unit-norm features out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clic import images as image_ops
from clic import models, runs
from clic.distributed import choose_device
from clic.errors import DataError
from clic.models import ClipModel

ImageLike = Image.Image | str | Path | bytes | np.ndarray
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Encoder:
    """Encodes images and captions with a CLIP-like model.

    Args:
        clip: The model; it is used as it stands and put back into the mode it was in.
        batch_size: Items that are encoded at once.
        precision: `fp32`, or `bf16`/`fp16` to encode under autocast.
    """

    def __init__(self, clip: ClipModel, batch_size: int = 128, precision: str = "fp32") -> None:
        self.clip = clip
        self.batch_size = batch_size
        self.precision = precision
        self._encode_text = models.TextEncoder(clip.model)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.clip.device

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the model is: name, architecture, hash of the weights, sizes."""
        return models.identity(self.clip)

    @cached_property
    def image_key(self) -> tuple[Any, ...]:
        """What decides the image features: models of equal keys encode images alike."""
        identity = self.identity
        vision = json.dumps(identity["architecture"], sort_keys=True)
        return identity["vision_sha256"], vision, self.clip.preprocess, self.precision

    def text_key(self, caption: str) -> tuple[int, ...]:
        """Return what the text tower sees of a caption: captions of equal keys are one text."""
        return tuple(self.clip.tokenizer([caption])[0].tolist())

    def encode_image(self, images: Sequence[ImageLike]) -> Tensor:
        """Encode images.

        Args:
            images: PIL images, paths, encoded bytes or uint8 [H, W, 3] RGB arrays.

        Returns:
            float32 [N, D] on the CPU, unit norm.

        Raises:
            DataError: An image is missing or broken.
        """
        preprocess = self.clip.preprocess
        parts = []
        for start in range(0, len(images), self.batch_size):
            pixels = [
                image_ops.single(
                    _decode(image),
                    preprocess.size,
                    preprocess.resize_mode,
                    preprocess.interpolation,
                )
                for image in images[start : start + self.batch_size]
            ]
            batch = torch.from_numpy(np.stack(pixels)).to(self.device)
            batch = image_ops.normalise(batch, preprocess.mean, preprocess.std)
            with self._inference():
                parts.append(_unit(self.clip.model.encode_image(batch)))
        return self._joined(parts)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Encode captions exactly as they are given.

        Args:
            captions: N texts.

        Returns:
            float32 [N, D] on the CPU, unit norm.
        """
        parts = []
        for start in range(0, len(captions), self.batch_size):
            tokens = self.clip.tokenizer(list(captions[start : start + self.batch_size]))
            with self._inference():
                parts.append(_unit(self._encode_text(tokens.to(self.device))))
        return self._joined(parts)

    def similarity(self, images: Sequence[ImageLike], captions: Sequence[str]) -> Tensor:
        """Return the cosine of each image with each caption, float32 [N images, M captions]."""
        return self.encode_image(images) @ self.encode_text(captions).T

    def _joined(self, parts: list[Tensor]) -> Tensor:
        width = int(self.clip.source.architecture.get("embed_dim", 0))
        return torch.cat(parts) if parts else torch.empty(0, width)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        model = self.clip.model
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        dtype = AUTOCAST.get(self.precision)
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None),
            ):
                yield
        finally:
            for module, training in modes:
                module.training = training


def load(
    name: str, device: str = "auto", precision: str = "fp32", batch_size: int = 128
) -> Encoder:
    """Load a model for use.

    Args:
        name: `ViT-B-32:openai`, `local-dir:PATH`, `hf-hub:ORG/NAME`, `shapes-base`, or the path of
            a run, a checkpoint or an open_clip folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, or `bf16`/`fp16` for autocast; the weights stay fp32.
        batch_size: Items that are encoded at once.

    Raises:
        ModelError: There is no such model.
    """
    clip = models.create(runs.source_of(name), device=choose_device(device))
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
