"""Long-CLIP's stretch: its numbers by hand, and the longer model in and out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from clic import models, runs
from clic.config.train_settings import Config
from clic.errors import ConfigError, ModelError
from clic.models import ClipModel
from clic.models.loading import preprocess_of
from clic.models.stretching import stretched
from clic.training import train

LONG = "a red cup left of a blue box and " * 12


def test_the_published_ratio_of_four() -> None:
    """77 positions become 248: 20 + 4 * 57, the last step going on beyond the last position."""
    old = torch.zeros(77, 2)
    old[:, 0] = torch.arange(77.0) ** 2
    old[76, 1] = 8.0
    new = stretched(old, 248)
    assert new.shape == (248, 2) and new.dtype == torch.float32
    assert torch.equal(new[:21], old[:21])  # position 20 lies on an old one, too
    # A quarter, a half and three quarters of the way from 20^2 = 400 to 21^2 = 441.
    assert new[20:25, 0].tolist() == [400.0, 410.25, 420.5, 430.75, 441.0]
    # 76 lies at 20 + 4 * 56 = 244; beyond, quarters of the last step, 8.
    assert new[240:, 1].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]
    assert new[244:, 0].tolist() == [5776 + 151 * n / 4 for n in range(4)]


def test_another_ratio() -> None:
    """From 22 positions to 23 the ratio is 3/2: the new ones lie at 20, 20 + 2/3 and 20 + 4/3."""
    old = torch.arange(22.0, dtype=torch.float64)[:, None]
    old[21] = 24.0  # 4 beyond its neighbour
    new = stretched(old, 23)
    expected = [20.0, 20 + 4 * 2 / 3, 24 + 4 / 3]
    torch.testing.assert_close(new[20:, 0], torch.tensor(expected, dtype=torch.float64))


CHANGES: dict[str, dict[str, Any]] = {
    "clip": {},
    "custom text": {"custom_text": True},
    "no mask": {
        "custom_text": True,
        "text_cfg": {"context_length": 34, "vocab_size": 49408, "width": 16, "heads": 2,
                     "layers": 1, "no_causal_mask": True, "pool_type": "last"},
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_longer_model_is_saved_and_loaded_by_us_and_by_open_clip(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, changes: dict[str, Any]
) -> None:
    clip = models.stretch(build_tiny(tmp_path / "cfg", **changes), 80)
    assert clip.context_length == 80
    tokens = clip.tokenizer(["a dog", LONG])
    assert tokens.shape == (2, 80)
    clip.model.eval()
    with torch.no_grad():
        expected = clip.model.encode_text(tokens)
    folder = models.save(clip, tmp_path / "long")
    again = models.create(str(folder))
    plain, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert again.context_length == 80 and torch.equal(again.tokenizer(["a dog", LONG]), tokens)
    assert torch.equal(theirs(["a dog", LONG]), tokens)
    for model in (again.model.eval(), plain.eval()):
        with torch.no_grad():
            assert torch.equal(model.encode_text(tokens), expected)


def test_short_captions_keep_their_features(tiny: Path) -> None:
    clip = models.create(str(tiny))
    clip.model.eval()
    texts = ["a dog", "the quick brown fox jumps over the lazy dog"]
    with torch.no_grad():
        before = clip.model.encode_text(clip.tokenizer(texts))
        longer = models.stretch(clip, 60)
        after = longer.model.encode_text(longer.tokenizer(texts))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "says"),
    [(34, "has no effect: that is the context"), (33, "is 34; one of at least 22 can be stret")],
)
def test_a_length_that_is_not_longer_is_refused(tiny: Path, length: int, says: str) -> None:
    with pytest.raises(ConfigError, match=f"model.context_length={length}.*{says}"):
        models.stretch(models.create(str(tiny)), length)


def test_another_text_tower_is_refused(tiny: Path) -> None:
    clip = models.create(str(tiny))
    del clip.model.positional_embedding
    with pytest.raises(ConfigError, match="is not a plain one of open_clip"):
        models.stretch(clip, 60)


def test_a_run_trains_with_it_and_keeps_its_longer_base(settings: Callable[..., Config]) -> None:
    run = train(settings("model.context_length=50", "train.max_steps=1", "train.run_name=long"))
    for folder in (run / runs.MODEL, run / runs.BASE):
        assert models.create(str(folder)).context_length == 50
    assert runs.base_of(run) == str(run / runs.BASE)


# --- other images --------------------------------------------------------------------------------

VIT = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}


@pytest.fixture
def vit(build_tiny: Callable[..., ClipModel], tmp_path: Path) -> Path:
    return models.save(build_tiny(tmp_path / "vit", vision_cfg=VIT), tmp_path / "small")


@pytest.mark.parametrize("size", [48, 16])
@pytest.mark.parametrize("changes", [{}, {"custom_text": True}], ids=["clip", "custom text"])
def test_a_model_of_other_images_is_as_open_clip_makes_it_and_is_saved_and_loaded(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, changes: dict[str, Any], size: int
) -> None:
    clip = build_tiny(tmp_path / "cfg", vision_cfg=VIT, **changes)
    first = models.save(clip, tmp_path / "first")
    theirs = open_clip.create_model(f"local-dir:{first}", force_image_size=size).eval()
    clip = models.resize_images(clip, size)
    assert clip.preprocess.size == size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    folder = models.save(clip, tmp_path / "resized")
    again, plain = models.create(str(folder)), open_clip.create_model(f"local-dir:{folder}")
    assert again.preprocess == clip.preprocess
    assert plain.visual.preprocess_cfg["size"] in (size, (size, size), [size, size])
    with torch.no_grad():
        expected = theirs.encode_image(pixels)
        for model in (clip.model.eval(), again.model.eval(), plain.eval()):
            assert torch.equal(model.encode_image(pixels), expected)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (32, "has no effect: that is the size"),
        (50, "is no multiple of the patches of 8 .*use 48 or 56$"),
        (35, "use 40, or leave it out for 32$"),
        (30, "use 24, or leave it out for 32$"),
        (5, "use 8$"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(vit: Path, size: int, says: str) -> None:
    with pytest.raises(ConfigError, match=f"model.image_size={size}.*{says}"):
        models.resize_images(models.create(str(vit)), size)


@pytest.mark.parametrize("size", [50, 35, 30, 5])
def test_the_sizes_that_are_named_work(vit: Path, size: int) -> None:
    with pytest.raises(ConfigError) as error:
        models.resize_images(models.create(str(vit)), size)
    named = re.findall(r"\d+", str(error.value).partition("; use ")[2].partition(",")[0])
    assert named
    for other in map(int, named):
        clip = models.resize_images(models.create(str(vit)), other)
        assert clip.model.encode_image(torch.zeros(1, 3, other, other)).isfinite().all()


def test_a_tower_that_is_built_for_one_size_is_refused(
    build_tiny: Callable[..., ClipModel], tiny: Path, tmp_path: Path
) -> None:
    vision = {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none",
              "image_size": 160}  # fmt: skip
    clip = build_tiny(tmp_path / "cfg", embed_dim=64, custom_text=True, vision_cfg=vision)
    for one in (clip, models.create(str(tiny))):  # of timm, and a ResNet
        with pytest.raises(
            ConfigError,
            match=rf"built for one size, {one.preprocess.size}; leave it out, or .*image_size=256",
        ):
            models.resize_images(one, 320)


def test_images_that_are_not_square_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    clip = models.create(str(tiny))
    clip.model.visual.preprocess_cfg["size"] = (32, 48)
    with pytest.raises(ModelError, match=r"\(32, 48\) pixels is not square"):
        preprocess_of(clip.model)


def test_a_run_trains_on_larger_images_and_keeps_its_base(
    settings: Callable[..., Config], vit: Path
) -> None:
    larger = (f"model.name={vit}", "model.image_size=48")
    run = train(settings(*larger, "train.max_steps=2", "train.run_name=large"))
    for folder in (run / runs.MODEL, run / runs.BASE):
        assert models.create(str(folder)).preprocess.size == 48
    assert runs.base_of(run) == str(run / runs.BASE)
