"""Composites equal the published pixels, single images open_clip's evaluation transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import functional

from clic import images

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(64, 64), (100, 37), (37, 100), (225, 224), (224, 301), (240, 321), (13, 250)]


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", ["landscape", "portrait"])
@pytest.mark.parametrize("swapped", [False, True])
def test_composite(orientation: str, swapped: bool) -> None:
    wide = orientation == "landscape"
    pair = [pixels(120, 161, 1), pixels(90, 133, 2)]
    if not wide:
        pair = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in pair]
    # The published steps: RGBA, resize, tensors of the first three channels, joined, normalised.
    tensors = []
    for image in pair:
        resized = (
            Image.fromarray(image)
            .convert("RGBA")
            .resize((224, 112) if wide else (112, 224), Image.Resampling.BICUBIC)
        )
        tensors.append(functional.to_tensor(resized)[:3])
    canvas = torch.cat(tensors[::-1] if swapped else tensors, dim=1 if wide else 2)
    expected = functional.normalize(canvas, IMAGENET_MEAN, IMAGENET_STD)

    ours = images.compose(pair[::-1] if swapped else pair, "pair", orientation, 224)
    batch = torch.from_numpy(ours)[None]
    assert torch.equal(images.normalise(batch, IMAGENET_MEAN, IMAGENET_STD)[0], expected)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [77, 224])
def test_single(resize_mode: str, interpolation: str, size: int) -> None:
    config = PreprocessCfg(size=size, resize_mode=resize_mode, interpolation=interpolation)
    transform = image_transform_v2(config, is_train=False)
    for height, width in SHAPES:
        image = pixels(height, width)
        ours = images.single(image, size, resize_mode, interpolation)
        batch = torch.from_numpy(ours.copy())[None]
        result = images.normalise(batch, config.mean, config.std)[0]
        assert torch.equal(result, transform(Image.fromarray(image))), (height, width)
