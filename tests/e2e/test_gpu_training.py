"""On CUDA: both half precisions train, save and resume; batches come from pinned memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models, runs
from clic.config.train_settings import Config
from clic.data import make_builder, make_loader, make_sources
from clic.models import encoder
from clic.training import Trainer, checkpoint, train
from clic.training.metrics_log import read

pytestmark = pytest.mark.gpu
WEIGHTS = Path(runs.MODEL) / runs.OPEN_CLIP_WEIGHTS


@pytest.fixture
def gpu(settings: Callable[..., Config]) -> Callable[..., Config]:
    words = ("train.device=cuda", "train.max_steps=6", "train.save_every=3")
    return lambda *more: settings(*words, *more)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16", "fp32"])
@pytest.mark.parametrize("part", ["text", "both"])
def test_precisions_train_and_resume(gpu: Callable[..., Config], precision: str, part: str) -> None:
    words = (f"train.precision={precision}", f"model.train={part}", "optim.grad_clip=1.0")
    whole = train(gpu(*words, "train.run_name=whole"))
    records = read(whole / runs.METRICS_FILE)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(r["loss"]) for r in records)
    assert all(r["peak_memory_gb"] > 0 for r in records)
    start = runs.complete_checkpoints(whole)[0]
    again = train(gpu(*words, "train.run_name=again", f"train.resume={start}"))
    for first, second in zip(records[3:], read(again / runs.METRICS_FILE), strict=True):
        assert second["step"] == first["step"]
        assert second["loss"] == pytest.approx(first["loss"], rel=0.02)


def test_the_scaler_is_kept(gpu: Callable[..., Config]) -> None:
    run = train(gpu("train.precision=fp16"))
    state = torch.load(runs.complete_checkpoints(run)[0] / checkpoint.STATE_FILE, weights_only=True)
    assert state["scaler"]["scale"] > 0


def test_automatic_precision_is_bf16_where_the_gpu_has_it(gpu: Callable[..., Config]) -> None:
    clip = models.create(gpu().model.name, device="cuda")
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert Trainer(gpu(), clip, 2).strategy.dtype == (torch.bfloat16 if native else torch.float16)


def test_the_first_loss_is_that_of_the_cpu(
    gpu: Callable[..., Config], settings: Callable[..., Config]
) -> None:
    losses = []
    for config in (gpu("train.precision=fp32", "train.tf32=false"), settings("train.max_steps=6")):
        losses.append(read(train(config) / runs.METRICS_FILE)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_compiled_towers_train_as_the_others(gpu: Callable[..., Config]) -> None:
    found = []
    for compiled in ("false", "true"):
        words = (f"train.compile={compiled}", f"train.run_name=compiled-{compiled}")
        found.append([r["loss"] for r in read(train(gpu(*words)) / runs.METRICS_FILE)])
    assert found[1] == pytest.approx(found[0], rel=0.02)


@pytest.mark.parametrize("tf32", [True, False])
def test_a_run_in_fp32_says_whether_it_used_tf32(gpu: Callable[..., Config], tf32: bool) -> None:
    run = train(gpu("train.precision=fp32", f"train.tf32={str(tf32).lower()}"))
    assert runs.read_provenance(run)["tf32"] is tf32


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned_and_the_same(settings: Callable[..., Config], workers: int) -> None:
    config = settings()
    clip: Any = models.create(config.model.name)
    builder = make_builder(config, make_sources(config), clip)
    for batch in make_loader(builder, 0, 3, workers, pin_memory=True):
        for name, tensor in batch.tensors().items():
            assert tensor.is_pinned(), name
        moved = batch.to(torch.device("cuda"))
        plain = builder.build(batch.step)
        assert (moved.kind, moved.keys) == (plain.kind, plain.keys)
        for name, tensor in plain.tensors().items():
            assert torch.equal(moved.tensors()[name].cpu(), tensor), name


def test_a_cpu_checkpoint_continues_on_the_gpu(
    gpu: Callable[..., Config], settings: Callable[..., Config]
) -> None:
    whole = train(settings("train.max_steps=6", "train.save_every=3", "train.run_name=cpu"))
    start = runs.complete_checkpoints(whole)[0]
    run = train(gpu("train.precision=fp32", f"train.resume={start}"))
    expected = read(whole / runs.METRICS_FILE)[3]["loss"]
    assert read(run / runs.METRICS_FILE)[0]["loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_encoding(tiny: Path, precision: str) -> None:
    images = [torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8).numpy() for _ in range(3)]
    slow = encoder.load(str(tiny), device="cpu")
    fast = encoder.load(str(tiny), device="cuda", precision=precision)
    assert fast.device.type == "cuda"
    for expected, found in (
        (slow.encode_image(images), fast.encode_image(images)),
        (slow.encode_text(["a dog"]), fast.encode_text(["a dog"])),
    ):
        assert found.device.type == "cpu" and found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=3e-2)
