"""Rows of A images and B captions, scored all against all: which of them are right, by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clic import metrics
from clic.errors import DataError, pick
from clic.evaluation.encode.image_refs import image_name
from clic.evaluation.tables.cases import Grids

ROWS = 2048  # at a time: bounds the gathered features to some tens of megabytes
Outcomes = dict[str, Tensor]


def choice(scores: Tensor) -> Outcomes:
    """Return `accuracy`: the first of B captions of one image, or of A images, beats the others."""
    options = scores.flatten(1)
    return {"accuracy": metrics.beats(options[:, :1], options[:, 1:]).all(1)}


def cola(scores: Tensor) -> Outcomes:
    """Return `accuracy`: each caption's own image beats the other one (arXiv 2305.03689)."""
    return {"accuracy": metrics.winoground(scores)["image"]}


def bivlc(scores: Tensor) -> Outcomes:
    """Return both directions and their parts (arXiv 2406.09952).

    i2t: each image's own caption beats the other one; its parts are i_pos and i_neg. t2i: each
    caption's own image beats the other one; its parts are t_pos and t_neg. group: all four.
    """
    parts = {
        "i_pos": metrics.beats(scores[:, 0, 0], scores[:, 0, 1]),
        "i_neg": metrics.beats(scores[:, 1, 1], scores[:, 1, 0]),
        "t_pos": metrics.beats(scores[:, 0, 0], scores[:, 1, 0]),
        "t_neg": metrics.beats(scores[:, 1, 1], scores[:, 0, 1]),
    }
    both = metrics.winoground(scores)
    return {"i2t": both["text"], "t2i": both["image"], "group": both["group"], **parts}


RULES: dict[str, Callable[[Tensor], Outcomes]] = {
    "choice": choice,
    "winoground": metrics.winoground,
    "cola": cola,
    "bivlc": bivlc,
}
"""Scores [N, A images, B captions] -> bool [N] by metric."""


def grid_scores(table: Grids, image: Tensor, text: Tensor) -> Tensor:
    """Return cosines [N, A, B]; -inf where a row has no such caption.

    Each is a sum over its own two rows, so that equal features give equal bits.
    """
    parts = []
    for start in range(0, table.rows, ROWS):
        images = torch.from_numpy(table.image[start : start + ROWS])
        captions = torch.from_numpy(table.caption[start : start + ROWS])
        left, right = image[images].unsqueeze(2), text[captions.clamp(min=0)].unsqueeze(1)
        scores = torch.stack([(left[:, a] * right[:, 0]).sum(-1) for a in range(left.shape[1])], 1)
        parts.append(scores.masked_fill((captions < 0).unsqueeze(1), float("-inf")))
    return torch.cat(parts) if parts else image.new_empty(0, *table.image.shape[1:], 0)


def outcomes(table: Grids, scores: Tensor) -> Outcomes:
    """Return bool [N] for each metric of the table's rule."""
    return pick(RULES, table.rule, "rule")(scores)


def score_grids(table: Grids, image: Tensor, text: Tensor) -> dict[str, Any]:
    """Return the numbers of each category, the macro means and, where asked, of all rows as one.

    Raises:
        DataError: A category has no rows left.
    """
    right = outcomes(table, grid_scores(table, image, text))
    numbers: dict[str, Any] = {}
    for index, name in enumerate(table.categories):
        mine = table.category == index
        if not mine.any():
            raise DataError(f"category {name!r} has no rows left; get the missing images")
        numbers[name] = _entry(table, right, mine)
    means = {name: _mean([numbers[c] for c in of]) for name, of in table.groups.items()}
    whole = {}
    if table.overall is not None:
        whole[table.overall] = _entry(table, right, np.ones(table.rows, dtype=bool))
    return {**numbers, **means, **whole}


def _entry(table: Grids, right: Outcomes, mine: np.ndarray) -> dict[str, float]:
    """Return percentages over the rows of bool [N], of whole sets too, and their number."""
    chosen, count = torch.from_numpy(mine), int(mine.sum())
    entry = {name: 100 * int(bits[chosen].sum()) / count for name, bits in right.items()}
    for name, members in table.sets.items():
        numbers = members[mine & (members >= 0)]
        if len(numbers):
            bits = right["accuracy"].numpy()[mine & (members >= 0)]
            wrong = np.unique(numbers[~bits])
            total = len(np.unique(numbers))
            entry[name] = 100 * (total - len(wrong)) / total
    return {**entry, "n": count}


def _mean(entries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the unweighted mean of the metrics that all entries have; `n` is their sum."""
    names = [name for name in entries[0] if name != "n" and all(name in e for e in entries)]
    mean = {name: sum(entry[name] for entry in entries) / len(entries) for name in names}
    return {**mean, "n": sum(entry["n"] for entry in entries)}


def grid_rows(table: Grids, image: Tensor, text: Tensor) -> Iterator[dict[str, Any]]:
    """Yield each row's outcome with its images, captions and scores [A][B]."""
    scores = grid_scores(table, image, text)
    right = {name: bits.tolist() for name, bits in outcomes(table, scores).items()}
    for n in range(table.rows):
        options = [int(i) for i in table.caption[n] if i >= 0]
        yield {
            "row": n,
            "category": table.categories[table.category[n]],
            "images": [image_name(table.images[i], int(i)) for i in table.image[n]],
            "captions": [table.texts[i] for i in options],
            **({"sets": sets} if (sets := _sets(table, n)) else {}),
            **{name: values[n] for name, values in right.items()},
            "scores": scores[n, :, : len(options)].tolist(),
        }


def _sets(table: Grids, n: int) -> dict[str, int]:
    """Return the numbers of the sets that a row belongs to, by metric."""
    return {name: int(members[n]) for name, members in table.sets.items() if members[n] >= 0}
