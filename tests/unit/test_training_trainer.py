"""The loop: what a step changes, and what it does when numbers go wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import models
from clic.config import Config, WandbConfig
from clic.data import make_builder, make_sources
from clic.errors import ConfigError
from clic.training import Trainer, TrainingError
from clic.training.metrics_log import Averages, MetricsLog, missing_negatives, read
from clic.training.trainer import autocast_dtype
from clic.types import Batch

CPU = torch.device("cpu")


class Setup:
    """A trainer with its batches and records."""

    def __init__(self, config: Config, folder: Path, steps: int = 6) -> None:
        self.clip = models.create(config.model.name)
        self.builder = make_builder(config, make_sources(config), self.clip)
        self.trainer = Trainer(config, self.clip, steps)
        self.saved: list[int] = []
        self.log_path = folder / "metrics.jsonl"

    def batches(self) -> Iterator[Batch]:
        for step in range(self.trainer.done, self.trainer.steps):
            yield self.builder.build(step)

    def fit(self, batches: Any = None, evaluate: Any = None) -> list[dict[str, Any]]:
        log = MetricsLog(self.log_path, 0, self.trainer.steps, WandbConfig(), "run", {})
        models.set_mode(self.clip.model, self.trainer.trained)
        try:
            self.trainer.fit(
                batches or self.batches(), log, lambda s: self.saved.append(s.step), evaluate
            )
        finally:
            log.close()
        return read(self.log_path)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.clip.model.state_dict().items()}


@pytest.fixture
def setup(settings: Callable[..., Config], tmp_path: Path) -> Callable[..., Setup]:
    return lambda *words, steps=6: Setup(settings(*words), tmp_path, steps)


# --- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["text", "vision", "both"])
def test_what_is_frozen_stays_bit_for_bit(setup: Callable[..., Setup], train: str) -> None:
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


def test_records_name_every_term(setup: Callable[..., Setup]) -> None:
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


def test_records_name_every_kind_of_negatives(setup: Callable[..., Setup]) -> None:
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
    setup: Callable[..., Setup], kinds: tuple[str, ...], expected: dict[str, float]
) -> None:
    mask = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
    batch = setup().builder.build(0)
    slots = len(kinds) or 2
    batch = dataclasses.replace(batch, negative_mask=mask[:, :slots], negative_kinds=kinds)
    assert missing_negatives(batch) == expected
    assert missing_negatives(dataclasses.replace(batch, negative_mask=None)) == {}


def test_intervals_are_averaged(setup: Callable[..., Setup], tmp_path: Path) -> None:
    fine, coarse = setup().fit(), setup("train.log_every=4").fit()
    assert [r["step"] for r in coarse] == [4, 6]
    for record, part in zip(coarse, (fine[:4], fine[4:]), strict=True):
        mean = sum(r["loss"] for r in part) / len(part)
        assert record["loss"] == pytest.approx(mean, rel=1e-6)


def test_the_schedule_spans_the_run(setup: Callable[..., Setup]) -> None:
    run = setup("optim.warmup_fraction=0.5", "optim.lr=0.01", steps=8)
    rates = [record["lr"] for record in run.fit()]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[4] == pytest.approx(0.01) and rates[7] < 0.002


def test_only_matrices_decay(setup: Callable[..., Setup]) -> None:
    run = setup("model.train=both", "model.train_logit_scale=true", "optim.weight_decay=0.3")
    decayed, plain = run.trainer.optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and plain["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in decayed["params"])
    names = {id(p): name for name, p in run.clip.model.named_parameters()}
    undecayed = {names[id(p)] for p in plain["params"]}
    assert "logit_scale" in undecayed and "ln_final.weight" in undecayed
    assert all(n in undecayed for n in names.values() if n.endswith("bias"))


def test_decay_moves_a_matrix_without_gradient(setup: Callable[..., Setup]) -> None:
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
    setup: Callable[..., Setup], words: list[str], expected: float
) -> None:
    run = setup(*words, "optim.lr=1e-9")
    with torch.no_grad():
        run.clip.model.logit_scale.fill_(math.log(150))
    run.trainer.step(run.builder.build(0))
    assert run.clip.model.logit_scale.exp().item() == pytest.approx(expected, rel=1e-4)


def test_logit_scale_is_clamped_from_below(setup: Callable[..., Setup]) -> None:
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


def test_gradients_are_clipped(setup: Callable[..., Setup]) -> None:
    run = setup("optim.grad_clip=0.001")
    report = run.trainer.step(run.builder.build(0))
    assert report["grad_norm"] > 0.001
    gradients = [p.grad for p in run.clip.model.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    assert norm.item() == pytest.approx(0.001, rel=1e-3)


def test_dropout_is_a_function_of_seed_and_step(setup: Callable[..., Setup]) -> None:
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


# --- precision -----------------------------------------------------------------------------------


def test_bf16_autocast_runs_on_the_cpu(setup: Callable[..., Setup]) -> None:
    exact, rounded = (setup(f"train.precision={p}").fit() for p in ("fp32", "bf16"))
    assert exact[0]["loss"] != rounded[0]["loss"]
    assert exact[0]["loss"] == pytest.approx(rounded[0]["loss"], rel=0.05)


def test_weights_and_losses_stay_fp32_under_autocast(setup: Callable[..., Setup]) -> None:
    run = setup("train.precision=bf16")
    report = run.trainer.step(run.builder.build(0))
    assert report["loss"].dtype == torch.float32
    assert {p.dtype for p in run.clip.model.parameters()} == {torch.float32}


def test_precisions() -> None:
    assert autocast_dtype("auto", CPU) == torch.float32
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    with pytest.raises(ConfigError, match=r"train\.precision=fp16 needs a GPU"):
        autocast_dtype("fp16", CPU)
    with pytest.raises(ConfigError, match=r"train\.precision='bf8' is not known"):
        autocast_dtype("bf8", CPU)


# --- numbers that go wrong -----------------------------------------------------------------------


def broken(run: Setup, at: int) -> Iterator[Batch]:
    for batch in run.batches():
        if batch.step == at:
            batch.std = (float("nan"),) * 3
        yield batch


def test_a_loss_that_is_not_finite_ends_the_run(setup: Callable[..., Setup]) -> None:
    run = setup()
    with pytest.raises(TrainingError, match=r"the loss is nan by step 3; lower optim\.lr"):
        run.fit(broken(run, 2))
    assert [r["step"] for r in read(run.log_path)] == [1, 2]


def test_no_checkpoint_is_made_of_it(setup: Callable[..., Setup]) -> None:
    run = setup("train.log_every=100", "train.save_every=2")
    with pytest.raises(TrainingError, match="by step 4"):
        run.fit(broken(run, 2))
    assert run.saved == [2]


# --- saving, evaluating, stopping ----------------------------------------------------------------


@pytest.mark.parametrize(("every", "saved"), [(2, [2, 4]), (4, [4]), (0, []), (6, [])])
def test_when_checkpoints_are_written(
    setup: Callable[..., Setup], every: int, saved: list[int]
) -> None:
    run = setup(f"train.save_every={every}")
    run.fit()
    assert run.saved == saved


def test_evaluation_has_records_of_its_own(setup: Callable[..., Setup]) -> None:
    run = setup("train.eval_every=4", "train.eval_bench=[x]")

    def evaluate() -> dict[str, float]:
        run.clip.model.eval()
        return {"x/score": 5.0}

    records = run.fit(evaluate=evaluate)
    scored = [r for r in records if "x/score" in r]
    assert [r["step"] for r in scored] == [4, 6]
    assert run.clip.model.training  # put back, so that the next step trains


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step(
    setup: Callable[..., Setup], number: signal.Signals
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


def test_a_signal_in_the_last_step_changes_nothing(setup: Callable[..., Setup]) -> None:
    run = setup()

    def interrupted() -> Iterator[Batch]:
        for batch in run.batches():
            if batch.step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    run.fit(interrupted())
    assert run.trainer.done == 6


# --- records -------------------------------------------------------------------------------------


def test_averages() -> None:
    averages = Averages()
    assert averages.means() == {}
    averages.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    averages.add({"a": torch.tensor(2.0)})
    assert averages.means() == {"a": 1.5, "b": 5.0} == averages.means()
    averages.clear()
    assert averages.means() == {}


def test_records_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.1 * step}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(lines) + '\n{"step": 5, "lo')  # a kill in the middle of a line
    log = MetricsLog(path, 2, 9, WandbConfig(), "run", {})
    assert [r["step"] for r in read(path)] == [1, 2]
    log.log({"step": 3, "loss": 0.5})
    log.close()
    assert [(r["step"], r["loss"]) for r in read(path)] == [(1, 0.1), (2, 0.2), (3, 0.5)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_console_line_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", 0, 300, WandbConfig(), "run", {})
    log.log({"step": 10, "loss": 1.23456, "lr": 1e-6, "composite/unimodal": 3.0})
    log.log({"step": 10, "shapes++/mean/itt": 51.0})
    log.close()
    assert capsys.readouterr().out.splitlines() == [
        "step  10/300  loss 1.235  lr 1e-06",
        "step  10/300  shapes++/mean/itt 51",
    ]


def test_wandb_is_imported_only_when_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    MetricsLog(tmp_path / "m.jsonl", 0, 1, WandbConfig(), "run", {}).close()
    with pytest.raises(ConfigError, match=r"wandb\.enabled=true needs .*pip install"):
        MetricsLog(tmp_path / "m.jsonl", 0, 1, WandbConfig(enabled=True), "run", {})


def test_what_wandb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    told: list[Any] = []
    run = SimpleNamespace(
        log=lambda record, step: told.append((record["loss"], step)),
        finish=lambda: told.append("end"),
    )
    module = SimpleNamespace(
        init=lambda **settings: told.extend([settings["name"], *sys.argv]) or run
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    words = ["clic-train", "data.shards=https://u:s3cret@h.org/a.tar?sig=s3cret"]
    monkeypatch.setattr(sys, "argv", words)
    log = MetricsLog(tmp_path / "m.jsonl", 0, 9, WandbConfig(enabled=True), "the-run", {})
    log.log({"step": 3, "loss": 0.5})
    log.close()
    line = ["clic-train", "data.shards=https://h.org/a.tar?..."]  # which W&B keeps by itself
    assert told == ["the-run", *line, (0.5, 3), "end"]
    assert sys.argv is words


def test_evaluation_does_not_count_as_training_time(
    setup: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
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
