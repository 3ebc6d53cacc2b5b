"""Training with less text: features and gradients are those of the padded step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clic import models
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.models import ClipModel, FeatureExtractor, enable_grad_checkpointing, set_trainable
from clic.training import Trainer
from clic.types import Batch, Features, TextGroups, TextPacks

TEXT = {"context_length": 34, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
VISION = {"layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8}
LAST = {"no_causal_mask": True, "pool_type": "last"}
FAMILIES: dict[str, tuple[dict[str, Any], type | None]] = {
    "OpenAI": ({"text_cfg": TEXT, "quick_gelu": True}, TextPacks),
    "GELU": ({"text_cfg": TEXT}, TextPacks),
    "custom text, layer scale, linear projection": (
        {"text_cfg": {**TEXT, "ls_init_value": 0.3, "proj_bias": True}, "custom_text": True},
        TextPacks,
    ),
    "end-of-text id": ({"text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407}}, TextPacks),
    "causal, blocks of another make": ({"text_cfg": {**TEXT, "scale_heads": True}}, TextGroups),
    "CLIPA": ({"text_cfg": {**TEXT, **LAST}, "custom_text": True}, None),
    "SigLIP": (
        {"text_cfg": {**TEXT, **LAST, "proj_bias": True}, "custom_text": True,
         "init_logit_bias": -10.0},
        None,
    ),
    "timm vision": (
        {"text_cfg": TEXT,
         "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token",
                        "timm_proj": "linear", "image_size": 160}},
        TextPacks,
    ),
}  # fmt: skip
CAPTIONS = [
    "a red circle. a blue square.", "a blue square. a red circle.", "a red circle. a dog!",
    "two cats. a red circle left of a blue square.", "a red circle. a red circle.", "word " * 60,
    "a red circle. a blue square.", "", "a blue square.",
    *(f"{'a ' * (n % 5)}dog and {n} of {'many ' * (n % 7)}cats" for n in range(18)),
]  # fmt: skip
"""Enough for several packs, in which different numbers of texts end."""


@pytest.fixture
def make(build_tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., ClipModel]:
    def build(changes: dict[str, Any], dtype: torch.dtype = torch.float64) -> ClipModel:
        clip = build_tiny(tmp_path / "cfg", **{"vision_cfg": VISION, **changes})
        with torch.no_grad():  # weights that start at 0 or 1 would hide what is left out
            for parameter in clip.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        clip.model.to(dtype)
        return clip

    return build


def make_batch(clip: ClipModel) -> Batch:
    tokens = clip.tokenizer(CAPTIONS).view(3, 9, -1)
    return Batch(
        images=torch.zeros(3, 4, 4, 3, dtype=torch.uint8),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        positives=tokens[:, :2],
        negatives=tokens[:, 2:],
        negative_mask=None,
        kind="composite",
        step=0,
    )


def own_features(model: nn.Module, pixels: Tensor, batch: Batch) -> Features:
    """Return what the model itself gives, nothing left out."""
    images = nn.functional.normalize(model.encode_image(pixels).float(), dim=-1)
    texts = nn.functional.normalize(model.encode_text(batch.texts.flatten(0, 1)).float(), dim=-1)
    texts = texts.unflatten(0, batch.texts.shape[:2])
    return Features(images, texts[:, :2], model.logit_scale.exp(), texts[:, 2:])


def value_and_gradients(
    model: nn.Module, features: Callable[[], Features]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    model.zero_grad()
    found = features()
    parts = [found.image_features, found.positive_features, found.negative_features]
    torch.stack([part.double().sin().sum() for part in parts if part is not None]).sum().backward()
    named = model.named_parameters()
    gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
    return [part.detach() for part in parts if part is not None], gradients


def compare(
    clip: ClipModel, train: str, tolerance: float, dtype: torch.dtype, autocast: bool = False
) -> None:
    trained = set_trainable(clip.model, train, True)
    models.set_mode(clip.model, trained)
    extract, batch = FeatureExtractor(clip.model, trained), make_batch(clip)
    planned, size = extract.planner()(batch), clip.preprocess.size
    pixels = torch.randn(3, 3, size, size, dtype=dtype)

    def ours() -> Features:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return extract(pixels, planned.positives, planned.negatives, plan=planned.text_plan)

    def theirs() -> Features:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return own_features(clip.model, pixels, batch)

    (values, gradients), (expected, whole) = (
        value_and_gradients(clip.model, way) for way in (ours, theirs)
    )
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(
            value.double(), other.double(), rtol=0, atol=max(tolerance, 1e-6)
        )
    assert gradients.keys() == whole.keys() and gradients
    largest = max(float(gradient.norm()) for gradient in whole.values())
    for name, gradient in whole.items():
        away = float((gradients[name] - gradient).norm())
        assert away <= tolerance * max(float(gradient.norm()), 1e-2 * largest), name


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_features_and_gradients_are_those_of_the_padded_step(
    make: Callable[..., ClipModel], family: tuple[dict[str, Any], type | None]
) -> None:
    changes, kind = family
    clip = make(changes)
    plan = FeatureExtractor(clip.model, models.Trained(True, True)).planner()(make_batch(clip))
    assert type(plan.text_plan) is (kind or type(None))
    if isinstance(plan.text_plan, TextPacks):
        assert len(plan.text_plan.readers) > 1
        assert plan.text_plan.readers.numel() > len(CAPTIONS)  # some readers are none
    for train in ("text", "both", "text.last:1"):
        if "timm" in str(changes) and train == "both":
            continue  # its own forward, as it is
        compare(clip, train, 1e-6, torch.float64)  # the features themselves are in fp32


def test_in_single_precision(make: Callable[..., ClipModel]) -> None:
    compare(make(FAMILIES["OpenAI"][0], torch.float32), "text", 1e-5, torch.float32)


def test_under_autocast(make: Callable[..., ClipModel]) -> None:
    """Both round to eight bits at every product, so they agree to some of them."""
    clip = make(FAMILIES["OpenAI"][0], torch.float32)
    compare(clip, "both", 0.05, torch.float32, autocast=True)


def test_recomputed_activations(make: Callable[..., ClipModel]) -> None:
    clip = make(FAMILIES["OpenAI"][0])
    enable_grad_checkpointing(clip.model)
    calls: list[int] = []
    clip.model.transformer.resblocks[0].ln_1.register_forward_hook(lambda *_: calls.append(1))
    compare(clip, "text", 1e-6, torch.float64)
    assert len(calls) == 4  # forward and backward of both ways


def test_a_tower_of_transformers_is_grouped(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=12,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual, self.logit_scale = nn.Linear(2, 2), nn.Parameter(torch.ones(()))
            self.text = HFTextEncoder("bert", 16, config, "mean_pooler", "linear")

        def encode_text(self, tokens: Tensor) -> Tensor:
            return self.text(tokens)

    torch.manual_seed(0)
    model = Model().double()
    tokens = torch.randint(1, 50, (5, 2, 12))
    for number in range(10):
        tokens[number // 2, number % 2, 2 + number :] = 0
    extract = FeatureExtractor(model, models.Trained(False, True))
    blank = torch.zeros(5, 1, 1, 3, dtype=torch.uint8)
    batch = Batch(blank, (0.5,), (0.5,), tokens, None, None, "single", 0)
    planned = extract.planner()(batch)
    assert isinstance(planned.text_plan, TextGroups)
    assert [length for _, length in planned.text_plan.sizes] == [4, 7, 9, 11]
    found = []
    for texts, plan in ((planned.positives, planned.text_plan), (tokens, None)):
        model.zero_grad()
        features = extract.of_texts(texts, plan)
        features.sin().sum().backward()
        named = model.text.named_parameters()
        found.append((features.detach(), {n: p.grad for n, p in named if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-12)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(found[0][1][name], gradient, rtol=1e-8, atol=1e-12, msg=name)


# --- steps ---------------------------------------------------------------------------------------


@pytest.fixture
def train(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, settings: Callable[..., Config]
) -> Callable[..., tuple[list[float], dict[str, Tensor]]]:
    """Return what trains four steps and gives their losses and the weights."""

    def run(*words: str, vision_cfg: Any = VISION) -> tuple[list[float], dict[str, Tensor]]:
        own = build_tiny(tmp_path, vision_cfg=vision_cfg)
        config = settings("train.batch_size=8", "optim.lr=0.01", "optim.eps=1e-2", *words)
        trainer = Trainer(config, own, 4)
        models.set_mode(own.model, trainer.trained)
        build = make_builder(config, make_sources(config), own).build
        losses = [float(trainer.step(build(step))["loss"]) for step in range(4)]
        with trainer.result():
            return losses, {n: v.clone() for n, v in own.model.state_dict().items()}

    return run


@pytest.mark.parametrize(
    ("words", "tolerance"),
    [
        ((), 1e-5),
        (("train.micro_batch=3",), 1e-5),
        (("model.train=both", "train.distill_weight=1.0", "train.ema=0.5"), 1e-5),
        (("model.train=text.last:1", "train.distill_weight=1.0", "train.micro_batch=3"), 1e-5),
        (("train.precision=bf16",), 0.05),
    ],
    ids=["whole", "chunks", "distillation and average", "last layer in chunks", "bf16"],
)
def test_steps_train_the_same_weights(train: Any, words: tuple[str, ...], tolerance: float) -> None:
    packed, again, padded = (train(*words, *more) for more in ((), (), ("train.pack_texts=false",)))
    assert packed[0] == again[0]  # bit for bit
    assert all(torch.equal(value, again[1][name]) for name, value in packed[1].items())
    assert packed[0] == pytest.approx(padded[0], rel=tolerance)
    for name, value in padded[1].items():
        torch.testing.assert_close(packed[1][name], value, rtol=tolerance, atol=tolerance, msg=name)


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_of_images_is_that_of_the_padded_step(train: Any) -> None:
    """Captions draw nothing, packed or padded."""
    both = ("model.train=both",)
    vision = {**VISION, "patch_dropout": 0.5}
    packed, padded, whole = (
        train(*both, *words, vision_cfg=own)
        for words, own in (((), vision), (("train.pack_texts=false",), vision), ((), VISION))
    )
    assert packed[0] == pytest.approx(padded[0], rel=1e-5)
    assert packed[0] != pytest.approx(whole[0], rel=1e-3)  # it drops something
    for name, value in padded[1].items():
        torch.testing.assert_close(packed[1][name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_dropout_of_captions_has_the_same_mean_and_repeats_itself(
    make: Callable[..., ClipModel],
) -> None:
    """Masks are drawn for other positions, so one step's features are not those of padded ones."""
    clip = make(FAMILIES["OpenAI"][0], torch.float32)
    model, draws = clip.model, 600
    model.ln_final = nn.Sequential(model.ln_final, nn.Dropout(0.3))
    extract = FeatureExtractor(model, models.Trained(True, True))
    batch = extract.planner()(make_batch(clip))
    tokens = batch.texts.flatten(0, 1)
    ways = {
        "packed": lambda: extract._texts.planned(tokens, batch.text_plan),
        "padded": lambda: extract.encode_text(tokens),
    }
    means, errors, firsts = [], [], []
    with torch.no_grad():
        for way in ways.values():
            torch.manual_seed(0)
            found = torch.stack([way() for _ in range(draws)])
            torch.manual_seed(0)
            assert torch.equal(way(), found[0])
            firsts.append(found[0])
            means.append(found.mean(0))
            errors.append(found.var(0) / draws)
    assert not torch.allclose(*firsts, atol=1e-2)
    away = (means[0] - means[1]) / (errors[0] + errors[1]).sqrt()
    assert float(away.abs().max()) < 5  # of 432 numbers, in standard errors
