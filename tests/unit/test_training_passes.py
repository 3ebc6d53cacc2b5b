"""Chunks of a step: dropout drawn alike twice, frozen towers once, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clic import images, models
from clic.cli.train import compose
from clic.config.train_settings import Config, TrainConfig
from clic.data import make_builder, make_sources
from clic.errors import ConfigError
from clic.models import ClipModel
from clic.training import Trainer, optim, passes
from clic.training.passes import CachedPass, WholePass
from clic.training.strategy import DataParallel, OutOfMemoryError
from clic.types import Batch

VISION = {"layers": 2, "width": 16, "head_width": 8, "image_size": 32, "patch_size": 16}
CPU = torch.device("cpu")


@pytest.fixture
def start(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, settings: Callable[..., Config]
) -> Callable[..., tuple[Trainer, Callable[[int], Batch]]]:
    """Return what makes a trainer of a model without BatchNorm, and its batches of eight."""

    def make(*words: str) -> tuple[Trainer, Callable[[int], Batch]]:
        clip = build_tiny(tmp_path, vision_cfg=VISION)
        config = settings("train.batch_size=8", *words)
        trainer = Trainer(config, clip, 6)
        models.set_mode(clip.model, trainer.trained)
        return trainer, make_builder(config, make_sources(config), clip).build

    return make


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.clip.model.state_dict().items()}


def drop(trainer: Trainer) -> None:
    """Give the text tower a dropout behind its embeddings."""

    class Dropped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.dropout = inner, nn.Dropout(0.3)

        def forward(self, *words: Any, **named: Any) -> Tensor:
            return self.dropout(self.inner(*words, **named))

    model = trainer.clip.model
    model.ln_final = Dropped(model.ln_final)


@pytest.mark.parametrize("words", [(), ("model.train=both", "train.distill_weight=1.0")])
def test_steps_in_chunks_train_the_same_weights(start: Callable[..., Any], words: Any) -> None:
    words = (*words, "optim.lr=0.01", "optim.eps=1e-2", "model.train_logit_scale=true")
    found = []
    for size in ("null", "3"):
        trainer, build = start(*words, f"train.micro_batch={size}")
        assert isinstance(trainer.passes, WholePass if size == "null" else CachedPass)
        losses = [float(trainer.step(build(step))["loss"]) for step in range(4)]
        found.append((losses, weights(trainer)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, rtol=1e-4, atol=1e-5, msg=name)
    trainer, _ = start(*words)
    moved = [(found[0][1][n] - value).abs().max() for n, value in weights(trainer).items()]
    assert max(moved) > 1e-3


@pytest.mark.slow
def test_the_shapes_run_in_chunks_ends_with_the_same_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float64, so that what is left is rounding and nothing else.

    AdamW makes whole steps of the rounding where a gradient is zero, as that of the keys' bias is;
    in fp32, with gradients that are equal to 1e-6, these are seen in the weights.
    """
    monkeypatch.setattr(
        passes, "_pixels", lambda b: images.normalise(b.images, b.mean, b.std).double()
    )
    found: list[Tensor] = []
    for words in ([], ["train.micro_batch=12"]):
        config = compose(["train.device=cpu", "train.max_steps=36", *words])
        clip = models.create(config.model.name)
        trainer = Trainer(config, clip, 36)
        clip.model.double()
        build = make_builder(config, make_sources(config), clip).build
        models.set_mode(clip.model, trainer.trained)
        found = found or [nn.utils.parameters_to_vector(clip.model.parameters()).clone()]
        for step in range(36):
            trainer.step(build(step))
        assert isinstance(trainer.passes, CachedPass if words else WholePass)
        found.append(nn.utils.parameters_to_vector(clip.model.parameters()).detach())
    base, whole, chunks = found
    assert (whole - base).norm() > 1
    assert (chunks - whole).norm() <= 1e-9 * (whole - base).norm()


def test_reports_have_the_same_entries(start: Callable[..., Any]) -> None:
    reports = []
    for size in ("null", "3"):
        trainer, build = start(f"train.micro_batch={size}", "optim.grad_clip=1.0")
        reports.append(trainer.step(build(0)))
    assert reports[0].keys() == reports[1].keys()
    for name, value in reports[0].items():
        torch.testing.assert_close(reports[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_dropout_is_drawn_alike_both_times(start: Callable[..., Any]) -> None:
    trainer, build = start("train.micro_batch=3")
    drop(trainer)
    models.set_mode(trainer.clip.model, trainer.trained)
    seen: list[Tensor] = []
    of_texts = trainer.features.of_texts

    def watched(*words: Any) -> Tensor:
        seen.append(of_texts(*words))
        return seen[-1]

    trainer.features.of_texts = watched  # type: ignore[method-assign]
    trainer.step(build(0))
    first, again = seen[:3], seen[3:]
    assert len(again) == 3 and all(x.requires_grad for x in again)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[0][:2], first[2])  # other captions, and other draws
    expected = torch.rand(3)
    trainer.step(build(0))
    assert torch.equal(torch.rand(3), expected)  # a function of seed and step, as without chunks


def test_a_frozen_tower_is_encoded_once(start: Callable[..., Any]) -> None:
    trainer, build = start("train.micro_batch=3", "train.distill_weight=1.0")
    calls: list[int] = []
    trainer.clip.model.visual.conv1.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    trainer.step(build(0))
    assert calls == [3, 3, 2]


def test_no_more_rows_than_a_chunk_keep_a_graph(start: Callable[..., Any]) -> None:
    trainer, build = start("train.micro_batch=3", "model.train=both")
    kept: list[tuple[int, bool]] = []
    trainer.clip.model.visual.register_forward_hook(
        lambda m, i, o: kept.append((len(o), o.requires_grad))
    )
    trainer.step(build(0))
    assert kept == [(n, graph) for graph in (False, True) for n in (3, 3, 2)]


def test_a_loss_that_is_not_finite_is_skipped(start: Callable[..., Any]) -> None:
    trainer, build = start("train.micro_batch=3")
    before = weights(trainer)
    spoilt = dataclasses.replace(build(0), std=(float("nan"),) * 3)
    report = trainer.step(spoilt)
    assert report["skipped_steps"] == 1
    for name, value in weights(trainer).items():
        assert torch.equal(value, before[name])


def test_batch_norm_that_trains_is_refused(settings: Callable[..., Config], tiny: Path) -> None:
    config = settings("train.micro_batch=2", "model.train=both")
    message = r"train\.micro_batch=2 would change the statistics of visual\.bn1 \(BatchNorm\)"
    with pytest.raises(ConfigError, match=message):
        Trainer(config, models.create(str(tiny)), 2)
    config = settings("train.micro_batch=2", "model.train=text")  # frozen ones stay as they are
    Trainer(config, models.create(str(tiny)), 2)


@pytest.mark.parametrize(
    ("train", "remedy"),
    [
        (TrainConfig(batch_size=200), "train.micro_batch=100"),
        (TrainConfig(batch_size=200, micro_batch=25), "train.micro_batch=12"),
        (TrainConfig(batch_size=200, micro_batch=1), "model.grad_checkpointing=true"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_names_the_setting(
    train: TrainConfig, remedy: str, error: RuntimeError
) -> None:
    strategy = DataParallel(CPU, "fp32")
    with pytest.raises(OutOfMemoryError) as raised, strategy.naming_settings(train):
        raise error
    assert remedy in str(raised.value) and "train.batch_size=200" in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    with (
        pytest.raises(RuntimeError, match="shapes"),
        DataParallel(CPU, "fp32").naming_settings(TrainConfig()),
    ):
        raise RuntimeError("shapes")


@pytest.mark.parametrize("part", ["forward", "update"])
def test_a_step_without_memory_says_so(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """AdamW takes the memory of its moments in its first update."""
    trainer, build = start()

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    where = {"forward": (trainer.passes.losses, "forward"), "update": (optim, "step_if_finite")}
    monkeypatch.setattr(*where[part], full)
    with pytest.raises(OutOfMemoryError, match=r"train\.micro_batch=4"):
        trainer.step(build(0))


def test_the_values_that_are_named_end_in_a_step_that_fits(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, tiny_words: list[str]
) -> None:
    """32 rows of 1,024 patches keep about 400 MB for the backward pass."""
    vision = {**VISION, "width": 64, "image_size": 128, "patch_size": 4}
    folder = models.save(build_tiny(tmp_path / "cfg", vision_cfg=vision), tmp_path / "model")
    words = [word for word in tiny_words if not word.startswith(("model.name", "train.batch_size"))]
    words += [f"model.name={folder}", "train.batch_size=32", "model.train=both"]
    script = str(Path(__file__).with_name("step_in_little_memory.py"))
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tried"][:1] == [16] and found["loss"] > 0, found
    assert found["skipped_steps"] == 0


def test_rows_of_a_batch(start: Callable[..., Any]) -> None:
    _, build = start()
    batch = build(0)
    parts = [batch.rows(0, 3), batch.rows(3, 6), batch.rows(6, 9)]
    assert [len(part.images) for part in parts] == [3, 3, 2]
    for name, value in batch.tensors().items():
        assert torch.equal(torch.cat([part.tensors()[name] for part in parts]), value)
    assert [key for part in parts for key in part.keys] == batch.keys
    assert all(part.kind == batch.kind for part in parts)
