"""Small random models of the kinds of towers that training knows, and their gradients both ways.

`own_gradient` is what a model's own forward gives, with all padding; `gradient` is what the
training step makes of the same batch. The batch has captions of several lengths that begin alike.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from timm.models import _registry
from torch import Tensor
from torch.nn.functional import normalize

from clic import images, models
from clic.losses import ClicObjective
from clic.models import ClipModel, FeatureExtractor, LossModule, exporting
from clic.training import compiling, passes
from clic.training.passes import CachedPass, WholePass
from clic.training.strategy import DataParallel
from clic.types import Batch, Features

sys.path.insert(0, str(Path(__file__).parent / "unit"))
sys.path.insert(0, str(Path(__file__).parent))
import model_families
import tiny_siglip

ROWS, POSITIVES, NEGATIVES = 6, 2, 1
CHUNK = 4
STRATEGY = DataParallel(torch.device("cpu"), "fp32")
Gradients = dict[str, Tensor]


def build(kind: str, folder: Path) -> ClipModel:
    """Return a small model in float64 whose weights are all random, the same at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        clip = KINDS[kind](folder, patch)
    clip.model.double()
    stir(clip)
    return clip


def stir(clip: ClipModel) -> None:
    """Move every weight: those that start at 0 or 1 would hide what is left out."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in clip.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter)


def published(kind: str) -> Callable[[Path, pytest.MonkeyPatch], ClipModel]:
    """Return what builds a published kind of `model_families` with small towers."""

    def make(folder: Path, patch: pytest.MonkeyPatch) -> ClipModel:
        for name, entry in model_families.small_towers().items():
            patch.setitem(_registry._model_entrypoints, name, entry)
        name = model_families.alias(kind)
        small = model_families.shrunk(model_families.KINDS[kind])
        small["text_cfg"]["context_length"] = 16
        patch.setitem(open_clip.factory._MODEL_CONFIGS, name, small)
        return models.create(name, None)

    return make


def hugging_face_text(folder: Path, patch: pytest.MonkeyPatch) -> ClipModel:
    """Return CLIP with a text tower of transformers, whose features are means of tokens."""
    need_transformers()
    from open_clip.hf_model import HFTextEncoder
    from transformers import BertConfig

    clip = published("vitl14_336")(folder, patch)
    bert = BertConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    architecture = clip.source.architecture
    vision = open_clip.CLIPVisionCfg(**architecture["vision_cfg"])
    text = open_clip.CLIPTextCfg(**architecture["text_cfg"])
    model = open_clip.CustomTextCLIP(32, vision, text)
    model.text = HFTextEncoder("bert", 32, bert, "mean_pooler", "linear")
    model.text.transformer.pooler = None  # the trainer freezes it, since no loss reaches it
    return ClipModel(**{**vars(clip), "model": model})


def clip_folder(folder: Path, patch: pytest.MonkeyPatch) -> ClipModel:
    """Return what is read from a folder of transformers' CLIPModel."""
    need_transformers()
    clip = published("vitl14_336")(folder, patch)
    return models.create(str(exporting.export(clip, folder / "hf")))


def siglip_folder(folder: Path, patch: pytest.MonkeyPatch) -> ClipModel:
    """Return what is read from a folder of transformers' SiglipModel."""
    need_transformers()
    tiny_siglip.register(patch)
    tiny_siglip.write_tokenizer(folder)
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {
        "model_cfg": tiny_siglip.architecture(),
        "preprocess_cfg": {**statistics, "resize_mode": "squash", "interpolation": "bilinear"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    clip = models.create(str(folder), None)
    return models.create(str(exporting.export(clip, folder / "hf")))


def need_transformers() -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the package transformers")


KINDS: dict[str, Callable[[Path, pytest.MonkeyPatch], ClipModel]] = {
    "OpenAI": published("vitl14_336"),
    "SigLIP": published("siglip_b16"),
    "CLIPA": published("clipa_l14"),
    "timm": published("eva02_l14"),
    "Hugging Face text": hugging_face_text,
    "CLIPModel": clip_folder,
    "SiglipModel": siglip_folder,
}
WHOLE = {"SigLIP", "CLIPA", "SiglipModel"}
"""Kinds without a causal mask, whose feature depends on the padding: they read all of it."""
GROUPED = {"Hugging Face text"}
"""Kinds that are read in groups of similar length."""


def make_batch(clip: ClipModel, rank: int = 0, ranks: int = 1) -> Batch:
    """Return the random batch of all ranks, or the part of one of them."""
    generator = torch.Generator().manual_seed(2)
    tower: Any = getattr(clip.model, "text", clip.model)
    transformer = hasattr(tower, "config")
    words = tower.config.vocab_size if transformer else tower.token_embedding.num_embeddings
    length = 16 if transformer else len(tower.positional_embedding)
    slots = POSITIVES + NEGATIVES
    tokens = torch.randint(3, words - 1, (ROWS, 1, length), generator=generator)
    tokens = tokens.repeat(1, slots, 1)
    tokens[:, 1:, length // 4 :] = torch.randint(
        3, words - 1, tokens[:, 1:, length // 4 :].shape, generator=generator
    )
    for row in range(ROWS):
        for slot in range(slots):
            end = length // 4 + (row * slots + slot) % (length // 2)
            tokens[row, slot, end], tokens[row, slot, end + 1 :] = words - 1, 0
    size = clip.preprocess.size
    pixels = torch.randint(0, 256, (ROWS, size, size, 3), generator=generator).byte()
    mask = torch.ones(ROWS, NEGATIVES, dtype=torch.bool)
    mask[1] = False
    part = slice(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
    return Batch(
        images=pixels[part],
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        positives=tokens[part, :POSITIVES],
        negatives=tokens[part, POSITIVES:],
        negative_mask=mask[part],
        kind="composite",
        step=0,
    )


def own_gradient(clip: ClipModel, dtype: torch.dtype, train: str = "both") -> Gradients:
    """Return the gradient of CLIC's loss by the model's own forward, with nothing left out."""
    clip = copy.deepcopy(clip)
    model, data = clip.model.to(dtype), make_batch(clip)
    models.set_mode(model, models.set_trainable(model, train, True))
    pixels = images.normalise(data.images, data.mean, data.std).to(dtype)
    texts = normalize(model.encode_text(data.texts.flatten(0, 1)), dim=-1)
    texts = texts.unflatten(0, data.texts.shape[:2])
    features = Features(
        normalize(model.encode_image(pixels), dim=-1),
        texts[:, :POSITIVES],
        model.logit_scale.exp(),
        texts[:, POSITIVES:],
        data.negative_mask,
        getattr(model, "logit_bias", None),
    )
    ClicObjective()(features).total.backward()
    return found(clip)


def gradient(
    clip: ClipModel,
    dtype: torch.dtype,
    train: str = "both",
    *,
    pack: bool = True,
    size: int | None = None,
    compiler: str | None = None,
    data: Batch | None = None,
) -> Gradients:
    """Return the gradient of a training step, packed, in chunks of `size` rows, or compiled."""
    clip = copy.deepcopy(clip)
    model = clip.model.to(dtype)
    trained = models.set_trainable(model, train, True)
    models.set_mode(model, trained)
    losses = LossModule(FeatureExtractor(model, trained), {"composite": ClicObjective()})
    batch = losses.features.planner(size, pack)(data or make_batch(clip))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            passes, "_pixels", lambda b: images.normalise(b.images, b.mean, b.std).to(dtype)
        )
        if compiler:
            patch.setattr(compiling, "COMPILER", {"backend": compiler})
            compiling.compile_towers(losses.features)
        one = CachedPass(losses, STRATEGY, size) if size else WholePass(losses, STRATEGY)
        one(batch, lambda loss: loss)
    return found(clip)


def found(clip: ClipModel) -> Gradients:
    return {n: p.grad for n, p in clip.model.named_parameters() if p.grad is not None}


def distance(own: Gradients, expected: Gradients) -> float:
    """Return the distance of two gradients of all parameters, relative to the norm of one."""
    assert own.keys() == expected.keys() and expected
    away = [(own[name].double() - value.double()).flatten() for name, value in expected.items()]
    whole = torch.cat([value.double().flatten() for value in expected.values()])
    return float(torch.cat(away).norm() / whole.norm())
