"""The worst failures of a model: the rows it got wrong by the widest margin, with their images."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from PIL import Image

from clic.evaluation.encode.image_refs import ImageRef, image_name, image_path, image_pixels
from clic.evaluation.report.report import Report
from clic.evaluation.tables.cases import Grids, Retrieval, Table, Triplets
from clic.evaluation.tables.margins import Row, margin, margins

LIMIT = 24  # failures of a benchmark
SIDE = 224  # pixels of a picture's longer side
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """An image of a card.

    Attributes:
        label: What it is in the comparison.
        name: Its file, or number.
        uri: The picture itself as a data URI, None where it is not at hand.
    """

    label: str
    name: str
    uri: str | None


@dataclass(frozen=True)
class Text:
    """A caption or class of a card.

    Attributes:
        text: Itself.
        is_true: Whether it is the right one.
        scores: Its cosine with each picture, or what else was compared.
    """

    text: str
    is_true: bool
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A row that a model got wrong.

    Attributes:
        category: Category, task or direction.
        verdict: What went wrong, and by how much.
        outcomes: What of the row's metrics is right.
        pictures: Its images.
        texts: Its captions.
        number: The row's number in its benchmark.
    """

    category: str
    verdict: str
    pictures: tuple[Picture, ...]
    texts: tuple[Text, ...]
    outcomes: dict[str, bool] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, eq=False)
class Worst:
    """What a model got wrong in one benchmark.

    Attributes:
        failures: The worst ones, the worst first.
        right: bool [N], the rows whose margin is above 0.
    """

    failures: list[Failure]
    right: np.ndarray


def worst(report: Report, limit: int = LIMIT) -> dict[str, Worst]:
    """Return each benchmark's worst failures.

    Args:
        report: With its rows; with its tables too, where images are to be shown.
        limit: Failures of a benchmark; retrieval has half of them for each direction.
    """
    found = {}
    for bench, rows in groupby(report.rows, key=lambda row: row["benchmark"]):
        table = report.tables.get(bench)
        chosen, right = _choose(rows, limit)
        failures = [replace(_failure(row, _Pictures(table, n)), number=n) for n, row in chosen]
        found[bench] = Worst(failures, right)
    return found


def _choose(rows: Iterable[Row], limit: int) -> tuple[list[tuple[int, Row]], np.ndarray]:
    """Return the wrong rows of the lowest margins, and for every row whether it is right."""
    heaps: dict[str, list[tuple[float, int, Row]]] = {}
    right: list[bool] = []
    for n, row in enumerate(rows):
        how_wrong = -margin(row)
        right.append(how_wrong < 0)
        if how_wrong >= 0:
            heap = heaps.setdefault(row.get("direction", ""), [])
            entry = (how_wrong, -n, row)
            (heapq.heappush if len(heap) < limit else heapq.heappushpop)(heap, entry)
    share = max(1, limit // max(1, len(heaps)))
    chosen = [
        (-minus_n, row)
        for heap in heaps.values()
        for _, minus_n, row in sorted(heap, key=lambda entry: entry[:2], reverse=True)[:share]
    ]
    return chosen, np.array(right, dtype=bool)


class _Pictures:
    """The images of one row of a table; without the table, their names alone."""

    def __init__(self, table: Table | None, n: int) -> None:
        self.refs: list[ImageRef] = [] if table is None else _refs(table, n)
        self.table = table
        self.captions: list[str] = []
        if isinstance(table, Retrieval) and n < len(table.gallery):
            own = np.flatnonzero(table.owner == n)
            self.captions = [table.texts[i] for i in table.caption[own]]

    def picture(self, label: str, name: str, position: int = 0) -> Picture:
        """Return the row's image at this position."""
        return Picture(label, name, _data_uri(self.refs[position]) if self.refs else None)

    def named(self, label: str, name: str) -> Picture:
        """Return an image of the gallery by its name."""
        refs: Sequence[ImageRef] = self.table.images if self.table is not None else ()
        found = (ref for i, ref in enumerate(refs) if image_name(ref, i) == name)
        ref = next(found, None)
        return Picture(label, name, None if ref is None else _data_uri(ref))


def _refs(table: Table, n: int) -> list[ImageRef]:
    """Return the images that the table's n-th row looks at."""
    if isinstance(table, Triplets | Grids):
        return [table.images[i] for i in np.atleast_1d(table.image[n])]
    if isinstance(table, Retrieval):
        images = len(table.gallery)
        position = n if n < images else table.owner[n - images]
        return [table.images[table.gallery[position]]]
    return [table.images[np.concatenate([t.image for t in table.tasks.values()])[n]]]


def _data_uri(ref: ImageRef) -> str:
    """Return a small picture of an image: JPEG of a photograph, PNG of a drawing."""
    picture = Image.fromarray(image_pixels(ref))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file, kind = io.BytesIO(), "png" if image_path(ref) is None else "jpeg"
    picture.save(file, kind.upper(), **({"quality": QUALITY} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _failure(row: Row, pictures: _Pictures) -> Failure:
    if "direction" in row:
        return _query(row, pictures)
    if "task" in row:
        return _classified(row, pictures)
    if isinstance(row["scores"], dict):
        return _triplet(row, pictures)
    return _grid(row, pictures)


def _outcomes(row: Row) -> dict[str, bool]:
    if "itt" in row and "tot" not in row:  # with one true caption ITT is P1: the verdict says it
        return {}
    return {name: value for name, value in row.items() if isinstance(value, bool)}


def _by(margin: float) -> str:
    """Return by how much a comparison was lost, of several the most."""
    return f", by {-margin:.3f}" if margin < -0.0005 else ", by a hair" if margin else ", in a tie"


def _triplet(row: Row, pictures: _Pictures) -> Failure:
    scores, captions, won = row["scores"], row["captions"], margins(row)
    lost = [name for name, value in won.items() if value <= 0]
    with_image = "image_negative" in scores
    names = {"first": "positive1", "second": "positive2"}
    if not with_image:
        verdict = "the false caption is as near to a true one as the true ones to each other"
    elif len(lost) == 2:
        verdict = "the false caption beats both true ones"
    else:
        which = f"the {lost[0]} true one" if "positive2" in captions else "the true one"
        verdict = f"the false caption beats {which}"
    verdict += _by(min(won.values()))
    texts = [
        Text(captions[key], True, (scores[f"image_{key}"],) if with_image else ())
        for key in names.values()
        if key in captions
    ]
    false = (scores["image_negative"],) if with_image else ()
    shown = (pictures.picture("", row["image"]),) if with_image else ()
    return Failure(
        row["category"], verdict, shown, (*texts, Text(captions["negative"], False, false)),
        _outcomes(row),
    )  # fmt: skip


def _grid(row: Row, pictures: _Pictures) -> Failure:
    scores = np.array(row["scores"])
    images, captions = scores.shape
    lost = {name: value for name, value in margins(row).items() if value <= 0}
    by = _by(min(lost.values()))
    if captions == 1 < images:
        labels = ["right", *["wrong"] * (images - 1)]
        verdict = f"another image is nearer to the caption{by}"
    elif images == 1:
        labels, verdict = [""], f"a false caption beats the true one{by}"
    else:
        labels = [f"image {i + 1}" for i in range(images)]
        verdict = f"wrong for {', '.join(lost)}{by}"
    shown = [
        pictures.picture(label, name, i)
        for i, (label, name) in enumerate(zip(labels, row["images"], strict=True))
    ]
    texts = [
        Text(text, images > 1 or j == 0, tuple(scores[:, j].tolist()))
        for j, text in enumerate(row["captions"])
    ]
    return Failure(row["category"], verdict, tuple(shown), tuple(texts), _outcomes(row))


def _query(row: Row, pictures: _Pictures) -> Failure:
    scores, category = row["scores"], row["direction"].replace("_", " ")
    found = row["rank"] < 1 << 62  # else an image without a caption, or no number
    rank = f"rank {row['rank']:,}" if found else "no rank"
    verdict = f"the best match ({scores['match']:.3f}) is at {rank}"
    if row["direction"] == "image_to_text":
        texts = [Text(text, True) for text in pictures.captions]
        top = Text(row["top"], False, (scores["top"],))
        return Failure(category, verdict, (pictures.picture("", row["image"]),), (*texts, top))
    shown = (
        pictures.picture(f"right: {scores['match']:.3f}", row["image"]),
        pictures.named(f"found: {scores['top']:.3f}", row["top"]),
    )
    return Failure(category, verdict, shown, (Text(row["caption"], True),))


def _classified(row: Row, pictures: _Pictures) -> Failure:
    scores = row["scores"]
    verdict = f"taken for {row['predicted']}{_by(margin(row))}"
    texts = (
        Text(row["target"], True, (scores["target"],)),
        Text(row["predicted"], False, (scores["predicted"],)),
    )
    return Failure(row["task"], verdict, (pictures.picture("", row["image"]),), texts)
