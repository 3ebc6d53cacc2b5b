"""What a model is, read from the model that was built, and where it differs from its base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models
from clic.models import ClipModel, description

VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}


def test_a_description_names_both_towers_and_counts_their_parameters(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    clip = build_tiny(tmp_path, quick_gelu=True, vision_cfg=VIT, init_logit_bias=-10.0)
    found = description.describe(clip)
    assert found["vision"]["tower"] == (
        "ViT of 2 layers, width 32, 2 heads, patches of 8 px, input 32 x 32 px, pooling tok"
    )
    assert found["text"]["tower"] == (
        "transformer of 1 layers, width 16, 2 heads, vocabulary 49,408, causal mask, pooling argmax"
    )
    assert found["vision"]["activations"] == found["text"]["activations"] == ["QuickGELU"]
    # By hand: embedding, positions, a block of 12 d^2 + 13 d, the last norm, the projection.
    text = 49408 * 16 + 34 * 16 + (12 * 16**2 + 13 * 16) + 2 * 16 + 16 * 16
    assert found["text"]["parameters"] == text
    assert found["parameters"] == text + found["vision"]["parameters"] + 2  # scale and bias
    assert found["scalars"] == {
        "logit_scale": pytest.approx(1 / 0.07, rel=1e-5),
        "logit_bias": -10.0,
    }
    assert found["preprocessing"]["size"] == 32 and found["tokenizer"]["context_length"] == 34
    own = models.identity(clip)
    assert [found[t]["sha256"] for t in ("vision", "text")] == [
        own["vision_sha256"],
        own["text_sha256"],
    ]
    assert json.loads(json.dumps(found)) == found


def test_a_resnet_is_not_called_a_transformer(tiny: Path) -> None:
    found = description.describe(models.create(str(tiny)))
    assert found["vision"]["tower"].startswith("ResNet of 1-1-1-1 blocks, width 8")
    assert found["vision"]["activations"] == ["ReLU"]
    assert found["text"]["activations"] == ["GELU"]


def test_a_model_does_not_differ_from_itself(tiny: Path) -> None:
    changes = description.differences(models.create(str(tiny)), models.create(str(tiny)))
    assert not any(changes[p] for p in ("architecture", "preprocessing", "tokenizer", "scalars"))
    assert [changes[tower]["changed"] for tower in ("vision", "text")] == [0, 0]


def test_the_tower_that_changed_is_the_one_that_is_named(tiny: Path) -> None:
    tuned, base = models.create(str(tiny)), models.create(str(tiny))
    with torch.no_grad():
        for clip, value in ((base, 3.0), (tuned, 3.0)):
            for name, parameter in clip.model.named_parameters():
                if not name.startswith("visual.") and name != "logit_scale":
                    parameter.zero_()
            clip.model.ln_final.weight[:] = value
        tuned.model.ln_final.weight[0] = 6.0
        tuned.model.logit_scale.fill_(0.0)
    changes = description.differences(tuned, base)
    assert changes["vision"]["changed"] == 0 and changes["vision"]["relative_change"] == 0
    # One of 16 weights of 3 is moved by 3: the square root of 9 / (16 * 9).
    assert changes["text"]["changed"] == 1
    assert changes["text"]["relative_change"] == pytest.approx(0.25)
    assert changes["scalars"] == {"logit_scale": [1.0, pytest.approx(1 / 0.07, rel=1e-5)]}


@pytest.mark.parametrize(
    ("changed", "part", "entry"),
    [
        ({"quick_gelu": True}, "architecture", "quick_gelu"),
        ({"quick_gelu": True}, "architecture", "text activations"),
        ({"text_cfg": {"context_length": 20}}, "tokenizer", "sha256_of_fixed_texts"),
        ({"text_cfg": {"context_length": 20}}, "architecture", "text_cfg.context_length"),
        ({"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}, "tokenizer",
         "sha256_of_fixed_texts"),
    ],
)  # fmt: skip
def test_what_would_compute_other_numbers_is_a_difference(
    tiny: Path, build_tiny: Callable[..., ClipModel], tmp_path: Path,
    changed: dict[str, Any], part: str, entry: str,
) -> None:  # fmt: skip
    base = models.create(str(tiny))
    whole = {**base.source.architecture, **changed}
    whole["text_cfg"] = {**base.source.architecture["text_cfg"], **changed.get("text_cfg", {})}
    assert entry in description.differences(build_tiny(tmp_path, **whole), base)[part]


def test_other_statistics_are_a_difference(tiny: Path, tmp_path: Path) -> None:
    clip = models.create(str(tiny))
    clip.model.visual.preprocess_cfg["mean"] = (0.5, 0.5, 0.5)
    other = models.create(str(models.save(clip, tmp_path / "other")))
    changes = description.differences(other, models.create(str(tiny)))
    assert list(changes["preprocessing"]) == ["mean"]
    assert changes["preprocessing"]["mean"][0] == [0.5, 0.5, 0.5]
