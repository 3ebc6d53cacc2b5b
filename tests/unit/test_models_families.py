"""Families of models: what a weights file does not say, and open_clip's list lacks."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch

from clic import models
from clic.models import families
from clic.models.loading import _build

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "statistics", "interpolation", "resize_mode"),
    [
        ("ViT-B-32", OPENAI, "bicubic", "shortest"),
        ("ViT-L-14-CLIPA", IMAGENET, "bilinear", "squash"),
        ("ViT-L-14-CLIPS", IMAGENET, "bilinear", "squash"),
        ("ViT-B-16-SigLIP2", HALF, "bicubic", "squash"),
        ("PE-Core-B-16", HALF, "bilinear", "squash"),
        ("MobileCLIP-S1", ((0.0,) * 3, (1.0,) * 3), "bilinear", "shortest"),
    ],
)
def test_the_preprocessing_of_a_family(
    name: str, statistics: tuple[object, object], interpolation: str, resize_mode: str
) -> None:
    found = families.preprocessing(name)
    assert (tuple(found["mean"]), tuple(found["std"])) == statistics
    assert (found["interpolation"], found["resize_mode"]) == (interpolation, resize_mode)


def test_what_has_no_published_weights_has_no_preprocessing() -> None:
    assert families.preprocessing("coca_base") == {}


def test_clips_is_clipa_with_a_longer_context() -> None:
    source = models.resolve("ViT-L-14-CLIPS", None)
    clipa = open_clip.get_model_config("ViT-L-14-CLIPA")
    assert source.architecture["text_cfg"].pop("context_length") == 80
    assert clipa["text_cfg"].pop("context_length") == 32
    assert models.filled(source.architecture) == models.filled(clipa)


def test_a_weights_file_gets_its_familys_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
                       "image_size": 32},
        "text_cfg": {"context_length": 20, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1},
    }  # fmt: skip
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", small)
    monkeypatch.setitem(families._ALIKE, "Small", "ViT-L-14-CLIPA")
    file = tmp_path / "small.pt"
    torch.save(open_clip.CLIP(**small).state_dict(), file)
    for clip in (models.create(f"Small:{file}"), _build(models.resolve("Small", None), "cpu")):
        assert clip.preprocess == models.Preprocess(32, *IMAGENET, "bilinear", "squash")
