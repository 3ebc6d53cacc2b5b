"""Each file of configs/model names weights that open_clip knows, and says their traps truly."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from open_clip.pretrained import get_pretrained_cfg

from clic import models
from clic.models import ModelSource, families

ROOT = Path(str(files("clic.configs"))) / "model"
OWN = ("photos", "shapes", "clips_l14")  # folders and hub repositories, which say it themselves
FILES = ("longclip_b16", "longclip_l14")  # of the user's
TAGGED = sorted({path.stem for path in ROOT.glob("*.yaml")} - {*OWN, *FILES})
CLIP, HALF, ZERO, IMAGENET = (0.48145466, 0.4578275, 0.40821073), (0.5,) * 3, (0.0,) * 3, (
    0.485, 0.456, 0.406)  # fmt: skip
TRAPS: dict[str, tuple[str, int, tuple[float, ...], str]] = {
    "vitl14": ("QuickGELU", 77, CLIP, "shortest"),
    "vitl14_336": ("QuickGELU", 77, CLIP, "shortest"),
    "vitl14_laion2b": ("GELU", 77, HALF, "shortest"),
    "vitbigg14_laion2b": ("GELU", 77, CLIP, "shortest"),
    "vitb32_datacomp": ("GELU", 77, CLIP, "shortest"),
    "vitb32_metaclip": ("QuickGELU", 77, CLIP, "shortest"),
    "vith14_metaclip2": ("QuickGELU", 77, CLIP, "shortest"),
    "vitbigg14_metaclip2": ("GELU", 77, CLIP, "shortest"),
    "vitl14_dfn": ("QuickGELU", 77, CLIP, "shortest"),
    "vith14_378_dfn": ("QuickGELU", 77, CLIP, "squash"),
    "clipa_l14": ("GELU", 32, IMAGENET, "squash"),
    "eva02_l14": ("GELU", 77, CLIP, "shortest"),
    "siglip_b16": ("GELU", 64, HALF, "squash"),
    "siglip_so400m_14": ("GELU", 16, HALF, "squash"),
    "siglip2_gopt_16_384": ("GELU", 64, HALF, "squash"),
    "pe_core_b16": ("GELU", 32, HALF, "squash"),
    "pe_core_bigg14_448": ("GELU", 72, HALF, "squash"),
    "mobileclip_s1": ("GELU", 77, ZERO, "shortest"),
    "mobileclip2_b": ("GELU", 77, ZERO, "shortest"),
    "mobileclip2_s4": ("GELU", 77, CLIP, "shortest"),
    "coca_l14": ("GELU", 76, CLIP, "shortest"),
    "convnext_xxlarge": ("GELU", 77, CLIP, "shortest"),
}
"""Activation, context, mean and resizing, as open_clip 3.3 lists them for the published weights."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def described(name: str) -> tuple[str, ModelSource, dict[str, Any]]:
    """Return a file's comment, its model, and what open_clip lists for its tag."""
    text = (ROOT / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    source = models.resolve(content["name"], content["pretrained"])
    return text.splitlines()[0], source, get_pretrained_cfg(content["name"], content["pretrained"])


@pytest.mark.parametrize("name", TAGGED)
def test_a_config_names_published_weights_and_tells_their_traps(name: str) -> None:
    comment, source, listed = described(name)
    assert listed, "no such tag"
    vision, text = source.architecture["vision_cfg"], source.architecture["text_cfg"]
    size, context = vision["image_size"], text.get("context_length", 77)
    if "QuickGELU" in comment or "GELU" in comment:
        said = re.search(r"\b(Quick)?GELU\b", comment)
        assert said is not None and said[0] == source.activation
    else:
        assert source.activation == "GELU"
    if said := re.search(r"context (?:of )?(\d+)", comment):
        long = yaml.safe_load((ROOT / f"{name}.yaml").read_text()).get("context_length")
        assert int(said[1]) == (long or context)
    elif "tokens" not in comment:
        assert context == 77
    if said := re.search(r"(\d{3}) px", comment):
        assert int(said[1]) == size
    assert ("sigmoid loss" in comment) == ("init_logit_bias" in source.architecture)
    assert ("BatchNorm" in comment) == str(vision.get("timm_model_name")).startswith("fastvit")
    if "no causal mask" in comment:
        assert text["no_causal_mask"]
    if "squashed" in comment:
        assert listed["resize_mode"] == "squash"
    if "statistics 0.5" in comment:
        assert tuple(listed["mean"]) == HALF
    if "statistics 0 and 1" in comment:
        assert tuple(listed["mean"]) == ZERO
    if "XLM-V" in comment:
        assert text["hf_tokenizer_name"] == "facebook/xlm-v-base" and text["pool_type"] == "eos"


@pytest.mark.parametrize("name", TRAPS)
def test_the_traps_of_a_family(name: str) -> None:
    _, source, listed = described(name)
    activation, context, mean, resizing = TRAPS[name]
    assert source.activation == activation
    assert source.architecture["text_cfg"].get("context_length", 77) == context
    assert (tuple(listed["mean"]), listed["resize_mode"]) == (mean, resizing)


@pytest.mark.parametrize("name", FILES)
def test_a_config_of_long_clips_names_an_architecture_for_its_file(name: str) -> None:
    content = yaml.safe_load((ROOT / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["name"] in families.LONG_CLIP and content["pretrained"].endswith(".pt")
    source = models.resolve(content["name"], None)
    assert source.architecture["text_cfg"]["context_length"] == 248
    assert source.activation == "QuickGELU"
