"""Compiled towers train as the others do, in every combination; what is missing is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from clic import models, runs
from clic.cli.common import INTERRUPTED
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.errors import ConfigError
from clic.models import ClipModel
from clic.models.depths import layer_modules
from clic.training import Trainer, compiling
from clic.training import train as train_run
from clic.training.metrics_log import read
from clic.types import Batch

VISION = {"layers": 2, "width": 16, "head_width": 8, "image_size": 32, "patch_size": 16}
TEXT = {"context_length": 34, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
LAST = {"no_causal_mask": True, "pool_type": "last"}
SIGLIP = {"text_cfg": {**TEXT, **LAST}, "custom_text": True, "init_logit_bias": -10.0}
TIMM = {
    "vision_cfg": {
        "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear",
        "image_size": 160,
    }
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace the forward and the backward pass, and leave out the compiler of their graphs."""
    monkeypatch.setattr(compiling, "COMPILER", {"backend": "aot_eager"})


@pytest.fixture
def train(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, settings: Callable[..., Config]
) -> Callable[..., tuple[list[float], dict[str, Tensor], Trainer]]:
    """Return what trains four steps and gives their losses, the weights and the trainer."""

    def run(*words: str, changes: Any = None, steps: int = 4) -> Any:
        architecture = {"vision_cfg": VISION, "text_cfg": TEXT, **(changes or {})}
        clip = build_tiny(tmp_path / "cfg", **architecture)
        with torch.no_grad():
            for parameter in clip.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        config = settings("train.batch_size=8", "optim.lr=0.01", "optim.eps=1e-2", *words)
        trainer = Trainer(config, clip, steps)
        models.set_mode(clip.model, trainer.trained)
        build = make_builder(config, make_sources(config), clip).build
        losses = [float(trainer.step(build(step))["loss"]) for step in range(steps)]
        with trainer.result():
            weights = {n: v.clone() for n, v in trainer.clip.model.state_dict().items()}
        return losses, weights, trainer

    return run


def compare(
    train: Any, words: tuple[str, ...], changes: Any = None, tolerance: float = 1e-5
) -> Any:
    plain = train(*words, changes=changes)
    compiled = train(*words, "train.compile=true", changes=changes)
    assert compiled[0] == pytest.approx(plain[0], rel=tolerance)
    assert compiled[1].keys() == plain[1].keys()  # no name tells that it was compiled
    for name, value in plain[1].items():
        torch.testing.assert_close(
            compiled[1][name], value, rtol=10 * tolerance, atol=tolerance, msg=name
        )
    return compiled[2]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), None),
        (("train.pack_texts=false", "model.train=both"), None),
        (("train.micro_batch=3", "train.distill_weight=1.0", "model.train=both"), None),
        (("model.train=text.last:1", "model.grad_checkpointing=true", "train.ema=0.5"), None),
        (("model.train=both", "loss.single=clip"), SIGLIP),
        (("model.train=both",), TIMM),
        (("model.train=lora:both", "model.lora_rank=2"), None),
    ],
    ids=["packed", "padded", "chunks, distillation", "recomputed, average", "SigLIP", "timm",
         "LoRA"],
)  # fmt: skip
def test_traced_steps_train_the_same_weights(
    train: Any, words: tuple[str, ...], changes: Any
) -> None:
    if "lora" in str(words):
        pytest.importorskip("peft")
    from torch._dynamo.utils import counters

    counters.clear()
    compare(train, words, changes)
    assert counters["frames"]["ok"] > 0  # something was compiled


@pytest.mark.slow
def test_compiled_steps_train_the_same_weights(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, tiny_words: list[str]
) -> None:
    """By the real compiler, as a user runs it: in a process that has imported nothing else."""
    try:
        compiling.check_compiler(CPU)
    except ConfigError as error:
        pytest.skip(str(error))
    clip = build_tiny(tmp_path / "cfg", vision_cfg=VISION, text_cfg=TEXT)
    with torch.no_grad():
        for parameter in clip.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    words = [
        *tiny_words[1:], f"model.name={models.save(clip, tmp_path / 'model')}", "model.train=both",
        "train.batch_size=8", "train.max_steps=4", "optim.lr=0.01", "optim.eps=1e-2",
    ]  # fmt: skip
    words.remove("train.batch_size=4")
    found = []
    for compiled in ("false", "true"):
        own = [f"train.compile={compiled}", f"train.run_name={compiled}"]
        process = subprocess.run(
            [sys.executable, "-m", "clic.cli.train", *words, *own],
            cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")},
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        run = tmp_path / "runs" / compiled
        losses = [record["loss"] for record in read(run / runs.METRICS_FILE)]
        found.append((losses, load_file(run / runs.MODEL / runs.OPEN_CLIP_WEIGHTS)))
    assert len(list(tmp_path.glob("inductor/**/*.so"))) > 0  # it was the real one
    (losses, weights), (compiled_losses, compiled_weights) = found
    assert len(losses) == 4 and compiled_losses == pytest.approx(losses, rel=1e-5)
    assert compiled_weights.keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(compiled_weights[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_layers_of_every_tower(build_tiny: Callable[..., ClipModel], tmp_path: Path) -> None:
    def names(**changes: Any) -> list[str]:
        return sorted(layer_modules(build_tiny(tmp_path / "cfg", **changes).model))

    texts = ["transformer.resblocks.0", "transformer.resblocks.1"]
    blocks = ["visual.transformer.resblocks.0", "visual.transformer.resblocks.1"]
    assert names(text_cfg=TEXT, vision_cfg=VISION) == [*texts, *blocks]
    own = names(text_cfg=TEXT)
    assert own == [*texts, *(f"visual.layer{n}" for n in (1, 2, 3, 4))]
    siglip = names(**SIGLIP, vision_cfg=VISION)
    assert siglip == [*(f"text.{name}" for name in texts), *blocks]
    timm = names(**TIMM, text_cfg=TEXT)
    assert timm[:2] == texts and timm[2] == "visual.trunk.blocks.0"
    model = torch.nn.Module()
    model.visual = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert list(layer_modules(model)) == ["visual"]  # without numbered layers, as a whole


def test_a_missing_compiler_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Callable[..., Config]
) -> None:
    from clic import training

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ConfigError,
        match=r"^train\.compile=true needs a compiler on the cpu, and .*"
        r" is not found; install one, .*, or leave train\.compile out$",
    ):
        training.train(settings("train.compile=true"))
    assert not list(tmp_path.glob("runs/*"))
    monkeypatch.setenv("CXX", "no-compiler -O2")
    with pytest.raises(ConfigError, match="and no-compiler is not found"):
        compiling.check_compiler(CPU)
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package triton on a GPU; pip install triton"):
        compiling.check_compiler(torch.device("cuda"))


def test_missing_headers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match=f"there is no {tmp_path}/Python.h; install them"):
        compiling.check_compiler(CPU)
    (tmp_path / "Python.h").touch()
    compiling.check_compiler(CPU)


def test_a_compiler_that_fails_is_named(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(graph: Any, inputs: Any) -> Any:
        raise ValueError("no such instruction")

    monkeypatch.setattr(compiling, "COMPILER", {"backend": fails})
    with pytest.raises(ConfigError, match=r"^train\.compile=true: .*no such instruction.*leave it"):
        train("train.compile=true")
    assert "the first step of each kind of batch waits" in capsys.readouterr().out


@pytest.mark.parametrize("done", [0, 2])
def test_a_signal_that_ends_the_compiler_stops_the_run(
    settings: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    done: int,
) -> None:
    """As SIGTERM does when it is sent to all processes of a job while g++ is at work."""

    def ended(graph: Any, inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise subprocess.CalledProcessError(-signal.SIGTERM, "g++")

    def run(name: str, *words: str) -> tuple[Path, list[float]]:
        own = [
            "train.max_steps=4",
            "train.save_every=0",
            f"train.run_name={name}",
            "optim.eps=1e-2",
        ]
        folder = train_run(settings(*own, "model.train=both", "sampling.kinds=composite", *words))
        return folder, [record["loss"] for record in read(folder / runs.METRICS_FILE)]

    step = Trainer.step

    def until(trainer: Trainer, batch: Batch) -> dict[str, Tensor]:
        if batch.step == done:
            torch.compiler.reset()  # so that the step compiles
            monkeypatch.setattr(compiling, "COMPILER", {"backend": ended})
            compiling.compile_towers(trainer.features)
        return step(trainer, batch)

    plain, losses = run("plain")
    monkeypatch.setattr(compiling, "COMPILER", {"backend": "aot_eager"})
    monkeypatch.setattr(Trainer, "step", until)
    with pytest.raises(KeyboardInterrupt):
        run("one", "train.compile=true")
    shown = capsys.readouterr()
    assert f"stopped after step {done}; the same command continues" in shown.out
    assert "could not compile" not in shown.out + shown.err
    monkeypatch.setattr(Trainer, "step", step)
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "COMPILER", {"backend": "aot_eager"})
    folder, again = run("one", "train.compile=true")
    assert f"from step {done}\n" in capsys.readouterr().out
    assert again == pytest.approx(losses, rel=1e-5)
    names = (runs.MODEL, runs.OPEN_CLIP_WEIGHTS)
    expected, found = (load_file(one.joinpath(*names)) for one in (plain, folder))
    for name, value in expected.items():  # the statistics of BatchNorm among them
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


COMPILER_THAT_WAITS = """#!/bin/sh
# Probes of the machine are left to the real one.
for word in "$@"; do
    case "$word" in
        *.cpp|*.h|*.hpp) grep -qs chk_kernel "$word" || { touch "$WAITS"; exec sleep 600; } ;;
    esac
done
exec g++ "$@"
"""


@pytest.mark.slow
def test_a_signal_to_the_whole_job_while_gcc_is_at_work(
    tmp_path: Path, tiny_words: list[str]
) -> None:
    try:
        compiling.check_compiler(CPU)
    except ConfigError as error:
        pytest.skip(str(error))
    waits, compiler = tmp_path / "waits", tmp_path / "waiting-g++"
    compiler.write_text(COMPILER_THAT_WAITS)
    compiler.chmod(0o755)
    own = {
        "CXX": str(compiler),
        "WAITS": str(waits),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "i"),
    }
    words = [*tiny_words, "captions.tagger=hanta", "train.compile=true", "train.max_steps=3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clic.cli.train", *words, "train.run_name=one"],
        cwd=tmp_path, env={**os.environ, **own}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        end = time.monotonic() + 300
        while not waits.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        assert waits.exists(), process.poll()  # or the compiler was never called
        os.killpg(process.pid, signal.SIGTERM)
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED, output
    assert "stopped after step 0; the same command continues runs/one" in output
    assert "could not compile" not in output and "Traceback" not in output, output


@pytest.mark.usefixtures("traced")
def test_results_are_not_of_compiled_towers(train: Any) -> None:
    """Scores and the final model's numbers do not depend on the setting."""
    from torch._dynamo.utils import counters

    trainer = train("train.compile=true", changes=SIGLIP, steps=1)[2]
    counters.clear()
    texts = trainer.clip.tokenizer(["a dog", "two"])
    with trainer.result(), torch.no_grad():
        trainer.clip.model.encode_text(texts)
    assert not counters["frames"]
    with torch.no_grad():
        trainer.clip.model.encode_text(texts)
    assert counters["frames"]["ok"] > 0
