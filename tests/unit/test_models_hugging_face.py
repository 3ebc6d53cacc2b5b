"""A Hugging Face CLIP folder: the features that transformers computes, by open_clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import clic
from clic import models, runs
from clic.errors import ClicError, ModelError
from clic.models import hugging_face

END = 49407


def config(hidden_act: str = "quick_gelu", end: int = 2, eps: float = 1e-5) -> dict[str, Any]:
    """Return a config of two small towers; vision's MLP is not four times as wide."""
    common = {
        "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": hidden_act,
        "layer_norm_eps": eps,
    }  # fmt: skip
    return {
        "model_type": "clip",
        "projection_dim": 4,
        "text_config": {
            **common, "hidden_size": 8, "intermediate_size": 32, "eos_token_id": end,
            "max_position_embeddings": 12,
        },
        "vision_config": {
            **common, "hidden_size": 12, "intermediate_size": 36, "image_size": 16, "patch_size": 8,
        },
    }  # fmt: skip


def formula_weights(cfg: dict[str, Any]) -> dict[str, Tensor]:
    """Return every tensor of transformers' CLIPModel, filled by a formula."""
    shapes: dict[str, tuple[int, ...]] = {"logit_scale": ()}
    for tower, part in (("text", cfg["text_config"]), ("vision", cfg["vision_config"])):
        width, hidden = part["hidden_size"], part["intermediate_size"]
        shapes[f"{tower if tower == 'text' else 'visual'}_projection.weight"] = (4, width)
        norms = ["final_layer_norm"] if tower == "text" else ["pre_layrnorm", "post_layernorm"]
        for number in range(part["num_hidden_layers"]):
            block = f"{tower}_model.encoder.layers.{number}"
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes[f"{block}.self_attn.{name}.weight"] = (width, width)
                shapes[f"{block}.self_attn.{name}.bias"] = (width,)
            for name, shape in (("fc1", (hidden, width)), ("fc2", (width, hidden))):
                shapes[f"{block}.mlp.{name}.weight"] = shape
                shapes[f"{block}.mlp.{name}.bias"] = shape[:1]
            norms += [f"encoder.layers.{number}.layer_norm{i}" for i in (1, 2)]
        for name in norms:
            for kind in ("weight", "bias"):
                shapes[f"{tower}_model.{name}.{kind}"] = (width,)
    text, vision = cfg["text_config"]["hidden_size"], cfg["vision_config"]["hidden_size"]
    shapes["text_model.embeddings.token_embedding.weight"] = (49408, text)
    shapes["text_model.embeddings.position_embedding.weight"] = (12, text)
    shapes["vision_model.embeddings.class_embedding"] = (vision,)
    shapes["vision_model.embeddings.patch_embedding.weight"] = (vision, 3, 8, 8)
    shapes["vision_model.embeddings.position_embedding.weight"] = (5, vision)
    return {name: formula(name, shape) for name, shape in shapes.items()}


def formula(name: str, shape: tuple[int, ...]) -> Tensor:
    count = int(torch.tensor(shape).prod()) if shape else 1
    values = torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + sum(map(ord, name)))
    return (0.4 * values).float().reshape(shape)


def pixels() -> Tensor:
    return torch.sin(torch.arange(2 * 3 * 16 * 16) * 0.37).reshape(2, 3, 16, 16)


def tokens() -> Tensor:
    """Return two texts, the first with an id of 7 before its end."""
    ids = torch.full((2, 12), END)
    ids[0, :5] = torch.tensor([49406, 320, 7, 1929, END])
    ids[1, :4] = torch.tensor([49406, 736, 7, END])
    return ids


# What CLIPModel of transformers 5.23 gives: image features and text features, not normalised.
EXPECTED = {
    ("quick_gelu", 2, 1e-5): (
        [[-1.23392, -0.52129, 1.2127, 0.57065], [-1.23387, -0.53005, 1.2123, 0.5794]],
        [[0.21538, -0.33684, -0.56011, -0.23638], [0.23638, -0.32225, -0.56617, -0.25717]],
    ),
    ("gelu", END, 1e-5): (
        [[-1.23411, -0.52151, 1.21288, 0.57087], [-1.2341, -0.53033, 1.21251, 0.57968]],
        [[0.21547, -0.33667, -0.56002, -0.23646], [0.23648, -0.32208, -0.5661, -0.25727]],
    ),
    ("quick_gelu", 7, 1e-3): (
        [[-1.2324, -0.52036, 1.21122, 0.56966], [-1.23235, -0.5293, 1.2108, 0.57858]],
        [[0.2359, -0.30416, -0.54718, -0.25583], [0.23598, -0.30456, -0.54767, -0.25593]],
    ),
}


def write(folder: Path, cfg: dict[str, Any], **files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(cfg))
    save_file(formula_weights(cfg), folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def features(clip_model: models.ClipModel) -> tuple[Tensor, Tensor]:
    model = clip_model.model.eval()
    with torch.no_grad():
        return model.encode_image(pixels()), model.encode_text(tokens())


@pytest.mark.parametrize("case", EXPECTED, ids=[f"{a} end {e}" for a, e, _ in EXPECTED])
def test_features_are_those_of_transformers(tmp_path: Path, case: tuple[str, int, float]) -> None:
    folder = write(tmp_path / "hf", config(*case))
    for ours, expected in zip(features(models.create(str(folder))), EXPECTED[case], strict=True):
        torch.testing.assert_close(ours, torch.tensor(expected), rtol=0, atol=1e-5)


def test_every_name_of_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", config())
    assert runs.source_of(str(folder)) == f"local-dir:{folder}"
    encoder = clic.load(str(folder), device="cpu")
    assert encoder.encode_text(["a dog", "a dog!"]).shape == (2, 4)
    assert encoder.encode_image([torch.zeros(20, 30, 3, dtype=torch.uint8).numpy()]).shape == (1, 4)
    assert encoder.clip.context_length == 12
    assert encoder.identity["architecture"]["quick_gelu"] is True
    scale = encoder.clip.model.logit_scale.detach()
    assert float(scale) == pytest.approx(float(formula("logit_scale", ())))
    again = models.create(f"local-dir:{folder}")
    torch.testing.assert_close(features(again), features(encoder.clip))


def test_it_can_be_saved_as_an_open_clip_folder(tmp_path: Path) -> None:
    clip_model = models.create(str(write(tmp_path / "hf", config())))
    again = models.create(str(models.save(clip_model, tmp_path / "oc")))
    assert again.source.architecture == clip_model.source.architecture
    torch.testing.assert_close(features(again), features(clip_model), rtol=0, atol=0)


def test_random_weights_are_possible(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", config())
    whole = models.create(str(folder))
    random = models.create(str(folder), None)
    assert not torch.equal(features(random)[0], features(whole)[0])


def test_half_precision_in_shards(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", config())
    tensors = {name: value.half() for name, value in formula_weights(config()).items()}
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[:20], "model-2.safetensors": names[20:]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    clip_model = models.create(str(folder))
    assert clip_model.model.visual.proj.dtype == torch.float32
    expected = EXPECTED["quick_gelu", 2, 1e-5]
    for ours, numbers in zip(features(clip_model), expected, strict=True):
        torch.testing.assert_close(ours, torch.tensor(numbers), rtol=0, atol=5e-3)


def test_what_a_config_leaves_out_is_as_in_vit_b_32(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip", "text_config_dict": null}')
    found = hugging_face.architecture(tmp_path)
    import open_clip

    openai = open_clip.get_model_config("ViT-B-32-quickgelu")
    vision, text = found["vision_cfg"], found["text_cfg"]
    assert {**text, **openai["text_cfg"]} == text and found["embed_dim"] == openai["embed_dim"]
    assert {**vision, **openai["vision_cfg"]} == vision and found["quick_gelu"]
    assert (vision["mlp_ratio"], text["mlp_ratio"], vision["head_width"]) == (4, 4, 64)


def test_the_width_of_an_mlp_survives_rounding(tmp_path: Path) -> None:
    for width, hidden in ((1408, 6144), (1280, 5120), (49, 107)):
        sizes = hugging_face._sizes({**hugging_face._TEXT, "hidden_size": width,
                                     "intermediate_size": hidden})  # fmt: skip
        assert int(width * sizes["mlp_ratio"]) == hidden


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ({}, {"resize_mode": "shortest", "interpolation": "bicubic"}),
        (
            {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16},
             "resample": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]},
            {"resize_mode": "shortest", "interpolation": "bilinear", "mean": (0.5, 0.5, 0.5),
             "std": (0.25, 0.25, 0.25)},
        ),
        ({"size": {"height": 16, "width": 16}, "do_center_crop": False}, {"resize_mode": "squash"}),
        ({"size": 16, "crop_size": 16}, {"resize_mode": "shortest"}),
    ],
)  # fmt: skip
def test_preprocessing(tmp_path: Path, file: dict[str, Any], expected: dict[str, Any]) -> None:
    folder = write(tmp_path / "hf", config(), preprocessor_config=file)
    preprocess = models.create(str(folder)).preprocess
    assert preprocess.size == 16
    for name, value in expected.items():
        assert getattr(preprocess, name) == value


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(cfg: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            cfg = cfg[parent]
        cfg[name] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "files", "message"),
    [
        (change("model_type", "blip"), {}, "model_type='blip' is not read; use one of 'clip' or"),
        (change("model_type", "siglip2"), {}, "that is a NaFlex model.*use the FixRes one"),
        (change("text_config.hidden_act", "relu"), {}, "hidden_act='relu' is not known"),
        (change("text_config.hidden_act", "gelu"), {}, "the towers differ in hidden_act"),
        (change("text_config.vocab_size", 21128), {}, "vocab_size=21128"),
        (change("vision_config.num_channels", 1), {}, "num_channels=1"),
        (
            lambda cfg: None,
            {"tokenizer_config": {"tokenizer_class": "BertTokenizer"}},
            "tokenizer_class='BertTokenizer'",
        ),
        (lambda cfg: None, {"preprocessor_config": {"size": 20}}, "size=20, crop_size=16"),
        (
            lambda cfg: None,
            {"preprocessor_config": {"size": {"shortest_edge": 16}, "do_center_crop": False}},
            "does not make images of 16 x 16",
        ),
        (lambda cfg: None, {"preprocessor_config": {"do_normalize": False}}, "do_normalize"),
        (lambda cfg: None, {"preprocessor_config": {"resample": 0}}, "resample=0"),
    ],
)
def test_what_open_clip_cannot_be(
    tmp_path: Path,
    apply: Callable[[dict[str, Any]], None],
    files: dict[str, Any],
    message: str,
) -> None:
    cfg = config()
    folder = write(tmp_path / "hf", cfg, **files)
    apply(cfg)
    (folder / "config.json").write_text(json.dumps(cfg))
    with pytest.raises(ClicError, match=message) as caught:
        models.create(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("visual_projection.weight", None, "could not be built.*visual.proj"),
        ("text_model.encoder.layers.1.self_attn.k_proj.bias", None, "k_proj of .* is missing"),
        ("logit_scale", "logit_scales", "'logit_scales' is not one of CLIP's"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, name: str, new: str | None, message: str) -> None:
    folder = write(tmp_path / "hf", config())
    tensors = formula_weights(config())
    value = tensors.pop(name)
    if new is not None:
        tensors[new] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        models.create(str(folder))


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", config())
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        models.create(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        models.create(str(folder))


def test_shards_stay_in_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", config())
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"logit_scale": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside the folder"):
        models.create(str(folder))


def test_a_folder_of_neither_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"open_clip folder, or a CLIP folder of Hugging Face's"):
        models.create(f"local-dir:{tmp_path}")


# --- patching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EXPECTED)
def test_a_folder_is_patched_with_the_same_model_in_either_format(
    tmp_path: Path, case: tuple[str, int, float]
) -> None:
    theirs = write(tmp_path / "hf", config(*case))
    ours = models.save(models.create(str(theirs)), tmp_path / "ours")
    for number, (base, tuned) in enumerate(((theirs, ours), (ours, theirs), (theirs, theirs))):
        out = clic.patch(base, tuned, alpha=0.5, out=tmp_path / str(number))
        weights = (out / runs.OPEN_CLIP_WEIGHTS).read_bytes()
        assert weights == (ours / runs.OPEN_CLIP_WEIGHTS).read_bytes()


def test_settings_left_out_are_their_defaults_to_patching(tmp_path: Path) -> None:
    theirs = write(tmp_path / "hf", config("gelu"))
    ours = models.save(models.create(str(theirs)), tmp_path / "ours")
    file = ours / runs.OPEN_CLIP_CONFIG
    shortest = json.loads(file.read_text())
    assert shortest["model_cfg"].pop("quick_gelu") is False
    assert shortest["model_cfg"]["text_cfg"].pop("mlp_ratio") == 4.0
    assert shortest["model_cfg"]["text_cfg"].pop("vocab_size") == 49408
    file.write_text(json.dumps(shortest))
    clic.patch(theirs, ours, alpha=0.5, out=tmp_path / "out")
    quick = write(tmp_path / "quick", config("quick_gelu"))
    with pytest.raises(ModelError, match=r"quick_gelu \(True against False\)"):
        clic.patch(quick, ours, alpha=0.5, out=tmp_path / "other")


def test_ratios_that_give_the_same_width_are_the_same_architecture() -> None:
    one = {"vision_cfg": {"width": 1408, "mlp_ratio": 4.3637}, "text_cfg": {}}
    two = {"vision_cfg": {"width": 1408, "mlp_ratio": 6144 / 1408}, "text_cfg": {}}
    wider = {"vision_cfg": {"width": 1408, "mlp_ratio": 4.5}, "text_cfg": {}}
    assert models.filled(one) == models.filled(two) != models.filled(wider)
