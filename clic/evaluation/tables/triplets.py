"""Triplets: an image, one or two true captions and a false one (SugarCrepe, SugarCrepe++)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clic import metrics
from clic.evaluation.encode.image_sources import image_name
from clic.evaluation.tables.failure_cards import Failure, Picture, Text, lost_by
from clic.evaluation.tables.table import CategoryTable, Outcomes, Row, TableFeatures

POSITIVES = {"positive1": "first", "positive2": "second"}


@dataclass(frozen=True, eq=False)
class Triplets(CategoryTable):
    """Rows of one image, one or two true captions and a false one, in categories.

    Attributes:
        positive1: int64 [N], index into `texts`.
        positive2: int64 [N], or None if rows have one true caption (SugarCrepe).
        negative: int64 [N].
    """

    positive1: np.ndarray
    positive2: np.ndarray | None
    negative: np.ndarray

    ROW_KEY = "category"
    EXPLAINED: ClassVar[Mapping[str, str]] = {
        "itt": "ITT, image to text: the image is nearer to both true captions than to the false "
        "one; chance 33 %",
        "tot": "TOT, text only: the two true captions are nearer to each other than either is to "
        "the false one; chance 33 %",
        "p1": "P1: the image is nearer to the first true caption than to the false one; "
        "chance 50 %",
    }

    def identity(self) -> Iterable[object]:
        captions = (self.positive1, self.positive2, self.negative)
        return (*self.categories, self.category, self.image, *captions)

    def right(self, features: TableFeatures) -> Outcomes:
        """Return bool [N] for each metric; with one positive, `itt` and `p1` are the same."""
        image = None if features.image is None else features.of_images(self.image)
        first, negative = features.of_texts(self.positive1), features.of_texts(self.negative)
        if self.positive2 is not None:
            return metrics.triplet(image, first, features.of_texts(self.positive2), negative)
        if image is None:
            raise ValueError("rows with one positive need image features")
        right = metrics.triplet(image, first, first, negative)["p1"]
        return {"itt": right, "p1": right}

    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        captions = {"positive1": self.positive1, "negative": self.negative}
        pairs: list[tuple[str, str]] = []
        if self.positive2 is not None:
            captions["positive2"] = self.positive2
            pairs = [
                ("positive1", "positive2"), ("positive1", "negative"), ("positive2", "negative"),
            ]  # fmt: skip
        parts = {name: features.of_texts(index) for name, index in captions.items()}
        if features.image is not None:
            pairs += [("image", name) for name in captions]
            parts["image"] = features.of_images(self.image)
        scores = {f"{a}_{b}": (parts[a] * parts[b]).sum(-1).tolist() for a, b in pairs}
        right = {metric: outcome.tolist() for metric, outcome in self.right(features).items()}
        for n, image in enumerate(self.image.tolist()):
            yield {
                "row": n,
                "category": self.categories[self.category[n]],
                "image": image_name(self.images[image], image),
                "captions": {name: self.texts[index[n]] for name, index in captions.items()},
                **{metric: values[n] for metric, values in right.items()},
                "scores": {name: values[n] for name, values in scores.items()},
            }

    @staticmethod
    def margins(row: Row) -> dict[str, float]:
        """Return the lead of each true caption over the false one, by ITT, else by TOT."""
        scores = row["scores"]
        if "image_negative" not in scores:
            alike = scores["positive1_positive2"]
            return {name: alike - scores[f"{key}_negative"] for key, name in POSITIVES.items()}
        return {
            name: scores[f"image_{key}"] - scores["image_negative"]
            for key, name in POSITIVES.items()
            if f"image_{key}" in scores
        }

    @staticmethod
    def failure(row: Row, number: int) -> Failure:
        scores, captions, margins = row["scores"], row["captions"], Triplets.margins(row)
        lost = [name for name, margin in margins.items() if margin <= 0]
        with_image = "image_negative" in scores
        if not with_image:
            verdict = "the false caption is as near to a true one as the true ones to each other"
        elif len(lost) == 2:
            verdict = "the false caption beats both true ones"
        else:
            which = f"the {lost[0]} true one" if "positive2" in captions else "the true one"
            verdict = f"the false caption beats {which}"
        texts = [
            Text(captions[key], key != "negative", (scores[f"image_{key}"],) if with_image else ())
            for key in (*POSITIVES, "negative")
            if key in captions
        ]
        one_caption = "itt" in row and "tot" not in row  # the verdict already says what P1 would
        outcomes = {} if one_caption else {k: v for k, v in row.items() if isinstance(v, bool)}
        return Failure(
            category=row["category"],
            verdict=verdict + lost_by(min(margins.values())),
            pictures=(Picture("", row["image"]),) if with_image else (),
            texts=tuple(texts),
            outcomes=outcomes,
            number=number,
        )
