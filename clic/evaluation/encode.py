"""Each distinct image and each distinct text of all benchmarks goes through the model once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clic.errors import ClicError, DataError, ModelError
from clic.evaluation.cases import Interner, Table
from clic.evaluation.refs import ImageRef, image_path, image_pixels

# Rows whose norm is this near to 1 stay as they are, bit for bit.
UNIT_TOLERANCE = 1e-6
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Unique:
    """The distinct items of several tables, and where each table's items are among them.

    Attributes:
        items: The U distinct texts or images.
        positions: For each table int64 [its items], index into `items`.
        sizes: For texts their lengths, by which they are put into batches.
    """

    items: list[Any]
    positions: list[np.ndarray]
    sizes: list[int] = field(default_factory=list)


def unique_images(tables: Sequence[Table]) -> Unique:
    """Return the union of the tables' images; the same file or the same pixels are one image."""
    union = Interner()
    positions = [union.add_all(table.images) for table in tables]
    return Unique(union.items, positions)


def unique_texts(
    tables: Sequence[Table], key: Callable[[str], Sequence[int]] | None = None
) -> Unique:
    """Return the union of the tables' texts.

    Args:
        tables: The benchmarks' tables.
        key: The token ids that the model sees of a text; None where only the string is known.
            Texts of equal ids must share one row, because encoding them twice can differ in the
            last bit and so break a tie.
    """
    strings = Interner()
    positions = [strings.add_all(table.texts) for table in tables]
    if key is None:
        return Unique(strings.items, positions, [len(text) for text in strings.items])
    ids = [tuple(key(text)) for text in strings.items]
    union = Interner()
    row = np.array([union.add(*pair) for pair in zip(strings.items, ids, strict=True)], dtype=int)
    # Padding repeats the last id, so what differs from it is the text.
    sizes = {i: sum(token != own[-1] for token in own) for i, own in zip(row, ids, strict=True)}
    lengths = [sizes[i] for i in range(len(union.items))]
    return Unique(union.items, [row[position] for position in positions], lengths)


def checked_features(output: Any, count: int, method: str) -> Tensor:
    """Return a model's output as float32 [count, D] on the CPU with unit norm.

    Rows that are not unit norm are normalised in float32.

    Raises:
        ModelError: The output has another shape, is not finite or has a zero row.
    """
    features = torch.as_tensor(output).detach().to("cpu", torch.float32)
    if features.ndim != 2 or len(features) != count:
        shape = tuple(features.shape)
        raise ModelError(f"{method} returned shape {shape} for {count} inputs; it must be [N, D]")
    if not bool(features.isfinite().all()):
        raise ModelError(f"{method} returned NaN or infinite features; the weights may be broken")
    norm = features.norm(dim=1, keepdim=True)
    if bool((norm == 0).any()):
        raise ModelError(f"{method} returned a feature of norm 0, which has no direction")
    unit = (norm - 1).abs() <= UNIT_TOLERANCE
    return torch.where(unit, features, features / norm)


def encode_texts(model: Any, texts: Unique, batch_size: int, advance: Advance) -> Tensor:
    """Return float32 [T, D]; texts of like length are encoded together, so that little is padded.

    Args:
        model: Has `encode_text`.
        texts: Distinct texts, passed on exactly as they are.
        batch_size: Texts at a time.
        advance: Called with the number of texts after each batch.
    """
    order = sorted(range(len(texts.items)), key=lambda i: (texts.sizes[i], i))
    rows: list[Tensor] = []
    for start in range(0, len(order), batch_size):
        batch = [texts.items[i] for i in order[start : start + batch_size]]
        rows.append(checked_features(model.encode_text(batch), len(batch), "encode_text"))
        advance(len(batch))
    features = _stack(rows, "encode_text")
    result = torch.empty_like(features)
    result[torch.tensor(order)] = features
    return result


def encode_images(
    model: Any,
    refs: Sequence[ImageRef],
    batch_size: int,
    workers: int,
    allow_broken: bool,
    advance: Advance,
) -> tuple[Tensor, dict[int, str]]:
    """Return float32 [I, D], and what is wrong with each broken image by its index.

    Decoding runs in threads, one batch ahead of the model.

    Args:
        model: Has `encode_image`, which is given PIL images (RGB).
        refs: Distinct images.
        batch_size: Images at a time.
        workers: Decoding threads.
        allow_broken: Give a broken image a row of zeros instead of failing.
        advance: Called with the number of images after each batch.

    Raises:
        DataError: An image cannot be decoded, and `allow_broken` is off.
    """
    rows: list[Tensor] = []
    where: list[int] = []
    broken: dict[int, str] = {}
    for start, batch in _decoded(refs, batch_size, workers):
        good = [i for i, item in enumerate(batch) if not isinstance(item, str)]
        for i, item in enumerate(batch):
            if isinstance(item, str):
                if not allow_broken:
                    raise DataError(f"{item}; replace the file, or leave it out (allow_missing)")
                broken[start + i] = item
        if good:
            output = model.encode_image([batch[i] for i in good])
            rows.append(checked_features(output, len(good), "encode_image"))
            where += [start + i for i in good]
        advance(len(batch))
    if not rows:
        raise DataError(f"none of the {len(refs)} images can be read; first: {broken.get(0)}")
    features = _stack(rows, "encode_image")
    result = features.new_zeros(len(refs), features.shape[1])
    result[torch.tensor(where)] = features
    return result, broken


@contextmanager
def progress_bar(show: bool, title: str, total: int) -> Iterator[Advance]:
    """Show a bar on stderr while the block runs, where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stderr)
    hidden = not (show and console.is_terminal)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _stack(rows: list[Tensor], method: str) -> Tensor:
    widths = {row.shape[1] for row in rows}
    if len(widths) != 1:
        raise ModelError(f"{method} returned features of several widths: {sorted(widths)}")
    return torch.cat(rows)


def _decode(ref: ImageRef) -> Image.Image | str:
    """Return an RGB image that knows its file's name, or what is wrong with it."""
    path = image_path(ref)
    try:
        picture = Image.fromarray(image_pixels(ref))
    except (OSError, ValueError, SyntaxError, ClicError) as error:
        return f"image {path} cannot be decoded ({' '.join(str(error).split())})"
    if path is not None:
        picture.filename = str(path)  # type: ignore[attr-defined]
    return picture


def _decoded(
    refs: Sequence[ImageRef], batch_size: int, workers: int
) -> Iterator[tuple[int, list[Image.Image | str]]]:
    """Yield the first index and the decoded images of each batch, decoding one batch ahead."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        ahead: list[Future[Image.Image | str]] = []
        previous = 0
        for start in range(0, len(refs), batch_size):
            waiting = [pool.submit(_decode, ref) for ref in refs[start : start + batch_size]]
            if ahead:
                yield previous, [future.result() for future in ahead]
            ahead, previous = waiting, start
        if ahead:
            yield previous, [future.result() for future in ahead]
