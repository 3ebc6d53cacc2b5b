"""A step asks nothing of the device, and copies nothing to it that waits for the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clic import images, models
from clic.config.train_settings import Config
from clic.data import make_builder, make_sources
from clic.images import canvas
from clic.models import ClipModel, FeatureExtractor, LossModule, PooledImages, PooledTexts
from clic.training import Trainer, optim
from clic.training.assembly import make_objectives
from clic.training.metrics_log import Averages
from clic.training.strategy import DataParallel
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


@contextmanager
def imagined_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Let tensors be on a GPU without values; autocast believes in it."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *a, **k: True)
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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("loss.composite=clip", "loss.single=softmax_negatives", "captions.single_negative=swap"),
        ("loss.single=paraphrase", "captions.paraphrase=rules", "captions.single_negative=swap"),
    ],
    ids=["clic", "softmax negatives", "paraphrase"],
)
def test_a_forward_pass_on_a_gpu_copies_its_batch_and_nothing_else(
    clip: ClipModel,
    settings: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    precision: str,
) -> None:
    """The backward pass needs a GPU even of tensors without values: torch looks for its streams."""
    config = settings("train.batch_size=8", *words)
    trained = models.set_trainable(clip.model, "text", True)
    planner = FeatureExtractor(clip.model, trained).planner()
    build = make_builder(config, make_sources(config), clip).build
    batches = [planner(build(step)) for step in range(2)]
    with imagined_gpu(monkeypatch) as mode:
        own, strategy = on_gpu(clip), DataParallel(CUDA, precision)
        losses = LossModule(FeatureExtractor(own.model, trained), make_objectives(config))
        optimizer = optim.adamw(own.model, lr=1e-3, weight_decay=0.1)
        assert all(group["fused"] for group in optimizer.param_groups)
        seen: list[torch.dtype] = []
        hidden = own.model.transformer.resblocks[0].mlp.c_fc
        hidden.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
        for batch in (imagined(mode, one) for one in batches):
            images.normalise(batch.images.to(CUDA), batch.mean, batch.std)  # makes the constants
            with Waits() as waits, strategy.autocast():
                here = batch.to(CUDA)
                pixels = images.normalise(here.images, here.mean, here.std)
                output = losses(
                    pixels, here.positives, here.negatives, here.negative_mask, here.kind,
                    here.negative_kinds, plan=here.text_plan,
                )  # fmt: skip
            assert waits.found == []
            assert output.total.device == CUDA and output.total.dtype == torch.float32
        assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}


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
