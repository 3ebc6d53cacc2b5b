"""A step asks nothing of the device, and copies nothing to it that waits for the copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clic import models
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.images import canvas
from clic.models import ClipModel, FeatureExtractor, PooledImages, PooledTexts
from clic.training import Trainer
from clic.training.metrics_log import Averages
from clic.types import Batch

CUDA = torch.device("cuda", 0)
VISION = {"layers": 2, "width": 16, "head_width": 8, "image_size": 32, "patch_size": 16}
ASKING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique", "masked_select")


class Waits(TorchDispatchMode):
    """Lists the operations that make the process wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        result = func(*args, **kwargs)
        if name in ASKING:
            self.found.append(name)
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            there = result.device
            waits = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
            if source.device != there and waits:
                self.found.append(f"{name} from {source.device} to {there}")
        return result


@pytest.fixture
def clip(build_tiny: Callable[..., ClipModel], tmp_path: Path) -> ClipModel:
    return build_tiny(tmp_path, vision_cfg=VISION)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("train.micro_batch=3", "train.distill_weight=1.0"),
        ("model.train=both", "train.ema=0.5", "optim.grad_clip=1.0", "train.distill_weight=1.0"),
        ("loss.single=softmax_negatives", "captions.single_negative=swap"),
    ],
    ids=["plain", "chunks", "both towers, average, clipping", "softmax negatives"],
)
def test_steps_between_records_ask_nothing(
    clip: ClipModel, settings: Callable[..., Config], words: tuple[str, ...]
) -> None:
    config = settings("train.batch_size=8", *words)
    trainer, averages = Trainer(config, clip, 6), Averages()
    build = make_builder(config, make_sources(config), clip).build
    models.set_mode(clip.model, trainer.trained)
    batches = [trainer.plan(build(step)) for step in range(4)]
    for batch in batches[:2]:  # what is made once, such as the optimizer's state
        averages.add(trainer.step(batch))
    with Waits() as waits:
        for batch in batches[2:]:
            averages.add(trainer.step(batch))
    assert waits.found == []
    with Waits() as waits:
        assert averages.means()["loss"] > 0  # what is asked for is seen
        float(torch.ones(1))
    assert "_local_scalar_dense" in waits.found


# --- a GPU that is only imagined -----------------------------------------------------------------


def walk_back(loss: Tensor) -> None:
    """Run a backward pass node by node; torch's own engine would look for the streams of a GPU."""
    assert loss.grad_fn is not None
    waiting: Counter[Any] = Counter()
    nodes, known = [loss.grad_fn], {loss.grad_fn}
    for node in nodes:
        after = [following for following, _ in node.next_functions if following is not None]
        waiting.update(after)
        nodes += dict.fromkeys(node for node in after if node not in known)
        known.update(after)
    given: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        own = given.pop(node, {})
        if hasattr(node, "variable"):  # a leaf
            before = node.variable.grad
            node.variable.grad = own[0] if before is None else before + own[0]
            continue
        gradients = [own.get(number) for number in range(len(node._input_metadata))]
        with torch.no_grad():
            found = getattr(node, "apply", node)(*gradients)
        found = found if isinstance(found, tuple) else (found,)
        for (following, number), gradient in zip(node.next_functions, found, strict=True):
            if following is None:
                continue
            if gradient is not None:
                meta, sums = following._input_metadata[number], given.setdefault(following, {})
                gradient = gradient.sum_to_size(tuple(meta.shape)).to(meta.dtype)
                sums[number] = sums[number] + gradient if number in sums else gradient
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


def test_walking_back_gives_the_gradients_of_the_engine(clip: ClipModel) -> None:
    found = []
    for backward in (Tensor.backward, walk_back):
        clip.model.zero_grad()
        texts = clip.model.encode_text(clip.tokenizer(["a dog", "two cats"]))
        backward((texts.sin() * texts).sum() + texts.exp().mean())
        named = clip.model.named_parameters()
        found.append({n: p.grad for n, p in named if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


@contextmanager
def imagined_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Let tensors be on a GPU without values; autocast believes in it."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *a, **k: True)
    monkeypatch.setattr(Tensor, "backward", walk_back)
    copied = "torch._subclasses.fake_tensor.FakeTensorMode.__deepcopy__"  # a model is in one mode
    monkeypatch.setattr(copied, lambda mode, memo: mode, raising=False)
    canvas._channels.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode
    canvas._channels.cache_clear()


def on_gpu(clip: ClipModel) -> ClipModel:
    """Return the model with its weights on the imagined GPU."""
    model = clip.model
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                fake = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
                module._parameters[name] = torch.nn.Parameter(fake, value.requires_grad)
        for name, value in list(module._buffers.items()):
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
    return replace(clip, model=model)


def imagined(mode: FakeTensorMode, batch: Batch) -> Batch:
    """Return a planned batch whose tensors are copies without values, on the CPU."""

    def fakes(record: Any) -> dict[str, Any]:
        pairs = vars(record).items()
        return {n: mode.from_tensor(v) for n, v in pairs if isinstance(v, torch.Tensor)}

    plans = tuple(replace(plan, **fakes(plan)) for plan in batch.text_plans)
    return replace(batch, text_plans=plans, **fakes(batch))


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("fp32", ()),
        ("bf16", ()),
        ("bf16", ("model.train=both", "train.ema=0.5", "train.distill_weight=1.0")),
        ("fp16", ("optim.grad_clip=1.0", "loss.composite=clip", "loss.single=softmax_negatives",
                  "captions.composite_negative=none", "captions.single_negative=swap")),
        ("fp32", ("loss.single=paraphrase", "captions.paraphrase=rules",
                  "captions.single_negative=swap", "loss.logits_at_once=64")),
    ],
    ids=["fp32", "bf16", "average, distillation", "fp16, softmax negatives", "paraphrase"],
)  # fmt: skip
def test_a_step_on_a_gpu_copies_its_batch_and_nothing_else(
    clip: ClipModel,
    settings: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    precision: str,
) -> None:
    """Forward and backward pass and the update of the weights, of composites and single images."""
    config = settings("train.batch_size=8", f"train.precision={precision}", *words)
    planner = FeatureExtractor(clip.model, models.Trained(True, True)).planner()
    build = make_builder(config, make_sources(config), clip).build
    batches = [planner(build(step)) for step in range(4)]
    monkeypatch.setattr(Trainer, "_check_weights", lambda *words: None)  # which have no values
    with imagined_gpu(monkeypatch) as mode:
        own = on_gpu(clip)
        trainer = Trainer(config, own, 6)
        models.set_mode(own.model, trainer.trained)
        assert all(group["fused"] for group in trainer.optimizer.param_groups)
        seen: list[torch.dtype] = []
        hidden = own.model.transformer.resblocks[0].mlp.c_fc
        hidden.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
        for batch in (imagined(mode, one) for one in batches):
            with Waits() as waits:
                report = trainer.step(batch)
            if batch.step > 1:  # before, what is made once, such as the optimizer's state
                assert waits.found == []
            assert report["loss"].dtype == torch.float32
            for name in ("loss", "skipped_steps"):
                assert report[name].device == CUDA, name
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        assert set(seen) == {dtypes[precision]}
        moments = [m for state in trainer.optimizer.state.values() for m in state.values()]
        assert moments and all(moment.device == CUDA for moment in moments)
        gradients = [p.grad for p in own.model.parameters() if p.requires_grad]
        assert all(gradient is not None and gradient.device == CUDA for gradient in gradients)


def test_inference_on_a_gpu(clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = PooledTexts(clip.model)
    plan = FeatureExtractor(clip.model, models.Trained(False, False)).planner()
    packs = plan.plan(clip.tokenizer(["a dog", "a red circle left of a dog", "a dog"]))
    with imagined_gpu(monkeypatch) as mode, torch.no_grad():
        own = on_gpu(clip)
        there = replace(packs, **{n: mode.from_tensor(v).to(CUDA) for n, v in vars(packs).items()})
        pixels = torch.empty(3, 3, 32, 32, device=CUDA)
        with torch.autocast("cuda", torch.float16), Waits() as waits:
            found = PooledImages(own.model)(pixels)
            read = texts.planned(torch.empty(0, device=CUDA), there)
    assert waits.found == []
    for features in (found, read):
        assert features.shape == (3, 16) and features.device == CUDA
        assert features.dtype == torch.float16
