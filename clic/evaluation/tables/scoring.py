"""From features and a table to numbers: pure, and the same for every model.

Numbers are percentages, unrounded. What a comparison means stands in `clic.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clic import metrics
from clic.errors import DataError
from clic.evaluation.encode.image_refs import image_name
from clic.evaluation.tables.cases import (
    Classification,
    ClassificationTask,
    Grids,
    Retrieval,
    Table,
    Triplets,
    used_images,
)
from clic.evaluation.tables.rules import grid_rows, score_grids

KS = (1, 5, 10)
QUERIES = 256  # at a time, where only the highest score of each is wanted
Numbers = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class TableFeatures:
    """What a model makes of one table's items.

    Attributes:
        image: float32 [I, D], unit norm, None for a model without images.
        text: float32 [T, D], unit norm.
    """

    image: Tensor | None
    text: Tensor


def score(table: Table, features: TableFeatures) -> Numbers:
    """Return a benchmark's numbers in the form of the report.

    Raises:
        DataError: No row is left to score.
    """
    if isinstance(table, Triplets):
        return _score_triplets(table, features)
    if features.image is None:
        raise ValueError("this table needs image features")
    if isinstance(table, Retrieval):
        return _score_retrieval(table, features.image, features.text)
    if isinstance(table, Grids):
        return score_grids(table, features.image, features.text)
    return _score_classification(table, features.image, features.text)


def rows(table: Table, features: TableFeatures) -> Iterator[Row]:
    """Yield each row's outcome with its scores and captions."""
    if isinstance(table, Triplets):
        yield from _triplet_rows(table, features)
    elif features.image is None:
        raise ValueError("this table needs image features")
    elif isinstance(table, Retrieval):
        yield from _retrieval_rows(table, features.image, features.text)
    elif isinstance(table, Grids):
        yield from grid_rows(table, features.image, features.text)
    else:
        yield from _classification_rows(table, features.image, features.text)


def _percent(outcome: Tensor) -> float:
    return 100 * int(outcome.sum()) / len(outcome)


# Triplets


def _gather(features: Tensor, index: np.ndarray) -> Tensor:
    return features[torch.from_numpy(index)]


def _outcomes(table: Triplets, features: TableFeatures) -> dict[str, Tensor]:
    """Return bool [N] for each metric; with one positive, `itt` and `p1` are the same number."""
    image = None if features.image is None else _gather(features.image, table.image)
    first = _gather(features.text, table.positive1)
    negative = _gather(features.text, table.negative)
    if table.positive2 is None:
        if image is None:
            raise ValueError("rows with one positive need image features")
        right = metrics.triplet(image, first, first, negative)["p1"]
        return {"itt": right, "p1": right}
    return metrics.triplet(image, first, _gather(features.text, table.positive2), negative)


def _score_triplets(table: Triplets, features: TableFeatures) -> Numbers:
    outcomes = _outcomes(table, features)
    numbers: Numbers = {}
    for index, name in enumerate(table.categories):
        mine = torch.from_numpy(table.category == index)
        count = int(mine.sum())
        if not count:
            raise DataError(f"category {name!r} has no rows left; get the missing images")
        numbers[name] = {metric: _percent(right[mine]) for metric, right in outcomes.items()}
        numbers[name]["n"] = count
    means = {name: macro_mean([numbers[c] for c in of]) for name, of in table.groups.items()}
    return {**numbers, **means}


def macro_mean(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the unweighted mean of each metric over categories; `n` is the sum of their rows."""
    mean = {
        metric: sum(entry[metric] for entry in entries) / len(entries)
        for metric in entries[0]
        if metric != "n"
    }
    return {**mean, "n": sum(entry["n"] for entry in entries)}


def _triplet_rows(table: Triplets, features: TableFeatures) -> Iterator[Row]:
    outcomes = _outcomes(table, features)
    captions = {"positive1": table.positive1, "negative": table.negative}
    pairs: list[tuple[str, str]] = []
    if table.positive2 is not None:
        captions = {**captions, "positive2": table.positive2}
        pairs = [("positive1", "positive2"), ("positive1", "negative"), ("positive2", "negative")]
    parts = {name: _gather(features.text, index) for name, index in captions.items()}
    if features.image is not None:
        pairs += [("image", name) for name in captions]
        parts["image"] = _gather(features.image, table.image)
    scores = {f"{a}_{b}": (parts[a] * parts[b]).sum(-1).tolist() for a, b in pairs}
    right = {metric: outcome.tolist() for metric, outcome in outcomes.items()}
    for n in range(table.rows):
        image = int(table.image[n])
        yield {
            "row": n,
            "category": table.categories[table.category[n]],
            "image": image_name(table.images[image], image),
            "captions": {name: table.texts[index[n]] for name, index in captions.items()},
            **{metric: values[n] for metric, values in right.items()},
            "scores": {name: values[n] for name, values in scores.items()},
        }


# Retrieval


def _retrieval_ranks(table: Retrieval, image: Tensor, text: Tensor) -> dict[str, Tensor]:
    """Return the rank of each gallery image's and of each caption's best match."""
    if not table.rows:
        raise DataError("the gallery has no images left; get the missing images")
    gallery, caption = _gather(image, table.gallery), torch.from_numpy(table.caption)

    def block(start: int, stop: int) -> Tensor:
        # One product for each distinct text: equal captions then have equal scores, bit for bit.
        return (gallery[start:stop] @ text.T)[:, caption]

    return metrics.ranks(block, len(gallery), torch.from_numpy(table.owner))


def _score_retrieval(table: Retrieval, image: Tensor, text: Tensor) -> Numbers:
    counts = {"n_images": len(table.gallery), "n_captions": len(table.caption)}
    return {**metrics.recall_at(_retrieval_ranks(table, image, text), KS), **counts}


def _retrieval_rows(table: Retrieval, image: Tensor, text: Tensor) -> Iterator[Row]:
    """Yield each query with its rank and with the candidate that scores highest."""
    ranks = {way: rank.tolist() for way, rank in _retrieval_ranks(table, image, text).items()}
    captions = [table.texts[i] for i in table.caption]
    names = [image_name(table.images[i], int(i)) for i in table.gallery]
    of_images, of_captions = _gather(image, table.gallery), _gather(text, table.caption)
    own = (of_captions * of_images[torch.from_numpy(table.owner)]).sum(-1)
    best = own.new_full([len(of_images)], float("-inf"))
    best = best.scatter_reduce(0, torch.from_numpy(table.owner), own, "amax")
    tops = _highest(of_images, of_captions)
    queries = zip(names, ranks["image_to_text"], tops, best.tolist(), strict=True)
    for name, rank, (top, score), match in queries:
        row = {"direction": "image_to_text", "image": name, "rank": rank, "top": captions[top]}
        yield {**row, "scores": {"match": match, "top": score}}
    tops = _highest(of_captions, of_images)
    asked = zip(captions, table.owner, ranks["text_to_image"], tops, own.tolist(), strict=True)
    for caption, owner, rank, (top, score), match in asked:
        row = {"direction": "text_to_image", "caption": caption, "image": names[owner]}
        yield {**row, "rank": rank, "top": names[top], "scores": {"match": match, "top": score}}


def _highest(queries: Tensor, candidates: Tensor) -> list[tuple[int, float]]:
    """Return the number and the score of the candidate that scores highest for each query."""
    found: list[tuple[int, float]] = []
    for part in queries.split(QUERIES):
        scores, tops = (part @ candidates.T).max(1)
        found += zip(tops.tolist(), scores.tolist(), strict=True)
    return found


# Classification


def _class_scores(task: ClassificationTask, image: Tensor, text: Tensor) -> Tensor:
    """Return [N, C]: cosine to the normalised mean of each class's prompt embeddings."""
    means = torch.stack([_gather(text, prompts).mean(0) for prompts in task.prompts])
    return _gather(image, task.image) @ torch.nn.functional.normalize(means, dim=1).T


def _score_classification(table: Classification, image: Tensor, text: Tensor) -> Numbers:
    numbers: Numbers = {}
    for name, task in table.tasks.items():
        if not len(task.image):
            raise DataError(f"task {name!r} has no images left; get the missing images")
        scores = _class_scores(task, image, text)
        right = metrics.classification(scores, torch.from_numpy(task.target))
        numbers[name] = _percent(right)
        if table.per_class:
            key = "mean_per_class" if len(table.tasks) == 1 else f"{name}_mean_per_class"
            numbers[key] = _per_class(right, task.target)
    return {**numbers, "n_images": int(used_images(table).sum())}


def _per_class(right: Tensor, target: np.ndarray) -> float:
    """Return the unweighted mean of the accuracies of the classes that have images, percent."""
    total = np.bincount(target)
    hits = np.bincount(target, weights=right.numpy(), minlength=len(total))
    return 100 * float((hits[total > 0] / total[total > 0]).mean())


def _classification_rows(table: Classification, image: Tensor, text: Tensor) -> Iterator[Row]:
    for name, task in table.tasks.items():
        scores = _class_scores(task, image, text)
        right = metrics.classification(scores, torch.from_numpy(task.target)).tolist()
        of_target = scores.gather(1, torch.from_numpy(task.target).long()[:, None])[:, 0].tolist()
        for n, index in enumerate(task.image):
            predicted = int(scores[n].argmax())
            yield {
                "task": name,
                "image": image_name(table.images[index], int(index)),
                "target": task.classes[task.target[n]],
                "predicted": task.classes[predicted],
                "right": right[n],
                "scores": {"target": of_target[n], "predicted": scores[n, predicted].item()},
            }
