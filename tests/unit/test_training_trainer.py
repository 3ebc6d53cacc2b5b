"""The loop: what a step changes, and when it saves, evaluates and stops."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.training import Trainer
from clic.training.metrics_log import missing_negatives
from clic.training.strategy import stop_requests
from clic.types import Batch

CPU = torch.device("cpu")


# --- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["text", "vision", "both"])
def test_what_is_frozen_stays_bit_for_bit(setup: Callable[..., Any], train: str) -> None:
    run = setup(f"model.train={train}", "model.train_logit_scale=true")
    before = run.weights()
    run.fit()
    changed = {
        name for name, value in run.weights().items() if not torch.equal(before[name], value)
    }
    vision = {name for name in before if name.startswith("visual.")}
    statistics = {name for name in vision if "running" in name or "num_batches" in name}
    assert bool(changed & vision) == (train != "text")
    assert bool(changed & statistics) == (train != "text")
    assert bool(changed - vision) == (train != "vision")
    assert ("logit_scale" in changed) == (train != "vision")


def test_records_name_every_term(setup: Callable[..., Any]) -> None:
    first, second, *_ = setup("optim.grad_clip=1.0").fit()
    assert first["step"] == 1 and second["step"] == 2
    assert {
        "loss",
        "composite/contrastive",
        "composite/hard_negative",
        "composite/unimodal",
        "composite/no_negative",
        "lr",
        "logit_scale",
        "grad_norm",
        "images_per_second",
        "time",
    } <= first.keys()
    assert "single/contrastive" in second and "composite/unimodal" not in second


def test_records_name_every_kind_of_negatives(setup: Callable[..., Any]) -> None:
    run = setup("loss.negative_weights.layout=3.0", "train.log_every=2", steps=2)

    def batches() -> Iterator[Batch]:
        single_kind = run.builder.build(0)
        # Rows 0 and 1 have two negatives each; row 2 a swap, row 3 none; and another step none.
        mask = torch.tensor([[True, True], [True, True], [True, False], [False, False]])
        for step, here in enumerate((mask, torch.zeros_like(mask))):
            yield dataclasses.replace(
                single_kind,
                step=step,
                negatives=single_kind.positives[:, 1:3],
                negative_mask=here,
                negative_kinds=("swap", "layout"),
            )

    (record,) = run.fit(batches())
    assert record["composite/no_negative/swap"] == pytest.approx((1 / 4 + 1) / 2)
    assert record["composite/no_negative/layout"] == pytest.approx((2 / 4 + 1) / 2)
    assert "composite/no_negative" not in record
    # 3 swaps of weight 1 and 2 layout negatives of weight 3; the step without any is 0.
    swap, layout = (record[f"composite/hard_negative/{kind}"] for kind in ("swap", "layout"))
    assert swap > 0 and layout > 0
    expected = (3 * swap + 2 * 3 * layout) / (3 + 2 * 3)
    assert record["composite/hard_negative"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), {"composite/no_negative": 0.25}),
        (("swap",), {"composite/no_negative": 0.5}),
        (("swap", "swap"), {"composite/no_negative/swap": 0.25}),
    ],
    ids=["no names", "one kind", "two slots of one kind"],
)
def test_share_of_rows_without_a_negative(
    setup: Callable[..., Any], kinds: tuple[str, ...], expected: dict[str, float]
) -> None:
    mask = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
    batch = setup().builder.build(0)
    slots = len(kinds) or 2
    batch = dataclasses.replace(batch, negative_mask=mask[:, :slots], negative_kinds=kinds)
    assert missing_negatives(batch) == expected
    assert missing_negatives(dataclasses.replace(batch, negative_mask=None)) == {}


def test_intervals_are_averaged(setup: Callable[..., Any], tmp_path: Path) -> None:
    fine, coarse = setup().fit(), setup("train.log_every=4").fit()
    assert [r["step"] for r in coarse] == [4, 6]
    for record, part in zip(coarse, (fine[:4], fine[4:]), strict=True):
        mean = sum(r["loss"] for r in part) / len(part)
        assert record["loss"] == pytest.approx(mean, rel=1e-6)


def test_the_schedule_spans_the_run(setup: Callable[..., Any]) -> None:
    run = setup("optim.warmup_fraction=0.5", "optim.lr=0.01", steps=8)
    rates = [record["lr"] for record in run.fit()]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[4] == pytest.approx(0.01) and rates[7] < 0.002


def test_each_step_uses_the_rate_of_its_own_number(setup: Callable[..., Any]) -> None:
    """Token rows that no caption holds are moved by the decay alone, which the rate scales."""
    run = setup("optim.weight_decay=0.5", "optim.lr=0.4", "optim.warmup_fraction=0.5", steps=4)
    expected = run.clip.model.token_embedding.weight[40000].detach().clone()
    rates = [run.trainer.lr_at(step) for step in range(4)]
    assert rates[0] != rates[1] and rates[2] != rates[3]
    for step, rate in enumerate(rates):
        run.trainer.step(run.builder.build(step))
        expected *= 1 - rate * 0.5
        torch.testing.assert_close(run.clip.model.token_embedding.weight[40000], expected)


def test_the_record_has_the_rate_that_was_used(setup: Callable[..., Any]) -> None:
    run = setup("optim.warmup_fraction=0.5", steps=4)
    used: list[float] = []
    step = run.trainer.optimizer.step

    def watched() -> Any:
        used.append(run.trainer.optimizer.param_groups[0]["lr"])
        return step()

    run.trainer.optimizer.step = watched  # type: ignore[method-assign]
    assert [record["lr"] for record in run.fit()] == used
    assert used == [run.trainer.lr_at(number) for number in range(4)]


def test_only_matrices_decay(setup: Callable[..., Any]) -> None:
    run = setup("model.train=both", "model.train_logit_scale=true", "optim.weight_decay=0.3")
    decayed, plain = run.trainer.optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and plain["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in decayed["params"])
    names = {id(p): name for name, p in run.clip.model.named_parameters()}
    undecayed = {names[id(p)] for p in plain["params"]}
    assert "logit_scale" in undecayed and "ln_final.weight" in undecayed
    assert all(n in undecayed for n in names.values() if n.endswith("bias"))


def test_rates_of_layers_and_towers_are_those_of_the_steps(setup: Callable[..., Any]) -> None:
    """AdamW's first step is the rate itself, whatever the gradient."""
    words = (
        "model.train=both",
        "optim.weight_decay=0",
        "optim.schedule=constant",
        "optim.eps=1e-20",
    )
    run = setup(*words, "optim.lr=0.01", "optim.lr_vision=0.002", "optim.layer_decay=0.5")
    before = run.weights()
    run.trainer.step(run.builder.build(0))
    moved = {n: float((v - before[n]).abs().max()) for n, v in run.weights().items()}
    assert moved["text_projection"] == pytest.approx(0.01, rel=1e-3)
    assert moved["transformer.resblocks.0.mlp.c_fc.weight"] == pytest.approx(0.005, rel=1e-3)
    assert moved["token_embedding.weight"] == pytest.approx(0.0025, rel=1e-3)
    assert moved["visual.attnpool.c_proj.weight"] == pytest.approx(0.002, rel=1e-3)
    assert moved["visual.layer4.0.bn3.weight"] == pytest.approx(0.001, rel=1e-3)
    assert moved["visual.layer1.0.bn3.weight"] == pytest.approx(0.001 / 8, rel=1e-3)
    assert run.trainer.rate == 0.01


def test_only_the_last_layers_change(setup: Callable[..., Any]) -> None:
    run = setup("model.train=text.last:1", "model.train_logit_scale=true")
    before = run.weights()
    run.fit()
    changed = {n for n, value in run.weights().items() if not torch.equal(before[n], value)}
    kept = {n for n in before if n.startswith("visual.") or "embedding" in n or n == "attn_mask"}
    assert changed == before.keys() - kept


def test_decay_moves_a_matrix_without_gradient(setup: Callable[..., Any]) -> None:
    """Token rows that no caption holds get no gradient: what moves them is the decay alone."""
    run = setup("optim.weight_decay=0.5", "optim.lr=0.1", "optim.schedule=constant")
    before = run.clip.model.token_embedding.weight[40000].clone()
    run.trainer.step(run.builder.build(0))
    lr = run.trainer.optimizer.param_groups[0]["lr"]
    after = run.clip.model.token_embedding.weight[40000]
    torch.testing.assert_close(after, before * (1 - lr * 0.5))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model.train_logit_scale=true"], 100.0),
        (["model.train_logit_scale=true", "train.clamp_logit_scale=false"], 150.0),
        (["model.train_logit_scale=false"], 150.0),
    ],
    ids=["clamped", "not asked", "frozen"],
)
def test_logit_scale_is_clamped_on_the_parameter(
    setup: Callable[..., Any], words: list[str], expected: float
) -> None:
    run = setup(*words, "optim.lr=1e-9")
    with torch.no_grad():
        run.clip.model.logit_scale.fill_(math.log(150))
    run.trainer.step(run.builder.build(0))
    assert run.clip.model.logit_scale.exp().item() == pytest.approx(expected, rel=1e-4)


def test_logit_scale_is_clamped_from_below(setup: Callable[..., Any]) -> None:
    run = setup("model.train_logit_scale=true", "optim.lr=1e-9")
    with torch.no_grad():
        run.clip.model.logit_scale.fill_(-1)
    run.trainer.step(run.builder.build(0))
    assert run.clip.model.logit_scale.item() == 0


def test_sigmoid_models_keep_their_scale(
    settings: Callable[..., Config], build_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    clip = build_tiny(tmp_path / "cfg", init_logit_bias=-10.0, init_logit_scale=math.log(117))
    config = settings("model.train_logit_scale=true", "optim.lr=1e-9")
    trainer = Trainer(config, clip, 2)
    trainer.step(make_builder(config, make_sources(config), clip).build(0))
    assert clip.model.logit_scale.exp().item() == pytest.approx(117, rel=1e-4)


def test_gradients_are_clipped(setup: Callable[..., Any]) -> None:
    run = setup("optim.grad_clip=0.001")
    report = run.trainer.step(run.builder.build(0))
    assert report["grad_norm"] > 0.001
    gradients = [p.grad for p in run.clip.model.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    assert norm.item() == pytest.approx(0.001, rel=1e-3)


def test_dropout_differs_from_rank_to_rank(
    setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seeds = setup(), set()

    def keep(seed: int) -> None:
        seeds.add(seed)
        raise KeyError  # this is enough of the step

    monkeypatch.setattr("clic.seeding.seed_torch", keep)
    for rank in (0, 1, 2):
        monkeypatch.setattr("clic.distributed.rank", lambda group=None, rank=rank: rank)
        with pytest.raises(KeyError):
            run.trainer.step(run.builder.build(3))
    assert len(seeds) == 3


def test_dropout_is_a_function_of_seed_and_step(setup: Callable[..., Any]) -> None:
    run, draws = setup(), []
    for noise in (0, 1):
        torch.manual_seed(noise)
        run.trainer.step(run.builder.build(3))
        draws.append(torch.rand(4))
    assert torch.equal(*draws)
    run.trainer.step(run.builder.build(4))
    assert not torch.equal(draws[0], torch.rand(4))


def test_recomputing_activations_trains(
    settings: Callable[..., Config], build_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    vision = {"layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 16}
    config = settings("model.train=both", "model.grad_checkpointing=true")
    clip = build_tiny(tmp_path / "cfg", vision_cfg=vision)
    trainer = Trainer(config, clip, 2)
    assert clip.model.transformer.grad_checkpointing
    batch = make_builder(config, make_sources(config), clip).build(0)
    assert math.isfinite(trainer.step(batch)["loss"])


# --- saving, evaluating, stopping ----------------------------------------------------------------


@pytest.mark.parametrize(("every", "saved"), [(2, [2, 4]), (4, [4]), (0, []), (6, [])])
def test_when_checkpoints_are_written(
    setup: Callable[..., Any], every: int, saved: list[int]
) -> None:
    run = setup(f"train.save_every={every}")
    run.fit()
    assert run.saved == saved


def test_evaluation_has_records_of_its_own(setup: Callable[..., Any]) -> None:
    run = setup("train.eval_every=4", "train.eval_bench=[x]")

    def evaluate() -> dict[str, float]:
        run.clip.model.eval()
        return {"x/score": 5.0}

    records = run.fit(evaluate=evaluate)
    scored = [r for r in records if "x/score" in r]
    assert [r["step"] for r in scored] == [4, 6]
    assert run.clip.model.training  # put back, so that the next step trains


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As `nohup` has SIGHUP ignored, so that a run outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop == [] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_its_step(
    setup: Callable[..., Any], number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    run = setup()
    handler = signal.getsignal(number)

    def interrupted() -> Iterator[Batch]:
        for batch in run.batches():
            if batch.step == 2:
                os.kill(os.getpid(), number)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        run.fit(interrupted())
    assert run.trainer.done == 3 and run.saved == [3]
    assert signal.getsignal(number) == handler
    told = "stopping after this step; Ctrl-C again" in capfd.readouterr().err
    assert told == (number == signal.SIGINT)


def test_a_signal_in_the_last_step_changes_nothing(setup: Callable[..., Any]) -> None:
    run = setup()

    def interrupted() -> Iterator[Batch]:
        for batch in run.batches():
            if batch.step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    run.fit(interrupted())
    assert run.trainer.done == 6


def test_evaluation_does_not_count_as_training_time(
    setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = setup("train.eval_every=1", "train.eval_bench=[x]", "train.batch_size=4", steps=3)
    clock = [0.0]
    monkeypatch.setattr("clic.training.trainer.time.perf_counter", lambda: clock[0])

    def batches() -> Iterator[Batch]:
        for batch in run.batches():
            clock[0] += 2.0  # a step takes so long
            yield batch

    def slow() -> dict[str, float]:
        clock[0] += 1000.0
        return {"x": 0.0}

    records = run.fit(batches(), evaluate=slow)
    assert [r["images_per_second"] for r in records if "loss" in r] == [2.0, 2.0, 2.0]
