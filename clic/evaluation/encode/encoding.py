"""Encodes a plan: each distinct image and text of its benchmarks passes through the model once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clic.errors import ClicError, DataError, ModelError
from clic.evaluation.encode.distributed_encoding import Encoded, EncodedBatch, EncodingOptions
from clic.evaluation.encode.feature_cache import image_bytes, text_bytes
from clic.evaluation.encode.image_sources import ImageSource, image_path, image_pixels
from clic.evaluation.evaluation_plan import EvaluationPlan
from clic.evaluation.tables.table import BenchmarkTable, Interner, TableFeatures

# Rows whose norm is this close to 1 stay as they are, bit for bit.
UNIT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Unique:
    """The distinct items of several tables, and the position of each table's items among them.

    Attributes:
        items: The U distinct texts or images.
        positions: For each table int64 [its items], index into `items`.
        sizes: The lengths of texts.
        ids: The token ids of texts, as the model sees them, if it has a `text_key`.
    """

    items: list[Any]
    positions: list[np.ndarray]
    sizes: list[int] = field(default_factory=list)
    ids: list[tuple[int, ...]] | None = None


def unique_images(tables: Sequence[BenchmarkTable]) -> Unique:
    """Return the distinct images of the tables; the same file or the same pixels are one image."""
    union = Interner()
    positions = [union.add_all(table.images) for table in tables]
    return Unique(union.items, positions)


def unique_texts(
    tables: Sequence[BenchmarkTable], key: Callable[[str], Sequence[int]] | None = None
) -> Unique:
    """Return the distinct texts of the tables.

    Args:
        tables: The benchmarks' tables.
        key: Returns the token ids that the model sees for a text; None if only strings are known.
            Texts with equal ids must share one row, because encoding them twice may give features
            that differ in the last bit, which would break a tie.
    """
    strings = Interner()
    positions = [strings.add_all(table.texts) for table in tables]
    if key is None:
        return Unique(strings.items, positions, [len(text) for text in strings.items])
    union = Interner()
    ids = [tuple(key(text)) for text in strings.items]
    row = np.array([union.add(*pair) for pair in zip(strings.items, ids, strict=True)], dtype=int)
    distinct = list(dict.fromkeys(ids))
    # Padding repeats the last id; all other ids are the text.
    sizes = [sum(token != own[-1] for token in own) for own in distinct]
    return Unique(union.items, [row[position] for position in positions], sizes, distinct)


def checked_features(output: Any, count: int, method: str) -> Tensor:
    """Return a model's output as float32 [count, D] on the CPU with unit norm.

    Rows that are not unit norm are normalised in float32.

    Raises:
        ModelError: The output has the wrong shape, is not finite or has a zero row.
    """
    features = torch.as_tensor(output).detach().to("cpu", torch.float32)
    if features.ndim != 2 or len(features) != count:
        shape = tuple(features.shape)
        raise ModelError(f"{method} returned shape {shape} for {count} inputs; it must be [N, D]")
    if not bool(features.isfinite().all()):
        raise ModelError(
            f"{method} returned NaN or infinite features; the weights are broken, or too large for "
            "fp16 (then precision=bf16 or fp32)"
        )
    norm = features.norm(dim=1, keepdim=True)
    if bool((norm == 0).any()):
        raise ModelError(f"{method} returned a feature of norm 0, which has no direction")
    unit = (norm - 1).abs() <= UNIT_TOLERANCE
    return torch.where(unit, features, features / norm)


def encode_texts(model: Any, texts: Unique, options: EncodingOptions) -> Encoded:
    """Encode distinct texts, which the model gets exactly as they are.

    Texts of similar length share a batch, which saves padding. If the model has `texts_at_once`,
    texts with a common beginning share a batch, so that the model computes the beginning once.

    Args:
        model: Has `encode_text`, and `texts_at_once` if it forms batches itself.
        texts: Distinct texts.
        options: How to encode them.
    """
    at_once = int(getattr(model, "texts_at_once", 0))
    rank: Sequence[Any] = texts.ids if at_once and texts.ids is not None else texts.sizes
    order = np.array(sorted(range(len(texts.items)), key=lambda i: (rank[i], i)), dtype=np.int64)

    def encode(batches: Sequence[np.ndarray]) -> Iterator[EncodedBatch]:
        for batch in batches:
            output = model.encode_text([texts.items[i] for i in batch])
            yield EncodedBatch(batch, checked_features(output, len(batch), "encode_text"))

    def key(index: int) -> bytes | None:
        return None if texts.ids is None else text_bytes(texts.ids[index])

    tower = getattr(model, "text_tower_key", None)
    return options.encode_all("texts", tower, order, encode, key, max(options.batch_size, at_once))


def encode_images(
    model: Any, images: Sequence[ImageSource], options: EncodingOptions, allow_broken: bool
) -> Encoded:
    """Encode distinct images.

    Threads decode one batch ahead of the model (PIL's decoders and filters release the GIL), and
    call the model's `prepare_image`, if it has one.

    Args:
        model: Has `encode_image`, which takes PIL images (RGB); or `prepare_image` and
            `encode_prepared`.
        images: Distinct images.
        options: How to encode them.
        allow_broken: Give a broken image a row of zeros instead of failing.

    Raises:
        DataError: An image cannot be decoded and `allow_broken` is off, or none can be decoded.
    """
    prepare = getattr(model, "prepare_image", None) if hasattr(model, "encode_prepared") else None
    encode_all = model.encode_image if prepare is None else model.encode_prepared

    def encode(batches: Sequence[np.ndarray]) -> Iterator[EncodedBatch]:
        for batch, items in _decoded(images, batches, options.workers, prepare):
            bad = {int(i): item for i, item in zip(batch, items, strict=True) if _is_bad(item)}
            if bad and not allow_broken:
                reason = next(iter(bad.values()))
                raise DataError(f"{reason}; replace the file, or leave it out (allow_missing)")
            good = [item for item in items if not _is_bad(item)]
            rows = np.array([i for i in batch if i not in bad], dtype=np.int64)
            features = None
            if good:
                features = checked_features(encode_all(good), len(good), "encode_image")
            yield EncodedBatch(rows, features, bad)

    tower, order = getattr(model, "image_tower_key", None), np.arange(len(images))
    done = options.encode_all(
        "images", tower, order, encode, lambda i: image_bytes(images[i]), options.batch_size
    )
    if len(done.broken) == len(images):
        reason = done.broken.get(0)
        raise DataError(f"none of the {len(images)} images can be read; first: {reason}")
    return done


def _is_bad(item: Any) -> bool:
    """Return whether `_decode` returned a reason instead of an image."""
    return isinstance(item, str)


def _decode(image: ImageSource, prepare: Callable[[np.ndarray], Any] | None) -> Any:
    """Return an image as the model expects it, or the reason why it cannot be decoded.

    Without `prepare`, this is a PIL image whose `filename` is set if it has a file.
    """
    path = image_path(image)
    try:
        pixels = image_pixels(image)
        if prepare is not None:
            return prepare(pixels)
    except (OSError, ValueError, SyntaxError, ClicError) as error:
        name = "made for the benchmark" if path is None else path
        return f"image {name} cannot be decoded ({' '.join(str(error).split())})"
    picture = Image.fromarray(pixels)
    if path is not None:
        picture.filename = str(path)  # type: ignore[attr-defined]
    return picture


def _decoded(
    images: Sequence[ImageSource],
    batches: Sequence[np.ndarray],
    workers: int,
    prepare: Callable[[np.ndarray], Any] | None,
) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Yield each batch with its decoded images, decoding one batch ahead."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        ahead: list[Future[Any]] = []
        try:
            for number, batch in enumerate(batches):
                waiting = [pool.submit(_decode, images[i], prepare) for i in batch]
                if number:
                    yield batches[number - 1], [future.result() for future in ahead]
                ahead = waiting
            if ahead:
                yield batches[-1], [future.result() for future in ahead]
        finally:
            pool.shutdown(cancel_futures=True)  # a failure makes the rest useless


Broken = dict[int, str]


@dataclass(frozen=True)
class EncodedPlan:
    """One model's features of a plan.

    Attributes:
        features: One for each table.
        broken: For each table its broken images (index in the table -> reason).
        stages: For `images` and `texts` their number, how many came from the cache, and seconds.
    """

    features: list[TableFeatures] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def encode_plan(model: Any, plan: EvaluationPlan, options: EncodingOptions) -> EncodedPlan:
    """Encode a plan's texts, and its images unless the plan leaves them out."""
    tables = [item.table for item in plan.prepared]
    if not tables:
        return EncodedPlan()
    texts = unique_texts(tables, getattr(model, "text_key", None))
    text = encode_texts(model, texts, options)
    stages = {"texts": _stage(len(texts.items), text)}
    found: TableImages = [(None, {}) for _ in tables]
    if plan.with_images and any(table.images for table in tables):
        found, stages["images"] = _images(model, plan, options)
    features = []
    for (image, _), position, table in zip(found, texts.positions, tables, strict=True):
        image = image if table.images else None
        if image is not None and image.shape[1] != text.features.shape[1]:
            raise ModelError(
                f"the image features are {image.shape[1]} wide and the text features "
                f"{text.features.shape[1]}; both must lie in one space"
            )
        features.append(TableFeatures(image, text.features[torch.from_numpy(position)]))
    return EncodedPlan(features, [broken for _, broken in found], stages)


TableImages = list[tuple[Tensor | None, Broken]]
"""For each table its image features [I, D], zero for unused images, and its broken images."""


def _images(
    model: Any, plan: EvaluationPlan, options: EncodingOptions
) -> tuple[TableImages, dict[str, float]]:
    """Return each table's images, reusing the last model's if its image tower is the same."""
    key = getattr(model, "image_key", None)
    if key is not None and key in plan.seen:
        found, count = plan.seen[key]
        return found, {"items": count, "cached": count, "seconds": 0.0}
    found, stage = _encode_images(model, plan, options)
    plan.seen.clear()  # keep at most one tower's features
    if key is not None:
        plan.seen[key] = (found, stage["items"])
    return found, stage


def _encode_images(
    model: Any, plan: EvaluationPlan, options: EncodingOptions
) -> tuple[TableImages, dict[str, float]]:
    tables = [item.table for item in plan.prepared]
    union = unique_images(tables)
    used = np.zeros(len(union.items), dtype=bool)
    for table, position in zip(tables, union.positions, strict=True):
        used[position[table.used_images()]] = True
    wanted = np.flatnonzero(used)
    allow_broken = bool(plan.settings.get("allow_missing"))
    encoded = encode_images(model, [union.items[i] for i in wanted], options, allow_broken)
    image = encoded.features.new_zeros(len(union.items), encoded.features.shape[1])
    image[torch.from_numpy(wanted)] = encoded.features
    reasons = {int(wanted[i]): reason for i, reason in encoded.broken.items()}
    found: TableImages = [
        (
            image[torch.from_numpy(position)],
            {i: reasons[p] for i, p in enumerate(position.tolist()) if p in reasons},
        )
        for position in union.positions
    ]
    return found, _stage(len(wanted), encoded)


def _stage(items: int, encoded: Encoded) -> dict[str, float]:
    return {"items": items, "cached": encoded.cached, "seconds": round(encoded.seconds, 3)}
