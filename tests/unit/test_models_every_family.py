"""Every family that has a config: a small random model of its kind, saved, loaded and trained."""

from __future__ import annotations

import json
import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from timm.models import _registry
from torch import Tensor, nn

from clic import models
from clic.errors import ModelError
from clic.models import ClipModel, exporting, families
from clic.models.weight_files import architectures
from clic.patching import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
import model_families

TESTS = Path(__file__).parents[1]
train = runpy.run_path(str(TESTS / "distributed" / "families.py"))["train"]
KINDS = list(model_families.KINDS)
CAPTIONS = ["a dog's bowl, left of 2 cats!", "the quick brown fox " * 12, ""]
REFUSED = {
    "clipa_l14": "vision_cfg.", "clips_l14": "vision_cfg.", "coca_b32": "vision_cfg.",
    "eva02_l14": "vision_cfg.timm_", "pe_core_b16": "vision_cfg.timm_",
    "mobileclip_s1": "vision_cfg.timm_", "mobileclip_b": "vision_cfg.timm_",
    "mobileclip2_l14": "vision_cfg.timm_", "convnext_base_w": "vision_cfg.timm_",
}  # fmt: skip
"""Kinds that transformers' CLIPModel cannot hold, and where their architecture says so."""
SIGLIP = ("siglip_b16", "siglip2_b32_256")  # written with their tokenizer: test_models_siglip.py


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, entry in model_families.small_towers().items():
        monkeypatch.setitem(_registry._model_entrypoints, name, entry)
    known = open_clip.factory._MODEL_CONFIGS
    for kind, name in model_families.KINDS.items():
        monkeypatch.setitem(known, model_families.alias(kind), model_families.shrunk(name))
    monkeypatch.setitem(known, "ViT-B-16-LongCLIP", known["Small-longclip_b16"])


def build(kind: str) -> ClipModel:
    torch.manual_seed(0)
    clip = models.create(model_families.alias(kind), None)
    with torch.no_grad():
        for number, parameter in enumerate(clip.model.parameters()):
            generator = torch.Generator().manual_seed(number)
            noise = 0.02 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter.clamp(-2, 2) + noise)
        clip.model.logit_scale.fill_(2.0)
    return clip


def features(clip: Any, tokenizer: Callable[[list[str]], Tensor], size: int) -> list[Tensor]:
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    model = clip.eval()
    with torch.no_grad():
        return [model.encode_image(pixels), model.encode_text(tokenizer(CAPTIONS))]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same_here_and_in_open_clip(kind: str, tmp_path: Path) -> None:
    clip = build(kind)
    size = clip.preprocess.size
    expected = features(clip.model, clip.tokenizer, size)
    folder = models.save(clip, tmp_path / "model")
    again = models.create(str(folder))
    plain = open_clip.create_model(f"local-dir:{folder}")
    words = open_clip.get_tokenizer(f"local-dir:{folder}")
    for model, tokenizer in ((again.model, again.tokenizer), (plain, words)):
        found = features(model, tokenizer, size)
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert again.preprocess == clip.preprocess
    assert models.filled(again.source.architecture) == models.filled(clip.source.architecture)
    assert plain.visual.preprocess_cfg["mean"] == list(clip.preprocess.mean)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(SIGLIP)))
def test_transformers_computes_the_same_or_it_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    clip = build(kind)
    if kind in REFUSED:
        with pytest.raises(ModelError, match=f"has {REFUSED[kind]}.*no place"):
            exporting.check_fits(clip.source)
        return
    folder = exporting.export(clip, tmp_path / "hf")
    size = clip.preprocess.size
    ours = features(clip.model, clip.tokenizer, size)
    again = models.create(str(folder))
    for one, two in zip(features(again.model, again.tokenizer, size), ours, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    theirs = pytest.importorskip("transformers").CLIPModel.from_pretrained(folder).eval()
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = theirs(input_ids=clip.tokenizer(CAPTIONS), pixel_values=pixels)
    for one, two in zip((out.image_embeds, out.text_embeds), ours, strict=True):
        torch.testing.assert_close(one, nn.functional.normalize(two, dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["text", "vision", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_move_what_trains_and_nothing_else(kind: str, part: str) -> None:
    clip = build(kind)
    found = train(clip, "clic", part, clip.context_length, model_families.WORDS)
    assert len(found["losses"]) == 3 and all(map(math.isfinite, found["losses"]))
    vision = [name for name in found["moved"] if name.startswith("visual.")]
    text = [name for name in found["moved"] if not name.startswith("visual.")]
    assert (bool(vision), bool(text)) == (part != "text", part != "vision")
    assert not set(found["moved"]) & set(found["frozen"])
    if kind == "coca_b32":  # no loss reaches it
        decoder = {n for n, _ in clip.model.named_parameters() if n.startswith("text_decoder.")}
        assert decoder and decoder <= set(found["frozen"])


# --- traps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_are_all_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written is filled with NaN here, which any parameter would show."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        state = models.create(model_families.alias(kind), None).model.state_dict()
    finally:
        torch.use_deterministic_algorithms(False)
    assert [name for name, value in state.items() if bool(value.isnan().any())] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_of_what_would_compute_other_numbers_is_refused_by_name(
    kind: str, tmp_path: Path
) -> None:
    clip = build(kind)
    quick, mode = clip.source.architecture.get("quick_gelu", False), clip.preprocess.resize_mode
    other = "squash" if mode == "shortest" else "shortest"
    shown = rf"\({quick} against {not quick}\)"
    _refused(clip, tmp_path, "model_cfg", {"quick_gelu": not quick}, f"quick_gelu {shown}")
    for changes, says in (
        ({"text_cfg.hf_tokenizer_name": "bert"}, r"text_cfg\.hf_tokenizer_name"),
        ({"text_cfg.tokenizer_kwargs": {"clean": "whitespace"}}, "tokenizer_kwargs"),
        ({"text_cfg.context_length": 24}, r"text_cfg\.context_length"),
    ):
        _refused(clip, tmp_path, "model_cfg", changes, says)
    for changes, says in (
        ({"mean": [0.1] * 3}, r"preprocess_cfg\.mean"),
        ({"std": [0.9] * 3}, r"preprocess_cfg\.std"),
        ({"interpolation": "nearest"}, r"preprocess_cfg\.interpolation \(\w+ against nearest\)"),
        ({"resize_mode": other}, rf"preprocess_cfg\.resize_mode \({mode} against {other}\)"),
    ):
        _refused(clip, tmp_path, "preprocess_cfg", changes, says)


def _refused(clip: ClipModel, folder: Path, part: str, change: dict[str, Any], says: str) -> None:
    """Save a model twice, change an entry of the second's config, and try to patch both."""
    base, tuned = (models.save(clip, folder / name) for name in ("base", "tuned"))
    path = tuned / "open_clip_config.json"
    config = json.loads(path.read_text())
    for name, value in change.items():
        *parents, last = name.split(".")
        inner = config[part]
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=says):
        patch(base, tuned, 0.5, folder / "out")
    assert not (folder / "out").exists()


def long_clip_file(folder: Path, length: int = 40) -> tuple[Path, dict[str, Tensor]]:
    """Write a file as Long-CLIP's: both of its embeddings, and half precision."""
    clip = build("longclip_b16")
    state = {name: value.half() for name, value in clip.model.state_dict().items()}
    own = state["positional_embedding"].clone()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(own.shape, generator=generator).half()
    first = torch.cat([own[:20], noise[20:length]])
    second = torch.cat([noise[:20], own[20:]])
    file = folder / "longclip-B.pt"
    torch.save({**state, "positional_embedding": first, "positional_embedding_res": second}, file)
    return file, {name: value.float() for name, value in state.items()}


def test_long_clips_file_is_read(tmp_path: Path) -> None:
    file, expected = long_clip_file(tmp_path)
    clip = models.create("ViT-B-16-LongCLIP", str(file))
    found = clip.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert clip.source.activation == "QuickGELU" and clip.context_length == 40
    again = models.create(str(models.save(clip, tmp_path / "model")))
    assert torch.equal(again.model.positional_embedding, expected["positional_embedding"])


def test_long_clips_file_is_refused_where_its_context_would_be_resampled(tmp_path: Path) -> None:
    file, _ = long_clip_file(tmp_path)
    wrong = model_families.shrunk("ViT-B-16-quickgelu")
    wrong["text_cfg"]["context_length"] = 24
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", wrong)
        with pytest.raises(ModelError, match="name it as ViT-B-16-LongCLIP:FILE"):
            models.create(f"ViT-B-16-quickgelu:{file}")


def test_a_bare_file_of_long_clips_tells_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        families.register()
        monkeypatch.undo()
        config = open_clip.get_model_config("ViT-B-16-LongCLIP")
        state = open_clip.CLIP(**config).state_dict()
    assert config["text_cfg"]["context_length"] == 248 and config["quick_gelu"]
    assert architectures(state) == ["ViT-B-16-LongCLIP"]
