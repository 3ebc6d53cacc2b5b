"""A plan's images and texts, each encoded once, given back to the tables that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clic.errors import ModelError
from clic.evaluation import encode, scoring
from clic.evaluation.cache import FeatureCache
from clic.evaluation.cases import used_images
from clic.evaluation.plan import Plan
from clic.evaluation.share import Encoded, Share

Broken = dict[int, str]


@dataclass(frozen=True)
class Work:
    """How to encode; see `runner.evaluate`."""

    batch_size: int
    workers: int
    progress: bool
    cache: FeatureCache | None
    all_ranks: bool

    def share(self, title: str, tower: Any) -> Share:
        """Return this rank's share of the images or of the texts."""
        return Share(title, self.batch_size, self.progress, self.all_ranks, self.cache, tower)


@dataclass(frozen=True)
class EncodedPlan:
    """What a model makes of a plan.

    Attributes:
        features: Each table's.
        broken: For each table its broken images (index in the table -> reason).
        stages: For `images` and `texts` how many there were, how many were read from the cache,
            and seconds.
    """

    features: list[scoring.TableFeatures] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def encode_plan(model: Any, plan: Plan, work: Work) -> EncodedPlan:
    """Encode a plan's texts, and its images unless the plan leaves them out."""
    tables = [item.table for item in plan.prepared]
    if not tables:
        return EncodedPlan()
    texts = encode.unique_texts(tables, getattr(model, "text_key", None))
    share = work.share("texts", getattr(model, "text_tower_key", None))
    text = encode.encode_texts(model, texts, share)
    own_text = [text.features[torch.from_numpy(position)] for position in texts.positions]
    stages = {"texts": _stage(len(texts.items), text)}
    if not plan.with_images:
        features = [scoring.TableFeatures(None, own) for own in own_text]
        return EncodedPlan(features, [{} for _ in tables], stages)
    found, stages["images"] = _images(model, plan, work)
    for image, _ in found:
        if image.shape[1] != text.features.shape[1]:
            raise ModelError(
                f"the image features are {image.shape[1]} wide and the text features "
                f"{text.features.shape[1]}; they must be of one space"
            )
    features = [
        scoring.TableFeatures(image, own) for (image, _), own in zip(found, own_text, strict=True)
    ]
    return EncodedPlan(features, [broken for _, broken in found], stages)


def _images(
    model: Any, plan: Plan, work: Work
) -> tuple[list[tuple[Tensor, Broken]], dict[str, float]]:
    """Return each table's image features and broken images; those of the last equal tower again."""
    key = getattr(model, "image_key", None)
    if key is not None and key in plan.seen:
        found, count = plan.seen[key]
        return found, {"items": count, "cached": count, "seconds": 0.0}
    found, stage = _encode_images(model, plan, work)
    plan.seen.clear()  # one tower's features at a time, so that memory does not grow
    if key is not None:
        plan.seen[key] = (found, stage["items"])
    return found, stage


def _encode_images(
    model: Any, plan: Plan, work: Work
) -> tuple[list[tuple[Tensor, Broken]], dict[str, float]]:
    """Return each table's image features and broken images; lost images have rows of zeros."""
    tables = [item.table for item in plan.prepared]
    union = encode.unique_images(tables)
    used = np.zeros(len(union.items), dtype=bool)
    for table, position in zip(tables, union.positions, strict=True):
        used[position[used_images(table)]] = True
    wanted = np.flatnonzero(used)
    encoded = encode.encode_images(
        model,
        [union.items[i] for i in wanted],
        work.share("images", getattr(model, "image_tower_key", None)),
        work.workers,
        bool(plan.settings.get("allow_missing")),
    )
    image = encoded.features.new_zeros(len(union.items), encoded.features.shape[1])
    image[torch.from_numpy(wanted)] = encoded.features
    reasons = {int(wanted[i]): reason for i, reason in encoded.broken.items()}
    found = [
        (
            image[torch.from_numpy(position)],
            {i: reasons[p] for i, p in enumerate(position.tolist()) if p in reasons},
        )
        for position in union.positions
    ]
    return found, _stage(len(wanted), encoded)


def _stage(items: int, encoded: Encoded) -> dict[str, float]:
    return {"items": items, "cached": encoded.cached, "seconds": round(encoded.seconds, 3)}
