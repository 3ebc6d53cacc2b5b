"""Numbers that go wrong: steps that are skipped, and weights that are never saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from clic import models
from clic.config.train_settings import Config
from clic.errors import ModelError
from clic.training import Trainer, TrainingError
from clic.training.metrics_log import MetricsLog, read
from clic.types import Batch


def spoil(run: Any, steps: range | list[int], value: float = math.nan) -> Iterator[Batch]:
    """Yield the batches; in some steps one gradient is not finite, though the loss is."""
    weight = run.clip.model.ln_final.weight
    for batch in run.batches():
        hook = weight.register_hook(lambda grad: torch.full_like(grad, value))
        if batch.step not in steps:
            hook.remove()
        yield batch
        hook.remove()


def is_finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("words", [(), ("optim.grad_clip=1.0",), ("model.train=both",)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted(
    setup: Callable[..., Any], value: float, words: tuple[str, ...], scaled: bool
) -> None:
    """In the step of a save, between two of them, and in the last one."""
    run = setup("train.save_every=2", "train.log_every=2", *words)
    if scaled:
        run.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    kept: list[dict[str, torch.Tensor]] = []
    log = MetricsLog(run.log_path, 0, 6)
    models.set_mode(run.clip.model, run.trainer.trained)
    run.trainer.fit(spoil(run, [1, 2, 5], value), log, lambda s: kept.append(run.weights()))
    log.close()
    assert [record["skipped_steps"] for record in read(run.log_path)] == [1, 1, 1]
    assert "NaN" not in run.log_path.read_text() and "Infinity" not in run.log_path.read_text()
    assert len(kept) == 2 and all(map(is_finite, [*kept, run.weights()]))


def test_a_skipped_step_leaves_the_statistics_of_batch_norm_as_they_were(
    setup: Callable[..., Any],
) -> None:
    """Its forward pass has made NaNs of them, which no later step would mend."""
    run = setup("model.train=both")
    models.set_mode(run.clip.model, run.trainer.trained)
    buffers = dict(run.clip.model.visual.named_buffers())
    assert any(name.endswith("running_var") for name in buffers)
    before: dict[str, torch.Tensor] = {}
    for batch in run.batches():
        if batch.step == 1:
            before = {name: value.clone() for name, value in buffers.items()}
            batch = dataclasses.replace(batch, std=(math.nan,) * 3)
        skipped = run.trainer.step(batch)["skipped_steps"]
        assert skipped == (batch.step == 1)
        same = [torch.equal(buffers[name], value) for name, value in before.items()]
        if batch.step == 1:
            assert all(same)
        elif before:
            assert not any(same)  # later steps move them
    assert is_finite(run.weights())


def test_a_skipped_step_leaves_weights_and_moments_as_they_were(
    setup: Callable[..., Any],
) -> None:
    run = setup()
    batches = spoil(run, [1])
    models.set_mode(run.clip.model, run.trainer.trained)
    run.trainer.step(next(batches))
    before, moments = run.weights(), run.trainer.state().optimizer["state"]
    moments = {n: {k: v.clone() for k, v in m.items()} for n, m in moments.items()}
    run.trainer.step(next(batches))
    after = run.trainer.state().optimizer["state"]
    assert all(torch.equal(before[name], value) for name, value in run.weights().items())
    assert all(torch.equal(after[n][k], v) for n, m in moments.items() for k, v in m.items())


@pytest.mark.parametrize(
    ("most", "steps", "ends"),
    [
        (2, [1, 2, 3], "3 steps in a row were skipped, the last of them step 4"),
        (2, [1, 2, 4, 5], None),
        (0, [3], "1 steps in a row were skipped, the last of them step 4"),
        (20, range(6), "6 steps in a row were skipped, the last of them step 6"),
        (20, range(1, 6), None),
    ],
)
def test_too_many_skipped_steps_in_a_row_end_the_run(
    setup: Callable[..., Any], most: int, steps: range | list[int], ends: str | None
) -> None:
    """As does a run of which every step was skipped, however short it is."""
    run = setup(f"train.max_skipped={most}", "train.log_every=6", "train.save_every=2")
    if ends is None:
        run.fit(spoil(run, steps))
        assert run.trainer.done == 6
    else:
        with pytest.raises(TrainingError, match=rf"{ends}.*max_skipped={most}.*optim\.lr"):
            run.fit(spoil(run, steps))
    assert is_finite(run.weights())


def test_weights_that_are_not_finite_are_never_saved(setup: Callable[..., Any]) -> None:
    """However they came to be: here, by a rate at which a finite gradient is too much."""
    for words in (("train.save_every=1",), ("train.save_every=0", "train.log_every=100")):
        run = setup("optim.lr=1e39", "optim.schedule=constant", *words, steps=1 if words[1:] else 6)
        with pytest.raises(TrainingError, match=r"weights are not finite \(.*\) by step 1"):
            run.fit()
        assert run.saved == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_starting_weights_that_are_not_finite_are_named(
    settings: Callable[..., Config], value: float
) -> None:
    config = settings()
    clip = models.create(config.model.name)
    with torch.no_grad():
        clip.model.ln_final.bias[0] = value
    message = r"model\.name=.* weights are not finite \(ln_final\.bias\) as loaded"
    with pytest.raises(ModelError, match=message):
        Trainer(config, clip, 2)


def broken(run: Any, at: int) -> Iterator[Batch]:
    for batch in run.batches():
        if batch.step == at:
            batch.std = (float("nan"),) * 3
        yield batch


def test_a_loss_that_is_not_finite_ends_a_run_that_may_skip_nothing(
    setup: Callable[..., Any],
) -> None:
    run = setup("train.max_skipped=0")
    with pytest.raises(TrainingError, match=r"the last of them step 3 \(.*optim\.lr") as ended:
        run.fit(broken(run, 2))
    keys = [key for row in run.builder.build(2).keys for key in row]
    assert f"(samples {', '.join(keys[:8])}" in str(ended.value)
    assert all(word in str(ended.value) for word in ("train.precision", "clic-data verify"))
    assert [r["step"] for r in read(run.log_path)] == [1, 2]


def test_no_checkpoint_is_made_after_too_many_skipped_steps(setup: Callable[..., Any]) -> None:
    run = setup("train.log_every=100", "train.save_every=2", "train.max_skipped=0")
    with pytest.raises(TrainingError, match="the last of them step 3"):
        run.fit(broken(run, 2))
    assert run.saved == [2]


@pytest.mark.parametrize("every", [1, 2, 6])
def test_a_step_whose_loss_is_not_finite_is_skipped_and_left_out_of_the_means(
    setup: Callable[..., Any], every: int
) -> None:
    """Training goes on past the batch, so a run that is continued is not stuck at it either."""
    words = (f"train.log_every={every}", "train.save_every=3", "optim.grad_clip=1.0")
    run = setup(*words)
    records = run.fit(broken(run, 2))
    assert run.saved == [3] and run.trainer.done == 6 and is_finite(run.weights())
    assert sum(record["skipped_steps"] for record in records) == 1
    assert "NaN" not in run.log_path.read_text() and "Infinity" not in run.log_path.read_text()
    alone = setup(*words)  # the steps one by one
    models.set_mode(alone.clip.model, alone.trainer.trained)
    reports = [alone.trainer.step(batch) for batch in broken(alone, 2)]
    for record in records:
        part = range(record["step"] - every, record["step"])
        losses = [float(reports[step]["loss"]) for step in part if step != 2]
        assert ("loss" in record) == ("grad_norm" in record) == bool(losses)
        if losses:
            assert record["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_skipped_though_its_gradients_are(
    setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    run = setup()
    forward = run.trainer.passes.losses.forward

    def shifted(*inputs: Any) -> Any:
        output = forward(*inputs)
        return dataclasses.replace(output, total=output.total + value)

    monkeypatch.setattr(run.trainer.passes.losses, "forward", shifted)
    before = run.weights()
    report = run.trainer.step(run.builder.build(0))
    assert report["skipped_steps"] == 1
    trained = [name for name, p in run.clip.model.named_parameters() if p.requires_grad]
    assert all(torch.equal(before[name], run.weights()[name]) for name in trained)
