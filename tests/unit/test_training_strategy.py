"""Precision: autocast, and the scaler of gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.distributed import matrix_products
from clic.errors import ConfigError
from clic.io.processes import cpu_has_bf16
from clic.losses import ClipObjective
from clic.training import strategy, train
from clic.training.strategy import DataParallel, autocast_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize("words", [(), ("optim.grad_clip=0.001",), ("optim.grad_clip=1000",)])
def test_scaled_gradients_are_clipped_and_applied_as_others_are(
    setup: Callable[..., Any], words: tuple[str, ...]
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


def test_the_scaler_is_restored(setup: Callable[..., Any]) -> None:
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


def test_a_run_without_a_scaler_continues_with_one(setup: Callable[..., Any]) -> None:
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


def test_bf16_autocast_runs_on_the_cpu(setup: Callable[..., Any]) -> None:
    exact, rounded = (setup(f"train.precision={p}").fit() for p in ("fp32", "bf16"))
    assert exact[0]["loss"] != rounded[0]["loss"]
    assert exact[0]["loss"] == pytest.approx(rounded[0]["loss"], rel=0.05)


def test_weights_and_losses_stay_fp32_under_autocast(setup: Callable[..., Any]) -> None:
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


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("sse4_2 avx avx2 fma", False),
        ("avx2 avx512f avx512_bf16 avx512_vnni", True),
        ("avx2 avx512f amx_bf16 amx_tile", True),
        ("fp asimd bf16", None),  # an Arm, of which nothing is said
    ],
)
def test_whether_the_cpu_has_bf16(flags: str, has: bool | None) -> None:
    assert cpu_has_bf16(flags) is has


def test_a_machine_that_does_not_tell_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_has_bf16() is None


@pytest.mark.parametrize(
    ("precision", "has", "warned"),
    [("bf16", False, True), ("bf16", None, False), ("bf16", True, False), ("fp32", False, False)],
)
def test_a_run_in_emulated_bf16_is_warned(
    settings: Callable[..., Config],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    has: bool | None,
    warned: bool,
) -> None:
    monkeypatch.setattr(strategy, "cpu_has_bf16", lambda: has)
    train(settings("train.max_steps=1", f"train.precision={precision}"))
    assert ("only emulates bf16" in capsys.readouterr().out) is warned


# --- TF32 ----------------------------------------------------------------------------------------


def products() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("device", "precision", "asked", "used"),
    [
        ("cuda", "fp32", True, True),
        ("cuda", "fp32", False, False),
        ("cuda", "bf16", True, False),
        ("cpu", "fp32", True, False),
    ],
)
def test_tf32_is_for_towers_in_fp32_on_a_gpu(
    device: str, precision: str, asked: bool, used: bool
) -> None:
    before = products()
    strategy = DataParallel(torch.device(device), precision, asked)
    assert strategy.tf32 == used
    with pytest.raises(KeyError), strategy.products():
        if device == "cuda":
            assert products() == (("high", True) if used else ("highest", False))
        else:
            assert products() == before  # on the CPU nothing is set
        raise KeyError
    assert products() == before


def test_towers_use_tf32_and_losses_and_evaluation_do_not(
    setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, before = setup(), products()
    strategy, seen = run.trainer.strategy, []
    monkeypatch.setattr(strategy, "products", lambda: matrix_products(tf32=True))
    run.clip.model.ln_final.register_forward_hook(lambda *_: seen.append(products()))
    parameter = run.clip.model.ln_final.weight
    parameter.register_hook(lambda gradient: seen.append(products()))
    compute = ClipObjective._compute
    monkeypatch.setattr(
        ClipObjective, "_compute", lambda *words: seen.append(products()) or compute(*words)
    )
    run.trainer.step(run.builder.build(1))  # of single images
    assert seen == [("high", True), ("highest", False), ("high", True)]
    assert products() == before


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9"
)
def test_flags_of_the_newer_kind_are_put_back() -> None:
    """torch refuses to read its older flags where a program has set the newer ones."""
    backends: Any = torch.backends
    owners = (backends.cuda.matmul, backends.cudnn.conv)
    before = products()
    try:
        for owner, value in zip(owners, ("tf32", "ieee"), strict=True):
            owner.fp32_precision = value
        with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
            products()
        for tf32, expected in ((False, "ieee"), (True, "tf32")):
            with matrix_products(tf32):
                assert [owner.fp32_precision for owner in owners] == [expected] * 2
            assert [owner.fp32_precision for owner in owners] == ["tf32", "ieee"]
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
    assert products() == before


def test_tf32_cannot_be_changed_where_nothing_multiplies_in_fp32(
    settings: Callable[..., Config],
) -> None:
    validate(settings("train.tf32=false", "train.precision=fp32"))
    message = r"^train\.tf32=false has no effect with train\.precision=bf16, in which the towers"
    with pytest.raises(ConfigError, match=message):
        validate(settings("train.tf32=false", "train.precision=bf16"))
