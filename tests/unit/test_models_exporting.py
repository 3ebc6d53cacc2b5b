"""A model as a Hugging Face folder: the same features in transformers, the same bits read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models
from clic.errors import ModelError
from clic.models import ClipModel, exporting

VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
CAPTIONS = ["a Dog's bowl, left of 2 cats!", "the quick brown fox " * 8, ""]


@pytest.fixture
def build_vit(build_tiny: Callable[..., ClipModel], tmp_path: Path) -> Callable[..., ClipModel]:
    """Return what builds a small model of the kind that OpenAI's are."""

    def build(**changes: Any) -> ClipModel:
        clip = build_tiny(tmp_path / "cfg", **{"vision_cfg": VIT, "text_cfg": TEXT, **changes})
        with torch.no_grad():  # biases of zero and norms of one would hide a mistaken name
            for number, parameter in enumerate(clip.model.parameters()):
                parameter += 0.02 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(number)
                )
        return clip

    return build


CASES = {
    "gelu": {},
    "quick gelu": {"quick_gelu": True},
    "custom text": {"custom_text": True},
    "other widths": {
        "vision_cfg": {**VIT, "mlp_ratio": 2.5, "norm_kwargs": {"eps": 1e-3}},
        "text_cfg": {**TEXT, "mlp_ratio": 3.0},
    },
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_what_is_written_is_read_back_bit_for_bit(
    build_vit: Callable[..., ClipModel], tmp_path: Path, changes: dict[str, Any]
) -> None:
    clip = build_vit(**changes)
    again = models.create(str(exporting.export(clip, tmp_path / "hf")))
    # open_clip's CustomTextCLIP comes back as CLIP, whose text tower's names lack their prefix.
    ours = {n.removeprefix("text."): v for n, v in clip.model.state_dict().items()}
    found = again.model.state_dict()
    assert ours.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in ours.items())
    assert again.preprocess == clip.preprocess and again.source.activation == clip.source.activation
    assert torch.equal(again.tokenizer(CAPTIONS), clip.tokenizer(CAPTIONS))
    pixels, tokens = torch.rand(2, 3, 32, 32), clip.tokenizer(CAPTIONS)
    with torch.no_grad():
        for one, two in (
            (clip.model.eval().encode_image(pixels), again.model.eval().encode_image(pixels)),
            (clip.model.encode_text(tokens), again.model.encode_text(tokens)),
        ):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_transformers_computes_the_same(
    build_vit: Callable[..., ClipModel], tmp_path: Path, changes: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    clip = build_vit(**changes)
    folder = exporting.export(clip, tmp_path / "hf")
    theirs, report = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = clip.tokenizer(CAPTIONS)
    theirs.eval(), clip.model.eval()
    with torch.no_grad():
        out = theirs(input_ids=tokens, pixel_values=pixels)
        for ours, expected in (
            (clip.model.encode_image(pixels, normalize=True), out.image_embeds),
            (clip.model.encode_text(tokens, normalize=True), out.text_embeds),
        ):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        scale = theirs.logit_scale.exp()
    assert torch.equal(scale, clip.model.logit_scale.exp())
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for caption, row in zip(CAPTIONS, tokens, strict=True):
        found = words(caption, truncation=True)["input_ids"]
        assert found == row[: len(found)].tolist() and found[-1] == 49407


@pytest.mark.parametrize(
    ("mode", "size", "crop"),
    [("shortest", {"shortest_edge": 32}, True), ("squash", {"height": 32, "width": 32}, False)],
)
def test_preprocessing_is_written(
    build_vit: Callable[..., ClipModel], tmp_path: Path, mode: str, size: Any, crop: bool
) -> None:
    clip = build_vit()
    clip.model.visual.preprocess_cfg.update(resize_mode=mode, interpolation="bilinear")
    clip = models.create(str(models.save(clip, tmp_path / "ours")))
    folder = exporting.convert(tmp_path / "ours")
    written = json.loads((folder / "preprocessor_config.json").read_text())
    assert (written["size"], written["do_center_crop"], written["resample"]) == (size, crop, 2)
    assert models.create(str(folder)).preprocess == clip.preprocess


def test_a_folder_is_replaced_and_its_records_kept(
    build_vit: Callable[..., ClipModel], tmp_path: Path
) -> None:
    folder = models.save(build_vit(), tmp_path / "model")
    (folder / "patch.json").write_text('{"alpha": 1}')
    exporting.convert(folder, ["patch.json", "absent.json"])
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "preprocessor_config.json", "patch.json",
        "vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vision_cfg": {**VIT, "layers": [1, 1, 1, 1]}}, r"vision_cfg.layers=\[1, 1, 1, 1\]"),
        ({"vision_cfg": {**VIT, "no_ln_pre": True}}, "vision_cfg.no_ln_pre=True"),
        ({"vision_cfg": {**VIT, "pool_type": "avg"}}, "vision_cfg.pool_type=avg"),
        ({"vision_cfg": {"timm_model_name": "test_resnet"}}, "timm_model_name=test_resnet"),
        ({"text_cfg": {**TEXT, "no_causal_mask": True}}, "text_cfg.no_causal_mask=True"),
        ({"text_cfg": {**TEXT, "pool_type": "last"}}, "text_cfg.pool_type=last"),
        ({"text_cfg": {**TEXT, "vocab_size": 100}}, "text_cfg.vocab_size=100"),
        ({"text_cfg": {**TEXT, "hf_tokenizer_name": "bert"}}, "hf_tokenizer_name=bert"),
        ({"text_cfg": {**TEXT, "tokenizer_kwargs": {"clean": "canonicalize"}}}, "tokenizer_kwargs"),
        ({"init_logit_bias": -10.0}, "init_logit_bias=-10.0"),
        ({"multimodal_cfg": {"width": 16}}, "multimodal_cfg"),
    ],
)
def test_what_clip_model_cannot_hold_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    architecture = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT, **changes}
    source = models.ModelSource("mine", "local-dir:/mine", None, architecture)
    with pytest.raises(ModelError, match=says) as error:
        exporting.check_fits(source)
    assert "\n" not in str(error.value) and str(error.value).startswith("mine has ")


def test_a_tensor_without_a_place_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"'visual\.ln_odd\.weight' has no place"):
        exporting.renamed({"visual.ln_odd.weight": torch.ones(2)})


def test_a_refused_model_leaves_the_folder_as_it_was(tiny: Path, tmp_path: Path) -> None:
    folder = models.save(models.create(str(tiny)), tmp_path / "resnet")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(ModelError, match="cannot be written with --to hf"):
        exporting.convert(folder)
    assert {path.name for path in folder.iterdir()} == before
