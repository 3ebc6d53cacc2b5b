"""By how much a row was won or lost: what tells a bad failure from a narrow one."""

from __future__ import annotations

from typing import Any

import numpy as np

Row = dict[str, Any]


def margin(row: Row) -> float:
    """Return by how much the row's narrowest comparison was won; 0 or less is wrong.

    In cosines: triplets by ITT, or by TOT where there is no image; two images and two captions by
    every comparison of the benchmark's strictest metric. Retrieval: 1.5 less the rank.
    """
    return min(margins(row).values())


def margins(row: Row) -> dict[str, float]:
    """Return each comparison's margin by what was compared: 0 or less is wrong."""
    scores = row["scores"]
    if "direction" in row:
        return {"": 1.5 - row["rank"]}
    if "task" in row:
        lost = scores["target"] - scores["predicted"]
        return {"": lost if not row["right"] else 1.0}
    if isinstance(scores, dict):
        return _triplet(scores)
    return _grid(np.array(scores), both="accuracy" not in row)


def _triplet(scores: dict[str, float]) -> dict[str, float]:
    if "image_negative" in scores:
        return {
            name: scores[f"image_{key}"] - scores["image_negative"]
            for key, name in (("positive1", "first"), ("positive2", "second"))
            if f"image_{key}" in scores
        }
    return {
        name: scores["positive1_positive2"] - scores[f"{key}_negative"]
        for key, name in (("positive1", "first"), ("positive2", "second"))
    }


def _grid(scores: np.ndarray, both: bool) -> dict[str, float]:
    """Return margins of scores [A images, B captions]; `both`: images have to choose as well."""
    if min(scores.shape) == 1:
        options = scores.ravel()
        return {"": float(options[0] - options[1:].max())}
    s = scores
    won = {"caption 1": s[0, 0] - s[1, 0], "caption 2": s[1, 1] - s[0, 1]}
    if both:
        won |= {"image 1": s[0, 0] - s[0, 1], "image 2": s[1, 1] - s[1, 0]}
    return {name: float(value) for name, value in won.items()}
