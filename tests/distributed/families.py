"""What each of two ranks does with every family of models; `forked.run_script` runs it."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clic import distributed, models
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.models import ClipModel
from clic.training.metrics_log import Averages, MetricsLog
from clic.training.trained_parts import check_trainable
from clic.training.trainer import Trainer
from clic.types import KINDS, Batch

sys.path.insert(0, str(Path(__file__).parents[1]))
import model_families

B, STEPS = 2, 3
LENGTH, VOCABULARY = 8, 64
VISION = {"layers": 1, "width": 16, "head_width": 8, "image_size": 16, "patch_size": 8}
TEXT = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 1}
LAST = {"no_causal_mask": True, "pool_type": "last"}
FAMILIES: dict[str, dict[str, Any]] = {
    "clip": {},
    "custom-text": {"custom_text": True},
    "hugging-face-text": {"custom_text": True},  # its tower comes in `build`
    "siglip": {"custom_text": True, "init_logit_bias": -10.0, "text_cfg": {**TEXT, **LAST}},
    "coca": {
        "custom_text": True,
        "vision_cfg": {**VISION, "attentional_pool": True, "output_tokens": True,
                       "attn_pooler_heads": 2},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "mlp_ratio": 2, "attn_pooler_heads": 2},
    },
    "timm-vision": {
        "vision_cfg": {"timm_model_name": "test_resnet", "timm_pool": "avg",
                       "timm_proj": "linear", "image_size": 32},
    },
}  # fmt: skip
OBJECTIVES: dict[str, dict[str, Any]] = {
    "clip": {"kinds": "single"},
    "softmax_negatives": {"kinds": "single", "single": "softmax_negatives"},
    "clic": {"kinds": "alternate"},
    "contrastive alone": {"hard_negative_weight": 0.0, "unimodal_weight": 0.0},
    "hard negatives alone": {"contrastive_weight": 0.0, "unimodal_weight": 0.0},
    "unimodal alone": {"contrastive_weight": 0.0, "hard_negative_weight": 0.0},
    "unimodal alone, then clip": {
        "contrastive_weight": 0.0,
        "hard_negative_weight": 0.0,
        "kinds": "alternate",
    },
}


def tokens(words: Tensor, vocabulary: int = VOCABULARY) -> Tensor:
    """Return token ids whose end comes before the last but one."""
    words[..., -2], words[..., -1] = vocabulary - 1, 0
    return words


def build(family: str, folder: Path) -> ClipModel:
    """Return a small random model, the same on every rank."""
    folder = folder / f"{family}-{distributed.rank()}"
    folder.mkdir()
    architecture = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT, **FAMILIES[family]}
    config = {"model_cfg": architecture, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    clip = replace(
        models.create(str(folder), None),
        tokenizer=lambda texts: tokens(torch.ones(len(texts), LENGTH, dtype=torch.int64)),
    )
    if family == "coca":  # open_clip leaves it as the memory was
        nn.init.normal_(clip.model.text_decoder.text_projection)
    models.write_files(clip, folder)  # a folder of a model holds weights
    if family == "custom-text":
        # As the pooling layer of BERT, which a tower that averages its tokens has and never calls.
        clip.model.text.pooler = nn.Linear(16, 16)
    if family == "hugging-face-text":
        from open_clip.hf_model import HFTextEncoder
        from transformers import BertConfig

        bert = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
        )
        clip.model.text = HFTextEncoder("bert", 16, bert, "mean_pooler", "linear")
    return clip


def settings(objective: str, train: str, clip: ClipModel) -> Config:
    config = Config()
    config.model.name, config.model.pretrained = clip.source.open_clip_name, None
    config.model.train = train
    config.train.batch_size, config.train.max_steps = B, STEPS
    config.train.device, config.train.save_every = "cpu", 0
    config.optim.lr, config.optim.schedule = 1e-3, "constant"
    config.sampling.kinds = "composite"
    config.captions.composite_positives = 2
    for name, value in OBJECTIVES[objective].items():
        setattr(config.sampling if name == "kinds" else config.loss, name, value)
    if config.loss.single == "softmax_negatives":
        config.captions.single_negative = "swap"
    if config.loss.hard_negative_weight == 0:
        config.captions.composite_negative = "none"
    return config


def batches(
    config: Config, clip: ClipModel, length: int = LENGTH, vocabulary: int = VOCABULARY
) -> Iterator[Batch]:
    """Yield this rank's random batches, with texts of `length` tokens."""
    size, schedule = clip.preprocess.size, config.sampling.kinds
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(10 * step + distributed.rank())
        kind = KINDS[step % 2] if schedule == "alternate" else schedule
        names = config.captions.negative_kinds(kind)  # type: ignore[arg-type]

        def texts(slots: int, generator: torch.Generator = generator) -> Tensor:
            words = torch.randint(1, vocabulary - 1, (B, slots, length), generator=generator)
            return tokens(words, vocabulary)

        yield Batch(
            images=torch.randint(0, 256, (B, size, size, 3), generator=generator).byte(),
            mean=clip.preprocess.mean,
            std=clip.preprocess.std,
            positives=texts(2 if kind == "composite" else 1),
            negatives=texts(len(names)) if names else None,
            # One rank has none: the number of negatives must not decide what is reached.
            negative_mask=torch.full((B, len(names)), distributed.is_main()) if names else None,
            kind=kind,  # type: ignore[arg-type]
            step=step,
            negative_kinds=names,
        )


def published(kind: str) -> ClipModel:
    """Return a small random model of a published kind, the same on every rank."""
    import open_clip
    from timm.models import _registry

    _registry._model_entrypoints.update(model_families.small_towers())
    name = model_families.alias(kind)
    small = model_families.shrunk(model_families.KINDS[kind])
    open_clip.factory._MODEL_CONFIGS[name] = small
    torch.manual_seed(0)
    return models.create(name, None)


def train(
    clip: ClipModel, objective: str, part: str, length: int = LENGTH, vocabulary: int = VOCABULARY
) -> dict[str, Any]:
    """Return what became of three steps, or why they were refused."""
    config = settings(objective, part, clip)
    try:
        check_trainable(config, distributed.world_size())
    except ConfigError as error:
        return {"refused": str(error)}
    clip = copy.deepcopy(clip)
    trainer = Trainer(config, clip, STEPS)
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    models.set_mode(clip.model, trainer.trained)
    given = batches(config, clip, length, vocabulary)
    losses = [float(trainer.step(batch)["loss"]) for batch in given]
    after = dict(clip.model.named_parameters())
    state = clip.model.state_dict()  # with what BatchNorm counts
    moved = [name for name, value in state.items() if not torch.equal(before[name], value)]
    return {
        "losses": losses,
        "moved": moved,
        "frozen": [name for name, value in after.items() if not value.requires_grad],
        "sum": float(sum(value.detach().double().sum() for value in after.values())),
    }


def skip(clip: ClipModel, spoilt: str) -> dict[str, Any]:
    """Return what came of it that rank 1 alone meets gradients, or a loss, that are not finite."""
    clip = copy.deepcopy(clip)
    config = settings("clip", "text", clip)
    trainer = Trainer(config, clip, STEPS)
    scale, sums, averages = clip.model.ln_final.weight, [], Averages()
    for batch in batches(config, clip):
        hook = None
        if batch.step == 1 and distributed.rank() == 1:
            if spoilt == "loss":
                batch.std = (math.nan,) * 3
            else:
                hook = scale.register_hook(lambda grad: grad * math.nan)
        averages.add(trainer.step(batch))
        if hook is not None:
            hook.remove()
        sums.append(float(sum(p.detach().double().sum() for p in clip.model.parameters())))
    return {"sums": sums, "read": trainer.skipped.read(), "means": averages.means()}


def stop(clip: ClipModel, folder: Path) -> dict[str, Any]:
    """Return where each rank stops when rank 1 alone is told to, and what dropout draws."""
    config = settings("clip", "text", clip)
    config.train.log_every = 100
    trainer = Trainer(config, copy.deepcopy(clip), STEPS)
    saved: list[int] = []
    draws: list[float] = []

    def told() -> Iterator[Batch]:
        for batch in batches(config, clip):
            if batch.step == 1 and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
            draws.append(float(torch.rand(())))

    log = MetricsLog(folder / "metrics.jsonl", 0, STEPS)
    try:
        trainer.fit(told(), log, lambda state: saved.append(state.step))
        ended = "by itself"
    except KeyboardInterrupt:
        ended = "stopped"
    finally:
        log.close()
    return {"ended": ended, "done": trainer.done, "saved": saved, "draws": draws}


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    for family in FAMILIES:
        if family == "hugging-face-text" and importlib.util.find_spec("transformers") is None:
            continue
        clip = build(family, folder)
        for objective in OBJECTIVES:
            for part in ("text", "vision", "both"):
                found[f"{family}/{objective}/{part}"] = train(clip, objective, part)
        if family == "clip":
            found["skip"] = {spoilt: skip(clip, spoilt) for spoilt in ("gradients", "loss")}
            found["stop"] = stop(clip, folder)
    for kind in model_families.KINDS:
        clip = published(kind)
        for part in ("text", "vision", "both"):
            found[f"{kind}/{part}"] = train(
                clip, "clic", part, clip.context_length, model_families.WORDS
            )
    (folder / f"rank-{distributed.rank()}.json").write_text(json.dumps(found))
