"""The last layers of a tower: which parameters they are in each family, and what they run in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic.errors import ConfigError
from clic.models import ClipModel, FeatureExtractor, reached, set_mode, set_trainable, towers_of
from clic.parts import Trained, parse

VISION = {"layers": 3, "width": 16, "head_width": 8, "image_size": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 3}
NATIVE = {"vision_cfg": VISION, "text_cfg": TEXT}


@pytest.fixture
def build(build_tiny: Callable[..., ClipModel], tmp_path: Path) -> Callable[..., Any]:
    """Return what builds the module of a family."""

    def make(family: str) -> Any:
        if family == "custom" or family.startswith("bert"):
            model = build_tiny(tmp_path, **NATIVE, custom_text=True).model
            if family != "custom":
                pytest.importorskip("transformers")
                model.text = bert(family.removeprefix("bert-"))
            return model
        if family == "timm":
            vision = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 32}
            return build_tiny(tmp_path, vision_cfg=vision, text_cfg=TEXT).model
        return build_tiny(tmp_path, **(NATIVE if family == "native" else {})).model

    return make


def bert(kind: str) -> Any:
    """Return a Hugging Face text tower of three layers."""
    import transformers
    from open_clip.hf_model import HFTextEncoder

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3}
    if kind == "modern":
        config = transformers.ModernBertConfig(**sizes, num_attention_heads=2, pad_token_id=0)
    else:
        config = transformers.BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=8)
    from open_clip import hf_configs

    hf_configs.arch_dict.setdefault("modernbert", hf_configs.arch_dict["bert"])
    return HFTextEncoder("bert", 16, config, "cls_pooler", "linear")


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def starting(model: Any, prefixes: Iterable[str]) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes))}


# --- the names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("text", Trained(vision=False, text=True)),
        ("both", Trained(vision=True, text=True)),
        ("vision+text", Trained(vision=True, text=True)),
        ("text.last:4", Trained(vision=False, text=True, last={"text": 4})),
        ("text.last:12+vision", Trained(vision=True, text=True, last={"text": 12})),
        (
            "vision.last:2+text.last:1",
            Trained(vision=True, text=True, last={"vision": 2, "text": 1}),
        ),
        ("lora:text", Trained(vision=False, text=True, lora=frozenset({"text"}))),
        (
            "lora:both",
            Trained(vision=True, text=True, lora=frozenset({"text", "vision"})),
        ),
        (
            "lora:text+vision.last:1",
            Trained(vision=True, text=True, last={"vision": 1}, lora=frozenset({"text"})),
        ),
        ("re:a+b", Trained(vision=True, text=True, pattern="a+b")),
        ("text.last:1+re:ln", Trained(vision=True, text=True, last={"text": 1}, pattern="ln")),
    ],
)
def test_what_a_setting_names(words: str, expected: Trained) -> None:
    assert parse(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("txt", r"model\.train='txt' is not known; did you mean 'text'"),
        ("text.last", r"is not known; did you mean 'text\.last:N'"),
        ("text.last:x", "is not known"),
        ("text.last:-1", "is not known"),
        ("text+visoin", r"\(in 'visoin'\); did you mean 'vision'"),
        ("text.last:0", "text.last:0 trains no layer; name 1 or more"),
        ("both+text.last:1", "names the text tower twice"),
        ("text+text", "names the text tower twice"),
        ("", r"model\.train='' is not known"),
        ("text+", r"\(in ''\)"),
        ("lora:txt", r"is not known; did you mean 'lora:text'"),
        ("lora:text.last:2", "is not known"),
        ("text+lora:text", "names the text tower twice"),
        ("re:", "re: needs a pattern"),
        ("re:(", r"'\(' is no regular expression"),
    ],
)
def test_what_no_setting_names(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(words)


# --- the layers ----------------------------------------------------------------------------------

ENDS = {
    "native": (
        ["transformer.resblocks.2.", "ln_final.", "text_projection"],
        ["visual.transformer.resblocks.2.", "visual.ln_post.", "visual.proj"],
    ),
    "custom": (
        ["text.transformer.resblocks.2.", "text.ln_final.", "text.text_projection"],
        ["visual.transformer.resblocks.2.", "visual.ln_post.", "visual.proj"],
    ),
    "timm": (
        ["transformer.resblocks.2.", "ln_final.", "text_projection"],
        ["visual.trunk.blocks.5.", "visual.trunk.norm.", "visual.trunk.fc_norm.", "visual.head."],
    ),
    "resnet": (
        ["transformer.resblocks.0.", "ln_final.", "text_projection"],
        ["visual.layer4.", "visual.attnpool."],
    ),
    "bert-base": (
        ["text.transformer.encoder.layer.2.", "text.transformer.pooler.", "text.proj."],
        ["visual.transformer.resblocks.2.", "visual.ln_post.", "visual.proj"],
    ),
    "bert-modern": (
        ["text.transformer.layers.2.", "text.transformer.final_norm.", "text.proj."],
        ["visual.transformer.resblocks.2.", "visual.ln_post.", "visual.proj"],
    ),
}
"""The names below which the last layer of the text and vision towers lies, and what follows it."""


@pytest.mark.parametrize("family", ENDS)
def test_the_last_layer_trains_with_what_follows_it(build: Callable[..., Any], family: str) -> None:
    model = build(family)
    text, vision = (starting(model, prefixes) for prefixes in ENDS[family])
    set_trainable(model, "text.last:1", train_logit_scale=False)
    assert trained(model) == text
    set_trainable(model, "vision.last:1", train_logit_scale=True)
    assert trained(model) == vision
    set_trainable(model, "vision.last:1+text.last:1", train_logit_scale=True)
    assert trained(model) == text | vision | {"logit_scale"}


def test_every_further_layer_adds_itself(build: Callable[..., Any]) -> None:
    model = build("custom")
    for last in (1, 2, 3):
        set_trainable(model, f"text.last:{last}+vision", train_logit_scale=False)
        layers = [f"text.transformer.resblocks.{3 - number}." for number in range(1, last + 1)]
        ends = ["text.ln_final.", "text.text_projection", "visual."]
        assert trained(model) == starting(model, [*layers, *ends])


def test_embeddings_come_before_the_layers(build: Callable[..., Any]) -> None:
    found = towers_of(build("native"))
    first = {n for tower in found.values() for n, depth in tower.depths.items() if depth == 0}
    assert first == {
        "positional_embedding",
        "token_embedding.weight",
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.ln_pre.bias",
    }


def test_more_layers_than_there_are(build: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"text\.last:4: the text tower has 3 layers"):
        set_trainable(build("native"), "text.last:4", True)


def test_a_tower_without_layers(build: Callable[..., Any]) -> None:
    model = build("native")
    model.transformer = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"model\.train=text\.last:1 needs a text tower"):
        set_trainable(model, "text.last:1", True)
    set_trainable(model, "text", True)  # all of it needs no layers


# --- in use --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["native", "custom", "timm", "bert-base"])
def test_a_loss_reaches_exactly_the_last_layers(build: Callable[..., Any], family: str) -> None:
    model = build(family)
    which = set_trainable(model, "text.last:2+vision.last:1", train_logit_scale=False)
    size = 32 if family == "timm" else 16
    tokens = torch.randint(1, 63, (2, 1, 8))
    features = FeatureExtractor(model, which)(torch.randn(2, 3, size, size), tokens)
    loss = features.image_features.sum() + features.positive_features.sum()
    assert reached(model, loss) == trained(model)


def test_frozen_layers_of_a_trained_tower_do_not_drop(build: Callable[..., Any]) -> None:
    model = build("bert-base")
    set_mode(model, set_trainable(model, "text.last:1", True))
    layers = model.text.transformer.encoder.layer
    assert [layer.attention.self.dropout.training for layer in layers] == [False, False, True]
    assert not model.text.transformer.embeddings.dropout.training
    assert not any(module.training for module in model.visual.modules())
    set_mode(model, set_trainable(model, "text", True))
    assert all(module.training for module in model.text.modules())


def test_statistics_of_frozen_stages_do_not_move(build: Callable[..., Any]) -> None:
    model = build("resnet")
    which = set_trainable(model, "vision.last:1", True)
    set_mode(model, which)
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    FeatureExtractor(model, which).of_images(torch.randn(4, 3, 32, 32))
    moved = {name for name, value in model.named_buffers() if "running" in name
             and not torch.equal(before[name], value)}  # fmt: skip
    assert moved == {name for name in before if name.startswith("visual.layer4.")}


# --- by a pattern --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["native", "custom"])
def test_a_pattern_is_matched_with_the_towers_name(build: Callable[..., Any], family: str) -> None:
    model = build(family)
    found = set_trainable(model, "re:text.*ln", train_logit_scale=False)
    own = "text." if family == "custom" else ""
    assert trained(model) == {
        f"{own}{layer}.{what}"
        for layer in [*(f"transformer.resblocks.{n}.ln_{k}" for n in range(3) for k in (1, 2)),
                      "ln_final"]
        for what in ("weight", "bias")
    }  # fmt: skip
    assert (found.text, found.vision) == (True, False)
    set_mode(model, found)
    tower = model.text if family == "custom" else model
    block = tower.transformer.resblocks[0]
    assert block.ln_1.training and not block.mlp.training and not model.visual.training


def test_a_pattern_beside_other_parts(build: Callable[..., Any]) -> None:
    model = build("native")
    found = set_trainable(model, r"text.last:1+re:vision\..*bias$", train_logit_scale=True)
    ends = starting(model, ENDS["native"][0])
    biases = {n for n, _ in model.named_parameters() if n.startswith("visual.") and "bias" in n}
    assert trained(model) == ends | {n for n in biases if n.endswith("bias")} | {"logit_scale"}
    assert (found.text, found.vision) == (True, True)


def test_a_pattern_that_matches_nothing(build: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"no parameter's name holds 'lnn'; names are such as"):
        set_trainable(build("native"), "re:lnn", train_logit_scale=True)
