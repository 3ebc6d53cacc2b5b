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
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.errors import ConfigError, ModelError
from clic.training import Trainer, TrainingError
from clic.training.metrics_log import Averages, MetricsLog, missing_negatives, read
from clic.training.strategy import autocast_dtype, stop_requests
from clic.training.trained_parts import check_trainable
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
        log = MetricsLog(self.log_path, 0, self.trainer.steps)
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


def test_each_step_uses_the_rate_of_its_own_number(setup: Callable[..., Setup]) -> None:
    """Token rows that no caption holds are moved by the decay alone, which the rate scales."""
    run = setup("optim.weight_decay=0.5", "optim.lr=0.4", "optim.warmup_fraction=0.5", steps=4)
    expected = run.clip.model.token_embedding.weight[40000].detach().clone()
    rates = [run.trainer.lr_at(step) for step in range(4)]
    assert rates[0] != rates[1] and rates[2] != rates[3]
    for step, rate in enumerate(rates):
        run.trainer.step(run.builder.build(step))
        expected *= 1 - rate * 0.5
        torch.testing.assert_close(run.clip.model.token_embedding.weight[40000], expected)


def test_the_record_has_the_rate_that_was_used(setup: Callable[..., Setup]) -> None:
    run = setup("optim.warmup_fraction=0.5", steps=4)
    used: list[float] = []
    step = run.trainer.optimizer.step

    def watched() -> Any:
        used.append(run.trainer.optimizer.param_groups[0]["lr"])
        return step()

    run.trainer.optimizer.step = watched  # type: ignore[method-assign]
    assert [record["lr"] for record in run.fit()] == used
    assert used == [run.trainer.lr_at(number) for number in range(4)]


def test_only_matrices_decay(setup: Callable[..., Setup]) -> None:
    run = setup("model.train=both", "model.train_logit_scale=true", "optim.weight_decay=0.3")
    decayed, plain = run.trainer.optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and plain["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in decayed["params"])
    names = {id(p): name for name, p in run.clip.model.named_parameters()}
    undecayed = {names[id(p)] for p in plain["params"]}
    assert "logit_scale" in undecayed and "ln_final.weight" in undecayed
    assert all(n in undecayed for n in names.values() if n.endswith("bias"))


def test_rates_of_layers_and_towers_are_those_of_the_steps(setup: Callable[..., Setup]) -> None:
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


def test_only_the_last_layers_change(setup: Callable[..., Setup]) -> None:
    run = setup("model.train=text.last:1", "model.train_logit_scale=true")
    before = run.weights()
    run.fit()
    changed = {n for n, value in run.weights().items() if not torch.equal(before[n], value)}
    kept = {n for n in before if n.startswith("visual.") or "embedding" in n or n == "attn_mask"}
    assert changed == before.keys() - kept


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


@pytest.mark.parametrize("words", [(), ("optim.grad_clip=0.001",), ("optim.grad_clip=1000",)])
def test_scaled_gradients_are_clipped_and_applied_as_others_are(
    setup: Callable[..., Setup], words: tuple[str, ...]
) -> None:
    found = []
    for scale in (None, 2.0**20):
        run = setup(*words)
        if scale is not None:
            run.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        reports = [run.trainer.step(run.builder.build(step)) for step in range(3)]
        norms = [float(report["grad_norm"]) for report in reports if "grad_norm" in report]
        found.append((norms, run.weights()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, rtol=1e-5, atol=1e-7)


def test_the_scaler_is_restored(setup: Callable[..., Setup]) -> None:
    run, again = setup(), setup()
    for one, scale in ((run, 4.0), (again, 1024.0)):
        one.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
        one.trainer.scaler.scale(torch.ones(()))
    run.trainer.step(run.builder.build(0))
    again.trainer.restore(run.trainer.state())
    assert again.trainer.scaler.get_scale() == 4.0
    for one in (run, again):
        one.trainer.step(one.builder.build(1))
        assert one.trainer.scaler.get_scale() == 8.0  # the second good step of two


def test_a_run_without_a_scaler_continues_with_one(setup: Callable[..., Setup]) -> None:
    """From fp32 or bf16 to fp16, as on a GPU without bf16; and back."""
    run, again = setup(), setup()
    run.trainer.step(run.builder.build(0))
    again.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    again.trainer.restore(run.trainer.state())
    again.trainer.step(again.builder.build(1))
    assert again.trainer.scaler.get_scale() == 16.0
    run.trainer.restore(again.trainer.state())
    run.trainer.step(run.builder.build(2))
    assert run.trainer.done == 3


def test_dropout_differs_from_rank_to_rank(
    setup: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
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


def test_dropout_is_a_function_of_seed_and_step(setup: Callable[..., Setup]) -> None:
    run, draws = setup(), []
    for noise in (0, 1):
        torch.manual_seed(noise)
        run.trainer.step(run.builder.build(3))
        draws.append(torch.rand(4))
    assert torch.equal(*draws)
    run.trainer.step(run.builder.build(4))
    assert not torch.equal(draws[0], torch.rand(4))


UNIMODAL = ("loss.contrastive_weight=0", "loss.hard_negative_weight=0")


def test_what_no_loss_reaches_is_frozen_and_named(
    setup: Callable[..., Setup], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sampling.kinds=composite", "model.train=both", "model.train_logit_scale=true")
    run = setup(*UNIMODAL, *words)
    assert capsys.readouterr().out == (
        "frozen, since no loss of this run reaches them: logit_scale, visual.*\n"
    )
    before = run.weights()
    models.set_mode(run.clip.model, run.trainer.trained)
    run.trainer.step(run.builder.build(0))
    changed = {n for n, value in run.weights().items() if not torch.equal(before[n], value)}
    assert changed and not any(n.startswith(("visual.", "logit_scale")) for n in changed)
    setup(*UNIMODAL, "model.train=both", "model.train_logit_scale=true")
    assert capsys.readouterr().out == ""  # the single steps reach it all


def test_trying_what_a_loss_reaches_leaves_no_trace(setup: Callable[..., Setup]) -> None:
    run = setup("model.train=both")
    fresh = models.create(run.trainer.config.model.name).model
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Trainer(run.trainer.config, run.clip, 2)
    assert torch.equal(torch.rand(3), expected)
    modes = [module.training for module in fresh.modules()]
    assert [module.training for module in run.clip.model.modules()] == modes
    for name, value in fresh.state_dict().items():
        assert torch.equal(run.clip.model.state_dict()[name], value), name
    assert all(parameter.grad is None for parameter in run.clip.model.parameters())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*UNIMODAL, "model.train=vision"], "model.train=vision .*trains nothing"),
        ([*UNIMODAL, "model.train=vision", "sampling.kinds=composite"], "trains nothing"),
        (["train.batch_size=1"], "train.batch_size=1 on 1 rank trains nothing: loss.single=clip"),
        (["train.batch_size=1", "sampling.kinds=single"], "train.batch_size=1"),
        (
            ["train.batch_size=1", "sampling.kinds=composite", "loss.composite=clip"],
            "loss.composite=clip",
        ),
        (
            [
                "train.batch_size=1",
                "sampling.kinds=composite",
                "loss.hard_negative_weight=0",
                "loss.unimodal_weight=0",
            ],
            "loss.composite=clic",
        ),
    ],
)
def test_steps_that_would_train_nothing_are_refused(
    settings: Callable[..., Config], words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trainable(settings(*words), 1)


@pytest.mark.parametrize(
    "words",
    [
        ["sampling.kinds=composite"],
        ["sampling.kinds=composite", *UNIMODAL],
        ["sampling.kinds=composite", "loss.contrastive_weight=0", "loss.unimodal_weight=0"],
        ["+experiment=shapes_negclip"],
    ],
    ids=["clic", "unimodal", "hard negatives", "softmax with negatives"],
)
def test_one_image_has_a_loss_where_there_is_more_than_the_others(
    setup: Callable[..., Setup], words: list[str]
) -> None:
    run = setup(*words, "train.batch_size=1")
    check_trainable(run.trainer.config, 1)
    models.set_mode(run.clip.model, run.trainer.trained)
    losses = [run.trainer.step(run.builder.build(step))["loss"] for step in range(4)]
    assert max(losses) > 0  # a row without a negative has none with the softmax


def test_one_image_on_each_of_two_ranks_is_a_batch(settings: Callable[..., Config]) -> None:
    check_trainable(settings("train.batch_size=1", "sampling.kinds=single"), 2)


def test_one_image_of_a_sigmoid_model_has_a_loss(
    settings: Callable[..., Config], build_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = models.save(build_tiny(tmp_path / "cfg", init_logit_bias=-10.0), tmp_path / "sigmoid")
    words = ("train.batch_size=1", "sampling.kinds=single", f"model.name={folder}")
    check_trainable(settings(*words), 1)
    with pytest.raises(ConfigError, match=r"loss\.single=softmax_negatives needs a softmax"):
        check_trainable(settings("loss.single=softmax_negatives", *words), 1)


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


@pytest.mark.parametrize(
    ("emulates", "native", "expected"),
    [(True, True, torch.bfloat16), (True, False, torch.float16), (False, False, torch.float16)],
    ids=["A100", "T4 and V100", "older"],
)
def test_automatic_precision_does_not_take_an_emulated_one(
    monkeypatch: pytest.MonkeyPatch, emulates: bool, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: emulates if including_emulation else native,
    )
    assert autocast_dtype("auto", torch.device("cuda", 0)) == expected


# --- numbers that go wrong -----------------------------------------------------------------------


def spoil(run: Setup, steps: range | list[int], value: float = math.nan) -> Iterator[Batch]:
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
    setup: Callable[..., Setup], value: float, words: tuple[str, ...], scaled: bool
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


def test_a_skipped_step_leaves_weights_and_moments_as_they_were(
    setup: Callable[..., Setup],
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
    setup: Callable[..., Setup], most: int, steps: range | list[int], ends: str | None
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


def test_weights_that_are_not_finite_are_never_saved(setup: Callable[..., Setup]) -> None:
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


def broken(run: Setup, at: int) -> Iterator[Batch]:
    for batch in run.batches():
        if batch.step == at:
            batch.std = (float("nan"),) * 3
        yield batch


def test_a_loss_that_is_not_finite_ends_a_run_that_may_skip_nothing(
    setup: Callable[..., Setup],
) -> None:
    run = setup("train.max_skipped=0")
    with pytest.raises(TrainingError, match=r"the last of them step 3 \(.*optim\.lr") as ended:
        run.fit(broken(run, 2))
    keys = [key for row in run.builder.build(2).keys for key in row]
    assert f"(samples {', '.join(keys[:8])}" in str(ended.value)
    assert all(word in str(ended.value) for word in ("train.precision", "clic-data verify"))
    assert [r["step"] for r in read(run.log_path)] == [1, 2]


def test_no_checkpoint_is_made_after_too_many_skipped_steps(setup: Callable[..., Setup]) -> None:
    run = setup("train.log_every=100", "train.save_every=2", "train.max_skipped=0")
    with pytest.raises(TrainingError, match="the last of them step 3"):
        run.fit(broken(run, 2))
    assert run.saved == [2]


@pytest.mark.parametrize("every", [1, 2, 6])
def test_a_step_whose_loss_is_not_finite_is_skipped_and_left_out_of_the_means(
    setup: Callable[..., Setup], every: int
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
    setup: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch, value: float
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


def test_averages_leave_out_what_is_not_finite() -> None:
    averages = Averages()
    for value in (1.0, math.nan, math.inf, 2.0, -math.inf):
        averages.add({"a": torch.tensor(value), "never": torch.tensor(math.nan)})
    assert averages.means() == {"a": 1.5}


def test_records_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.1 * step}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(lines) + '\n{"step": 5, "lo')  # a kill in the middle of a line
    log = MetricsLog(path, 2, 9)
    assert [r["step"] for r in read(path)] == [1, 2]
    log.log({"step": 3, "loss": 0.5})
    log.close()
    assert [(r["step"], r["loss"]) for r in read(path)] == [(1, 0.1), (2, 0.2), (3, 0.5)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_console_line_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", 0, 300)
    log.log({"step": 10, "loss": 1.23456, "lr": 1e-6, "composite/unimodal": 3.0})
    log.log({"step": 10, "shapes++/mean/itt": 51.0})
    log.close()
    assert capsys.readouterr().out.splitlines() == [
        "step  10/300  loss 1.235  lr 1e-06",
        "step  10/300  shapes++ itt 51",
    ]


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
