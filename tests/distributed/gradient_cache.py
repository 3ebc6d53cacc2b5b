"""What each rank does to compare whole batches with cached chunks; `forked.run_script` runs it."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clic import distributed, images, models
from clic.losses import OBJECTIVES, ClicObjective, Distilled, Objective
from clic.losses.registry import SIGMOID
from clic.models import FeatureExtractor, LossModule
from clic.training import compiling, passes
from clic.training.frozen_base import FrozenBase
from clic.training.passes import CachedPass, WholePass
from clic.training.strategy import DataParallel
from clic.types import Batch, TextPacks

sys.path.insert(0, str(Path(__file__).parent))
from checks import objectives

B, P, K, LENGTH, VOCABULARY, SIZE = 9, 3, 2, 8, 64, 16
CHUNKS = (1, 3, 8)
VISION = {"layers": 2, "width": 16, "head_width": 8, "image_size": SIZE, "patch_size": 8}
TEXT = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 2}
STRATEGY = DataParallel(torch.device("cpu"), "fp32")


def build(folder: Path, bias: bool) -> Any:
    """Return a small model of two transformers without dropout, the same on every rank."""
    folder = folder / f"model-{distributed.rank()}-{bias}"
    folder.mkdir(exist_ok=True)
    architecture = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
    architecture |= {"init_logit_bias": -2.0} if bias else {}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {}})
    )
    torch.manual_seed(0)
    clip = models.create(str(folder), None)
    for parameter in clip.model.parameters():  # or the towers would give all rows nearly the same
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return clip


def batch(kinds: tuple[str, ...]) -> Batch:
    """Return this rank's random batch; one row and one rank have fewer negatives than others."""
    generator = torch.Generator().manual_seed(distributed.rank())

    def texts(slots: int) -> Tensor:
        tokens = torch.randint(1, VOCABULARY - 1, (B, slots, LENGTH), generator=generator)
        for row in range(B):  # of several lengths: the end, then padding
            end = 3 + row % (LENGTH - 3)
            tokens[row, :, end], tokens[row, :, end + 1 :] = VOCABULARY - 1, 0
        return tokens

    mask = torch.rand(B, K, generator=generator) < 0.7
    mask[0], mask[1] = False, not distributed.rank()
    return Batch(
        images=torch.randint(0, 256, (B, SIZE, SIZE, 3), generator=generator).byte(),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        positives=texts(P),
        negatives=texts(K),
        negative_mask=mask,
        kind="composite",
        step=0,
        negative_kinds=kinds,
    )


def add_size(total: Tensor, part: Tensor) -> None:
    total += part.abs()


def gradients(
    clip: Any,
    objective: Objective,
    train: str,
    size: int | None,
    data: Batch,
    traced: bool = False,
    sums: dict[str, Tensor] | None = None,
) -> Any:
    """Return the loss, its terms and the gradients of a pass, whose towers may be traced.

    Captions are packed where both towers train. In `sums`, the absolute values of what each chunk
    adds to each gradient are added up.
    """
    clip = copy.deepcopy(clip)
    trained = models.set_trainable(clip.model, train, True)
    base = None
    if isinstance(objective, Distilled):
        base = FrozenBase(clip, trained)
        with torch.no_grad():  # as if some steps were done
            for parameter in clip.model.parameters():
                parameter += parameter.requires_grad * 0.1 * parameter.sin()
    models.set_mode(clip.model, trained)
    for name, parameter in clip.model.named_parameters():
        if sums is not None and parameter.requires_grad:
            sums[name] = torch.zeros_like(parameter)
            parameter.register_hook(partial(add_size, sums[name]))
    losses = LossModule(FeatureExtractor(clip.model, trained), {"composite": objective})
    data = losses.features.planner(size, plans=train == "both")(data)
    assert bool(data.text_plans) == (train == "both")
    if traced:
        compiling.COMPILER = {"backend": "aot_eager"}
        compiling.compile_towers(losses.features, *([base.features] if base else []))
    one: Any = (
        WholePass(losses, STRATEGY, base)
        if size is None
        else CachedPass(losses, STRATEGY, size, base)
    )
    output = one(data, lambda loss: loss)
    found = {n: p.grad for n, p in clip.model.named_parameters() if p.grad is not None}
    return output, found


def compared() -> Iterator[tuple[str, Objective, bool, tuple[str, ...]]]:
    """Yield every objective: its name, itself, whether it has a bias, and kinds of negatives."""
    for name, objective in objectives().items():
        bias = name == "sigmoid" or (name in OBJECTIVES and SIGMOID in OBJECTIVES[name].needs)
        yield name, objective, bias, ("swap", "layout") if name == "kinds" else ()
    yield "distilled", Distilled(ClicObjective(), 0.7), False, ()


def norm(values: dict[str, Tensor]) -> float:
    return float(torch.cat([value.flatten() for value in values.values()]).norm())


def worst(own: dict[str, Tensor], expected: dict[str, Tensor], sums: dict[str, Tensor]) -> float:
    """Return the largest distance of a parameter's gradient, relative to what was added up."""
    return max(
        float((own[n] - value).norm()) / float(sums[n].norm()) for n, value in expected.items()
    )


def main(folder: Path) -> None:
    clips = {bias: build(folder, bias) for bias in (False, True)}
    found: dict[str, Any] = {}
    exact: dict[str, dict[str, Tensor]] = {}
    added: dict[str, dict[str, Tensor]] = {}
    for dtype in (torch.float64, torch.float32):
        # The whole loss takes the model's dtype, from the pixels on.
        passes._pixels = lambda data, dtype=dtype: images.normalise(
            data.images, data.mean, data.std
        ).to(dtype)
        for name, objective, bias, kinds in compared():
            clip = copy.deepcopy(clips[bias])
            clip.model.to(dtype)
            for train in ("both", "text.last:1"):
                data = batch(kinds)
                whole, expected = gradients(clip, objective, train, None, data)
                case = f"{name}/{train}"
                best = exact.setdefault(case, expected)
                if case not in added:  # of single rows, in float64
                    added[case] = rows_sums(clip, objective, train, data)
                sums = added[case]
                for size in CHUNKS:
                    output, own = gradients(clip, objective, train, size, data)
                    assert own.keys() == expected.keys()
                    total = norm(expected)
                    entry = {
                        "gradient": norm({n: own[n] - value for n, value in expected.items()})
                        / total,
                        "parameter": worst(own, expected, sums),
                        "from exact": worst(own, best, sums),
                        "whole from exact": worst(expected, best, sums),
                        "cancels": max(
                            float(sums[n].norm() / value.norm()) for n, value in best.items()
                        ),
                        "loss": abs(float((output.total / whole.total).detach()) - 1),
                        "terms": sorted(output.terms) == sorted(whole.terms),
                        "norm": total,
                    }
                    found[f"{name}/{str(dtype).removeprefix('torch.')}/{train}/{size}"] = entry
        found[f"packed/{str(dtype).removeprefix('torch.')}"] = packed(clips[False], dtype)
    passes._pixels = lambda d: images.normalise(d.images, d.mean, d.std)
    for size in (None, 3):
        clip, objective = clips[False], Distilled(ClicObjective(), 0.7)
        whole, traced = (
            gradients(clip, objective, "both", size, batch(()), way)[1] for way in (False, True)
        )
        found[f"traced/{size}"] = norm({n: traced[n] - v for n, v in whole.items()}) / norm(whole)
    if distributed.world_size() > 1:
        found["reductions"] = reductions(clips[False])
    (folder / f"rank-{distributed.rank()}.json").write_text(json.dumps(found))


def rows_sums(clip: Any, objective: Objective, train: str, data: Batch) -> dict[str, Tensor]:
    """Return the sum over the rows of all ranks of the absolute values of each one's gradient."""
    sums: dict[str, Tensor] = {}
    gradients(clip, objective, train, 1, data, sums=sums)
    ranks = distributed.world_size()
    return {name: distributed.all_reduce_sum(value) / ranks for name, value in sums.items()}


def packed(clip: Any, dtype: torch.dtype) -> float:
    """Return the largest distance of packed captions' gradient from padded ones', relative."""
    clip, plain, found = copy.deepcopy(clip), batch(()), []
    clip.model.to(dtype)
    _, padded = gradients(clip, ClicObjective(), "both", None, plain)
    for size in (None, 3):
        planner = FeatureExtractor(clip.model, models.Trained(True, True)).planner(size)
        plans = planner(plain)
        assert all(isinstance(plan, TextPacks) for plan in plans.text_plans) and plans.text_plans
        _, own = gradients(clip, ClicObjective(), "both", size, plans)
        found.append(norm({n: own[n] - v for n, v in padded.items()}) / norm(padded))
    return max(found)


def reductions(clip: Any) -> dict[str, int]:
    """Return how many bytes of gradients a pass sends to the other ranks, whole and in chunks."""
    found = {}
    for size in (None, 1):
        clip = copy.deepcopy(clip)
        trained = models.set_trainable(clip.model, "text", True)
        models.set_mode(clip.model, trained)
        losses = LossModule(FeatureExtractor(clip.model, trained), {"composite": ClicObjective()})
        one: Any = (
            WholePass(losses, STRATEGY) if size is None else CachedPass(losses, STRATEGY, size)
        )
        module = one.losses if size is None else one.replay
        sent: list[int] = []

        def hook(state, bucket, sent=sent):  # type: ignore[no-untyped-def]  # torch reads it
            sent.append(bucket.buffer().numel())
            future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
            return future.then(lambda done: done.value()[0] / distributed.world_size())

        module.register_comm_hook(None, hook)
        data = batch(())
        one(data, lambda loss: loss)
        found["whole" if size is None else "cached"] = sum(sent)
    return found
