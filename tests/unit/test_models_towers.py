"""Freezing and the forward pass of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic.errors import ConfigError
from clic.models import (
    ClipModel,
    FeatureExtractor,
    create,
    enable_grad_checkpointing,
    freeze,
    reached,
    set_mode,
    set_trainable,
)
from clic.types import Batch


@pytest.fixture
def clip(tiny: Path) -> ClipModel:
    return create(str(tiny))


@pytest.mark.parametrize("train_logit_scale", [True, False])
@pytest.mark.parametrize("train", ["text", "vision", "both"])
def test_what_trains(clip: ClipModel, train: str, train_logit_scale: bool) -> None:
    trained = set_trainable(clip.model, train, train_logit_scale)
    assert (trained.vision, trained.text) == (train != "text", train != "vision")
    for name, parameter in clip.model.named_parameters():
        if name.startswith("visual."):
            expected = train != "text"
        elif name == "logit_scale":
            expected = train != "vision" and train_logit_scale
        else:
            expected = train != "vision"
        assert parameter.requires_grad == expected, name


def test_logit_bias_goes_with_logit_scale(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    model = build_tiny(tmp_path, init_logit_bias=-10.0).model
    for train_logit_scale in (False, True):
        set_trainable(model, "text", train_logit_scale)
        assert model.logit_bias.requires_grad == train_logit_scale


def test_setting_twice_does_not_add_up(clip: ClipModel) -> None:
    set_trainable(clip.model, "vision", True)
    set_trainable(clip.model, "both", True)
    assert all(p.requires_grad for p in clip.model.parameters())


def test_an_unknown_part_is_named(clip: ClipModel) -> None:
    with pytest.raises(ConfigError, match=r"model\.train='txt' is not known; did you mean 'text'"):
        set_trainable(clip.model, "txt", True)


def forward(clip: ClipModel, train: str, **arguments: Any) -> Any:
    trained = set_trainable(clip.model, train, True)
    set_mode(clip.model, trained)
    extractor = FeatureExtractor(clip.model, trained)
    torch.manual_seed(0)
    images = torch.randn(3, 3, 32, 32)
    positives = clip.tokenizer(["a", "b c", "d", "e f g", "h", "i"]).view(3, 2, -1)
    return extractor(images, positives, **arguments)


@pytest.mark.parametrize(("train", "moves"), [("text", False), ("vision", True), ("both", True)])
def test_statistics_of_a_frozen_batch_norm_do_not_move(
    clip: ClipModel, train: str, moves: bool
) -> None:
    before = clip.model.visual.bn1.running_mean.clone()
    forward(clip, train)
    assert torch.equal(before, clip.model.visual.bn1.running_mean) != moves


@pytest.mark.parametrize("train", ["text", "vision", "both"])
def test_only_trained_towers_keep_a_graph(clip: ClipModel, train: str) -> None:
    features = forward(clip, train)
    assert features.image_features.requires_grad == (train != "text")
    assert features.positive_features.requires_grad == (train != "vision")
    assert features.logit_scale.requires_grad == (train != "vision")


@pytest.mark.parametrize("train", ["text", "vision"])
def test_a_frozen_tower_keeps_no_graph_whatever_its_parameters_ask_for(
    clip: ClipModel, train: str
) -> None:
    """Its activations would fill the memory for a gradient that nobody uses."""
    trained = set_trainable(clip.model, train, True)
    clip.model.requires_grad_(True).eval()
    extractor = FeatureExtractor(clip.model, trained)
    features = extractor(torch.zeros(1, 3, 32, 32), clip.tokenizer(["a"]).view(1, 1, -1))
    assert features.image_features.requires_grad == (train == "vision")
    assert features.positive_features.requires_grad == (train == "text")


def test_what_a_loss_reaches(clip: ClipModel) -> None:
    extractor = FeatureExtractor(clip.model.eval(), set_trainable(clip.model, "both", True))
    features = extractor(torch.zeros(1, 3, 32, 32), clip.tokenizer(["a"]).view(1, 1, -1))
    every = {name for name, _ in clip.model.named_parameters()}
    vision = {name for name in every if name.startswith("visual.")}
    assert reached(clip.model, features.image_features.sum() * 0) == vision
    assert reached(clip.model, features.positive_features.sum()) == every - vision - {"logit_scale"}
    assert reached(clip.model, features.logit_scale * 2) == {"logit_scale"}
    assert reached(clip.model, torch.ones(())) == set()


def test_what_is_frozen_is_named_as_briefly_as_possible(clip: ClipModel) -> None:
    model = clip.model
    set_trainable(model, "both", True)
    vision = [name for name, _ in model.named_parameters() if name.startswith("visual.")]
    assert freeze(model, [*vision, "logit_scale", "ln_final.bias"]) == [
        "logit_scale",
        "visual.*",
        "ln_final.bias",
    ]
    kept = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "ln_final.weight" in kept and not kept & {*vision, "logit_scale", "ln_final.bias"}
    assert freeze(model, vision) == []  # what was frozen before is no news


def test_features(clip: ClipModel) -> None:
    negatives = clip.tokenizer(["x", "y", "z"]).view(3, 1, -1)
    mask = torch.tensor([[True], [False], [True]])
    features = forward(clip, "text", negatives=negatives, negative_mask=mask)
    assert features.image_features.shape == (3, 16)
    assert features.positive_features.shape == (3, 2, 16)
    assert features.negative_features.shape == (3, 1, 16)
    assert features.negative_mask is mask and features.logit_bias is None
    for part in ("image_features", "positive_features", "negative_features"):
        norms = getattr(features, part).norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
    assert torch.equal(features.logit_scale, clip.model.logit_scale.exp())
    alone = clip.model.encode_text(clip.tokenizer(["e f g"]), normalize=True)[0]
    torch.testing.assert_close(features.positive_features[1, 1], alone)


def test_features_without_negatives(clip: ClipModel) -> None:
    features = forward(clip, "text")
    assert features.negative_features is None and features.negative_mask is None


def test_half_precision_features_are_normalised_in_fp32(clip: ClipModel) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = forward(clip, "both")
    for part in (features.image_features, features.positive_features):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(part.shape[:-1]))


def test_recomputed_activations_give_the_same_gradients(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    vision = {"layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 16}
    clip = build_tiny(tmp_path, vision_cfg=vision)
    found = []
    for recompute in (False, True):
        if recompute:
            enable_grad_checkpointing(clip.model)
        clip.model.zero_grad()
        features = forward(clip, "both")
        (features.image_features.sum() + features.positive_features.sum()).backward()
        found.append({n: p.grad for n, p in clip.model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_tower_that_cannot_recompute_is_named() -> None:
    class Stubborn(torch.nn.Module):
        def set_grad_checkpointing(self, enable: bool) -> None:
            raise AssertionError("not supported")

    with pytest.raises(ConfigError, match=r"model\.grad_checkpointing=true: .*set false"):
        enable_grad_checkpointing(Stubborn())


@pytest.mark.parametrize("with_negatives", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_a_batch_is_cut_behind_its_longest_caption(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, causal: bool, with_negatives: bool
) -> None:
    """Before it goes to the GPU, which then need not be asked; features stay the same."""
    text = {"context_length": 34, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    custom = {"text_cfg": {**text, "no_causal_mask": True}, "custom_text": True}
    clip = build_tiny(tmp_path, **({} if causal else custom))
    extractor = FeatureExtractor(clip.model, set_trainable(clip.model, "text", True))
    negatives = clip.tokenizer(["a dog and two cats", "a"]).view(2, 1, -1)
    batch = Batch(
        images=torch.zeros(2, 32, 32, 3, dtype=torch.uint8),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        positives=clip.tokenizer(["a", "b c", "d", "e f g"]).view(2, 2, -1),
        negatives=negatives if with_negatives else None,
        negative_mask=None,
        kind="composite",
        step=0,
    )
    cut = extractor.planner(plans=False)(batch)
    longest = (7 if with_negatives else 5) if causal else 34
    assert cut.positives.shape == (2, 2, longest)
    clip.model.eval()
    pixels = torch.zeros(2, 3, 32, 32)
    whole = extractor(pixels, batch.positives, batch.negatives)
    trimmed = extractor(pixels, cut.positives, cut.negatives)
    torch.testing.assert_close(trimmed.positive_features, whole.positive_features)
    if with_negatives:
        assert cut.negatives is not None and cut.negatives.shape == (2, 1, longest)
        torch.testing.assert_close(trimmed.negative_features, whole.negative_features)
    else:
        assert cut.negatives is None
