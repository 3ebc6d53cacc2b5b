"""Triplets: an image, one or two true captions and false ones (SugarCrepe, SugarCrepe++)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clic import metrics
from clic.evaluation.tables.failure_cards import Failure, Picture, Text, lost_by
from clic.evaluation.tables.table import CategoryTable, Outcomes, Row, TableFeatures

if TYPE_CHECKING:
    from torch import Tensor

POSITIVES = {"positive1": "first", "positive2": "second"}


@dataclass(frozen=True, eq=False)
class Triplets(CategoryTable):
    """Rows of one image, one or two true captions and one or more false ones, in categories.

    A row with several false captions is right only if it is right with each of them. If rows
    have no image, `image` is [N, 0] and the captions alone are scored.

    Attributes:
        positive1: int64 [N], index into `texts`.
        positive2: int64 [N], or None if rows have one true caption (SugarCrepe).
        negative: int64 [N], or [N, K] with -1 if a row has fewer than K false captions.
    """

    positive1: np.ndarray
    positive2: np.ndarray | None
    negative: np.ndarray

    ROW_KEY = "category"
    EXPLAINED: ClassVar[Mapping[str, str]] = {
        "itt": "ITT, image to text: the image is nearer to both true captions than to the false "
        "one; chance 33 %, less with several false ones",
        "tot": "TOT, text only: the two true captions are nearer to each other than either is to "
        "the false one; chance 33 %, less with several false ones",
        "p1": "P1: the image is nearer to the first true caption than to the false one; "
        "chance 50 %, less with several false ones",
    }

    def identity(self) -> Iterable[object]:
        captions = (self.positive1, self.positive2, self.negative)
        return (*self.categories, self.category, self.image, *captions)

    def right(self, features: TableFeatures) -> Outcomes:
        """Return bool [N] for each metric; with one positive, `itt` and `p1` are the same."""
        import torch

        image = None if features.image is None else features.of_images(self.image)
        first = features.of_texts(self.positive1)
        second = first if self.positive2 is None else features.of_texts(self.positive2)
        if self.positive2 is None and image is None:
            raise ValueError("rows with one positive need image features")
        right: dict[str, Tensor] = {}
        for column in self._negatives().values():
            absent = torch.from_numpy(column < 0)
            negative = features.of_texts(column.clip(min=0))
            for metric, won in metrics.triplet(image, first, second, negative).items():
                right[metric] = right.get(metric, torch.ones_like(won)) & (won | absent)
        if self.positive2 is None:
            del right["tot"]
        return right

    def _negatives(self) -> dict[str, np.ndarray]:
        """Return the false captions, int64 [N] each, by the names that rows give them."""
        columns = self.negative.reshape(len(self.negative), -1 if self.negative.size else 1).T
        return {f"negative{k + 1 if k else ''}": column for k, column in enumerate(columns)}

    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        negatives = self._negatives()
        captions = {"positive1": self.positive1, **negatives}
        pairs: list[tuple[str, str]] = []
        if self.positive2 is not None:
            captions["positive2"] = self.positive2
            pairs = [("positive1", "positive2")]
            pairs += [(key, name) for name in negatives for key in POSITIVES]
        parts = {name: features.of_texts(index.clip(min=0)) for name, index in captions.items()}
        if features.image is not None:
            pairs += [("image", name) for name in captions]
            parts["image"] = features.of_images(self.image)
        scores = {pair: (parts[pair[0]] * parts[pair[1]]).sum(-1).tolist() for pair in pairs}
        right = {metric: outcome.tolist() for metric, outcome in self.right(features).items()}
        images = self.image.reshape(self.rows, -1 if self.image.size else 0)
        for n, image in enumerate(images.tolist()):
            own = {name: self.texts[index[n]] for name, index in captions.items() if index[n] >= 0}
            there = {"image", *own}
            yield {
                "row": n,
                "category": self.categories[self.category[n]],
                **({"image": self.image_names[image[0]]} if image else {}),
                "captions": own,
                **{metric: values[n] for metric, values in right.items()},
                "scores": {f"{a}_{b}": v[n] for (a, b), v in scores.items() if {a, b} <= there},
            }

    @staticmethod
    def margins(row: Row) -> dict[str, float]:
        """Return the lead of each true caption over the best false one, by ITT, else by TOT."""
        scores, false = row["scores"], _false(row)
        if "image_negative" not in scores:
            alike = scores["positive1_positive2"]
            return {
                name: alike - max(scores[f"{key}_{negative}"] for negative in false)
                for key, name in POSITIVES.items()
            }
        return {
            name: scores[f"image_{key}"] - max(scores[f"image_{negative}"] for negative in false)
            for key, name in POSITIVES.items()
            if f"image_{key}" in scores
        }

    @staticmethod
    def true_texts(row: Row) -> list[str]:
        return [row["captions"][name] for name in POSITIVES if name in row["captions"]]

    @staticmethod
    def failure(row: Row, number: int) -> Failure:
        scores, captions, margins = row["scores"], row["captions"], Triplets.margins(row)
        lost = [name for name, margin in margins.items() if margin <= 0]
        with_image, false = "image_negative" in scores, _false(row)
        rival = "the false caption" if len(false) == 1 else "a false caption"
        if not with_image:
            verdict = f"{rival} is as near to a true one as the true ones to each other"
        elif len(lost) == 2:
            verdict = (
                f"{rival} beats both true ones" if len(false) == 1 else "false captions beat both"
            )
        else:
            which = f"the {lost[0]} true one" if "positive2" in captions else "the true one"
            verdict = f"{rival} beats {which}"
        texts = [
            Text(captions[key], key in POSITIVES, (scores[f"image_{key}"],) if with_image else ())
            for key in (*POSITIVES, *false)
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


def _false(row: Row) -> list[str]:
    """Return the names of a row's false captions."""
    return [name for name in row["captions"] if name not in POSITIVES]
