"""LoRA in each family of towers: what trains, what is saved, and how a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clic import models, runs
from clic.cli.train import compose
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.models import Adapters, ClipModel, set_trainable
from clic.training import train

pytest.importorskip("peft")

VISION = {"layers": 3, "width": 16, "head_width": 8, "image_size": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 3}
NATIVE = {"vision_cfg": VISION, "text_cfg": TEXT}
LAYERS = 3


@pytest.fixture
def clip(build_tiny: Callable[..., ClipModel], tmp_path: Path) -> Callable[[str], ClipModel]:
    def make(family: str) -> ClipModel:
        if family == "timm":
            vision = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 16}
            return build_tiny(tmp_path, vision_cfg=vision, text_cfg=TEXT)
        made = build_tiny(tmp_path, **NATIVE, custom_text=family != "native")
        if family == "bert":
            transformers = pytest.importorskip("transformers")
            from open_clip.hf_model import HFTextEncoder

            config = transformers.BertConfig(
                vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                num_attention_heads=2, max_position_embeddings=8,
            )  # fmt: skip
            made.model.text = HFTextEncoder("bert", 16, config, "cls_pooler", "linear")
        return made

    return make


def features(model: Any) -> torch.Tensor:
    torch.manual_seed(1)
    images, tokens = torch.randn(2, 3, 16, 16), torch.randint(1, 60, (2, 8))
    model.eval()
    return torch.cat([model.encode_image(images), model.encode_text(tokens)])


FAMILIES = ("native", "custom", "timm", "bert")
ADAPTED = {  # matrices of a layer that get adapters: text, vision
    "native": (3, 3), "custom": (3, 3), "timm": (3, 4), "bert": (6, 3),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapters_train_and_merging_gives_the_plain_model(
    clip: Callable[[str], ClipModel], family: str
) -> None:
    whole = clip(family)
    model = whole.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain_features = features(model)
    adapters = Adapters(model, {"text", "vision"}, rank=2, alpha=4.0)
    set_trainable(model, "lora:both", train_logit_scale=False)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert named and all(".lora_" in name for name in named)
    sides = [sum(n.startswith("visual.") == vision for n in named) for vision in (False, True)]
    layers = (LAYERS, len(model.visual.trunk.blocks) if family == "timm" else LAYERS)
    assert sides == [2 * n * k for n, k in zip(ADAPTED[family], layers, strict=True)]

    torch.testing.assert_close(features(model), plain_features, rtol=0, atol=0)
    assert all(torch.equal(adapters.plain(merge=False).state_dict()[n], v)
               for n, v in before.items())  # fmt: skip
    features(model).pow(3).sum().backward()
    assert all(parameter.grad is not None for parameter in named.values())
    with torch.no_grad():
        for name, parameter in named.items():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
    adapted = features(model)
    assert (adapted - plain_features).abs().max() > 1e-3
    with adapters.taken_out(whole):
        after = whole.model.state_dict()
        assert after.keys() == before.keys()
        torch.testing.assert_close(features(whole.model), adapted, rtol=1e-4, atol=1e-5)
    assert whole.model is model
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert len(changed) == len(named) // 2
    for name in changed:
        update = (after[name] - before[name]).double()
        assert torch.linalg.matrix_rank(update, rtol=1e-4) <= 2, name
    # Nothing of the model moved when it was merged, nor when it was run.
    assert all(torch.equal(adapters.plain(merge=False).state_dict()[n], v)
               for n, v in before.items())  # fmt: skip


def test_a_tower_without_linear_layers(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    resnet = build_tiny(tmp_path).model  # its pooling's attention comes after the layers
    with pytest.raises(ConfigError, match=r"lora:vision: the vision tower has no numbered layers"):
        Adapters(resnet, {"vision"}, rank=2, alpha=4.0)


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    validate(compose(["model.train=lora:text", "model.lora_rank=4"]))
    with pytest.raises(ConfigError, match=r"model\.lora_rank=4 has no effect with model\.train=te"):
        validate(compose(["model.lora_rank=4"]))
    monkeypatch.setattr("clic.config.checks.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.train=lora:text needs the package peft"):
        validate(compose(["model.train=lora:text"]))


# --- a run ---


@pytest.fixture
def weights(
    settings: Callable[..., Config], tmp_path: Path
) -> Callable[..., dict[str, torch.Tensor]]:
    """Return what trains a run of eight steps and gives its weights."""

    def run(name: str, *words: str) -> dict[str, torch.Tensor]:
        own = (
            "model.train=lora:text", "optim.lr=1e-2", "model.train_logit_scale=true",
            "train.save_every=3", "train.keep_checkpoints=0", f"train.run_name={name}",
        )  # fmt: skip
        path = train(settings("train.max_steps=8", *own, *words))
        return load_file(path / runs.MODEL / runs.OPEN_CLIP_WEIGHTS)

    return run


def test_a_run_saves_plain_folders_and_goes_on_exactly(
    weights: Callable[..., dict[str, torch.Tensor]], tiny: Path, tmp_path: Path
) -> None:
    base = load_file(tiny / runs.OPEN_CLIP_WEIGHTS)
    whole = weights("whole")
    assert whole.keys() == base.keys()
    changed = {name for name in base if not torch.equal(whole[name], base[name])}
    block = "transformer.resblocks.0."
    matrices = {f"{block}{n}" for n in ("attn.in_proj_weight", "mlp.c_fc.weight",
                                        "mlp.c_proj.weight")}  # fmt: skip
    assert changed == {*matrices, "logit_scale"}
    start = tmp_path / "runs" / "whole" / "checkpoints" / "step-000003"
    assert load_file(start / runs.OPEN_CLIP_WEIGHTS).keys() == base.keys()
    models.create(f"local-dir:{start}")  # as any other model
    again = weights("again", f"train.resume={start}")
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_with_an_average_an_evaluation_and_a_base(
    weights: Callable[..., dict[str, torch.Tensor]], tiny: Path, tmp_path: Path
) -> None:
    base = load_file(tiny / runs.OPEN_CLIP_WEIGHTS)
    found = weights("ema", "train.ema=0.5", "train.distill_weight=1.0")
    assert found.keys() == base.keys()
    assert not torch.equal(found["logit_scale"], base["logit_scale"])
    provenance = runs.read_provenance(tmp_path / "runs" / "ema")
    plain = models.create(f"local-dir:{tiny}")
    assert provenance["distilled_towards"] == models.weights_sha256(plain.model)
    assert provenance["started_from"]["weights_sha256"] == models.weights_sha256(plain.model)


def test_in_chunks_and_in_half_precision(
    weights: Callable[..., dict[str, torch.Tensor]], tiny: Path
) -> None:
    base = load_file(tiny / runs.OPEN_CLIP_WEIGHTS)
    found = weights("half", "train.precision=bf16", "train.micro_batch=2")
    name = "transformer.resblocks.0.attn.in_proj_weight"
    assert found[name].dtype == torch.float32 and not torch.equal(found[name], base[name])


def test_another_rank_is_refused(
    weights: Callable[..., dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    weights("one")
    start = tmp_path / "runs" / "one" / "checkpoints" / "step-000003"
    for words in (["model.lora_rank=3"], ["model.train=text"]):
        with pytest.raises(ConfigError, match=r"trained with another model\.train"):
            weights("two", f"train.resume={start}", *words)
