"""A model ready for use: forms of images, order, modes and keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic import models
from clic.errors import ClicError, ConfigError, DataError, ModelError
from clic.evaluation import FeatureCache
from clic.evaluation.encode.distributed_encoding import Encoded, EncodingOptions
from clic.evaluation.encode.encoding import encode_images
from clic.models import encoder as inference
from clic.models.encoder import Encoder


@pytest.fixture
def encoder(tiny: Path) -> Encoder:
    return inference.load(str(tiny), device="cpu", batch_size=2)


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_every_form_of_an_image_gives_the_same_features(encoder: Encoder, tmp_path: Path) -> None:
    array, path = pixels(), tmp_path / "image.png"
    image = Image.fromarray(array)
    image.save(path)
    features = encoder.encode_image([image, path, str(path), path.read_bytes(), array])
    assert features.shape == (5, 16) and features.dtype == torch.float32
    torch.testing.assert_close(features, features[:1].expand(5, -1), rtol=0, atol=1e-6)


def test_pil_images_of_every_mode(encoder: Encoder) -> None:
    image = Image.fromarray(pixels())
    modes = [image.convert(mode) for mode in ("L", "RGBA", "P", "CMYK")]
    assert encoder.encode_image(modes).isfinite().all()
    torch.testing.assert_close(*encoder.encode_image([image, image.convert("RGBA")]))


def test_open_clips_own_preprocessing_agrees(encoder: Encoder) -> None:
    import open_clip

    _, transform = open_clip.create_model_from_pretrained(encoder.clip.source.open_clip_name)
    image = Image.fromarray(pixels())
    encoder.clip.model.eval()
    with torch.no_grad():
        expected = encoder.clip.model.encode_image(transform(image)[None], normalize=True)
    torch.testing.assert_close(encoder.encode_image([image]), expected)


def test_features_are_unit_and_in_order(encoder: Encoder) -> None:
    images = [pixels(seed) for seed in range(5)]
    captions = ["a dog", "a cat", "a red circle", "", "a " * 60]
    for encode, items in ((encoder.encode_image, images), (encoder.encode_text, captions)):
        together = encode(items)
        torch.testing.assert_close(together.norm(dim=-1), torch.ones(5))
        alone = torch.cat([encode([item]) for item in items])
        torch.testing.assert_close(together, alone)


def test_similarity_is_the_cosine(encoder: Encoder) -> None:
    images, captions = [pixels(0), pixels(1)], ["a", "b", "c"]
    scores = encoder.similarity(images, captions)
    assert scores.shape == (2, 3)
    expected = encoder.encode_image(images) @ encoder.encode_text(captions).T
    assert torch.equal(scores, expected)


def test_features_have_all_bits_of_fp32(encoder: Encoder) -> None:
    """By default torch lets convolutions use TF32 on a GPU."""
    seen = []

    def look(*_: Any) -> None:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        encoder.clip.model.visual.register_forward_hook(look)
        encoder.clip.model.ln_final.register_forward_hook(look)
        encoder.similarity([pixels()], ["a dog"])
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert seen == [("highest", False)] * 2


def test_nothing_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.encode_image([]).shape == encoder.encode_text([]).shape == (0, 16)


def test_the_model_keeps_its_modes(encoder: Encoder) -> None:
    model = encoder.clip.model
    model.train()
    model.visual.eval()
    before = model.visual.bn1.running_mean.clone()
    encoder.encode_image([pixels()])
    encoder.encode_text(["a"])
    assert model.training and model.transformer.training and not model.visual.training
    assert torch.equal(before, model.visual.bn1.running_mean)


def test_the_model_can_be_trained_afterwards(encoder: Encoder) -> None:
    encoder.encode_text(["a dog"])
    encoder.clip.model.encode_text(encoder.clip.tokenizer(["a dog"])).sum().backward()


def test_autocast(tiny: Path, encoder: Encoder) -> None:
    half = inference.load(str(tiny), device="cpu", precision="bf16")
    exact, rounded = (e.encode_text(["a dog"]) for e in (encoder, half))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0)


def test_precision(tiny: Path) -> None:
    clip = models.create(str(tiny))
    assert Encoder(clip, precision="auto").precision == "fp32"  # on the CPU
    with pytest.raises(ConfigError, match=r"precision='fp8' .*choices: auto, bf16, fp16, fp32"):
        Encoder(clip, precision="fp8")


def test_many_captions_in_any_order(encoder: Encoder) -> None:
    captions = [f"a {word} dog number {n}" for n in range(40) for word in ("red", "small blue")]
    features = encoder.encode_text(captions)
    order = np.random.default_rng(0).permutation(len(captions))
    shuffled = encoder.encode_text([captions[i] for i in order])
    torch.testing.assert_close(shuffled, features[order], rtol=0, atol=1e-6)


def test_a_text_that_was_keyed_is_not_tokenized_again(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, seen = encoder.clip.tokenizer, []
    monkeypatch.setattr(
        encoder.clip, "tokenizer", lambda texts: seen.extend(texts) or tokenizer(texts)
    )
    captions = ["a red dog", "a cat", "a red dog"]
    for caption in captions:
        encoder.text_key(caption)
    features = encoder.encode_text(captions[:2])
    assert seen == captions[:2]
    assert torch.equal(features, encoder.encode_text(captions[:2]))


def test_images_in_two_steps(encoder: Encoder) -> None:
    images = [pixels(seed) for seed in range(3)]
    prepared = [encoder.prepare_image(image) for image in images]
    assert all(image.shape == (32, 32, 3) and image.dtype == np.uint8 for image in prepared)
    assert torch.equal(encoder.encode_prepared(prepared), encoder.encode_image(images))


def test_keys(tiny: Path, encoder: Encoder, build_tiny: Callable[..., Any], tmp_path: Path) -> None:
    assert encoder.text_key("a dog") == encoder.text_key("A  dog ") != encoder.text_key("a cat")
    assert encoder.image_key == inference.load(str(tiny), device="cpu").image_key
    hash(encoder.image_key)
    text_only = models.create(str(tiny))
    with torch.no_grad():
        text_only.model.ln_final.weight.mul_(2)
    assert Encoder(text_only).image_key == encoder.image_key
    assert Encoder(build_tiny(tmp_path, seed=1)).image_key != encoder.image_key
    assert Encoder(text_only, precision="bf16").image_key != encoder.image_key


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.5, 0.5, 0.5)},
        {"interpolation": "bilinear"},
        {"resize_mode": "squash"},
        {"resize_mode": "longest"},
    ],
    ids=lambda change: "-".join(map(str, change.items())),
)
def test_features_are_kept_by_how_images_are_prepared(
    tiny: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A model of the same weights that sees images otherwise takes none of the kept features."""
    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, file in enumerate(files):
        Image.fromarray(pixels(seed)).save(file)
    first, other = models.create(str(tiny)), models.create(str(tiny))
    other.preprocess = dataclasses.replace(first.preprocess, **change)
    cache = FeatureCache(tmp_path / "cache")

    def encoded(clip: models.ClipModel, kept: FeatureCache | None) -> Encoded:
        encoder = Encoder(clip)
        options = EncodingOptions(4, cache=kept)
        return encode_images(encoder, files, options, allow_broken=False)

    assert encoded(first, cache).cached == 0
    found = encoded(other, cache)
    assert found.cached == 0
    assert torch.equal(found.features, encoded(other, None).features)
    assert not torch.equal(found.features, encoded(first, None).features)
    assert encoded(first, cache).cached == encoded(other, cache).cached == 3


@pytest.mark.parametrize(
    ("name", "pretrained", "named"),
    [
        ("ViT-B-32:opnai", "included", "model 'ViT-B-32:opnai': 'opnai' is neither"),
        ("ViT-B-32", "opnai", "model.pretrained='opnai' is neither"),
    ],
)
def test_weights_that_there_are_not_are_named_as_they_were_given(
    monkeypatch: pytest.MonkeyPatch, name: str, pretrained: str, named: str
) -> None:
    monkeypatch.setattr("clic.models.loading.go_offline_if_unreachable", lambda: None)
    with pytest.raises(ModelError, match=named) as caught:
        models.resolve(name, pretrained)
    assert "did you mean 'openai'" in str(caught.value)


def test_device_and_identity(encoder: Encoder) -> None:
    assert encoder.device == torch.device("cpu")
    assert encoder.identity["image_size"] == 32


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Path("nowhere.jpg"), "nowhere.jpg cannot be read: No such file"),
        (b"no image", "no image"),
        (np.zeros((4, 4)), "give uint8"),
    ],
)
def test_images_that_cannot_be_read(encoder: Encoder, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encoder.encode_image([image])


@pytest.mark.parametrize("name", ["nowhere", "local-dir:/nowhere"])
def test_models_that_are_not_there(name: str) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        inference.load(name, device="cpu")


def test_a_folder_without_model(tmp_path: Path) -> None:
    with pytest.raises(ClicError, match=f"{tmp_path} holds no model"):
        inference.load(str(tmp_path), device="cpu")
