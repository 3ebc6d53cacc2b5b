"""Judgements: whether a caption is true of an image, by a threshold fitted on other rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clic.errors import DataError
from clic.evaluation.tables.failure_cards import Failure, Picture, Text, lost_by
from clic.evaluation.tables.table import CategoryTable, Outcomes, Row, TableFeatures

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Judgements(CategoryTable):
    """Rows of one image and one caption that is true or false of it, in categories.

    A caption is judged true if its cosine is above a threshold. The threshold is the one that is
    right most often on other labelled rows, those of the development split, which are used for
    nothing else.

    Attributes:
        caption: int64 [N], index into `texts`.
        label: bool [N], whether the caption is true.
        fitted_image: int64 [M], images of the rows that the threshold is fitted on.
        fitted_caption: int64 [M], their captions.
        fitted_label: bool [M], whether these are true.
    """

    caption: np.ndarray
    label: np.ndarray
    fitted_image: np.ndarray
    fitted_caption: np.ndarray
    fitted_label: np.ndarray

    ROW_KEY = "threshold"
    EXPLAINED: ClassVar[Mapping[str, str]] = {
        "judged": "judged: a true caption's cosine is above the development split's threshold, a "
        "false one's is not; chance the share of the commoner label",
    }

    @property
    def fitted(self) -> tuple[np.ndarray, ...]:
        """The columns of the rows that the threshold is fitted on."""
        return self.fitted_image, self.fitted_caption, self.fitted_label

    def used_images(self) -> np.ndarray:
        """Return bool [I]: the images of all rows, including those that fit the threshold."""
        return np.isin(np.arange(len(self.images)), np.append(self.image, self.fitted_image))

    def without(self, lost: np.ndarray) -> Judgements:
        """Return the table without rows of lost images (bool [I]), in both splits."""
        keep, fitted = ~lost[self.image], ~lost[self.fitted_image]
        return Judgements(
            images=self.images,
            texts=self.texts,
            categories=self.categories,
            category=self.category[keep],
            image=self.image[keep],
            caption=self.caption[keep],
            label=self.label[keep],
            fitted_image=self.fitted_image[fitted],
            fitted_caption=self.fitted_caption[fitted],
            fitted_label=self.fitted_label[fitted],
            groups=self.groups,
            overall=self.overall,
        )

    def identity(self) -> Iterable[object]:
        return (*self.categories, self.category, self.image, self.caption, self.label, *self.fitted)

    def right(self, features: TableFeatures) -> Outcomes:
        scores, threshold = self._scores(features)
        return {"judged": (scores > threshold) == self._tensor(self.label)}

    def _scores(self, features: TableFeatures) -> tuple[Tensor, float]:
        """Return the cosine of each row, and the threshold."""
        fitted = _cosines(features, self.fitted_image, self.fitted_caption)
        threshold = best_threshold(fitted.numpy(), self.fitted_label)
        return _cosines(features, self.image, self.caption), threshold

    @staticmethod
    def _tensor(values: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(values)

    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        """Yield each row with its label, its cosine and the threshold."""
        scores, threshold = self._scores(features)
        for n, score in enumerate(scores.tolist()):
            label = bool(self.label[n])
            yield {
                "row": n,
                "category": self.categories[self.category[n]],
                "image": self.image_names[self.image[n]],
                "caption": self.texts[self.caption[n]],
                "target": str(label),
                "judged": (score > threshold) == label,
                "threshold": threshold,
                "scores": {"caption": score},
            }

    @staticmethod
    def margins(row: Row) -> dict[str, float]:
        """Return how far the cosine is on the right side of the threshold."""
        above = row["scores"]["caption"] - row["threshold"]
        return {"": above if row["target"] == "True" else -above or float(row["judged"])}

    @staticmethod
    def true_texts(row: Row) -> list[str]:
        return [row["caption"]] if row["target"] == "True" else []

    @staticmethod
    def failure(row: Row, number: int) -> Failure:
        (margin,) = Judgements.margins(row).values()
        is_true = row["target"] == "True"
        return Failure(
            category=row["category"],
            verdict=f"a {'true' if is_true else 'false'} caption is judged "
            f"{'false' if is_true else 'true'}{lost_by(margin)}",
            pictures=(Picture("", row["image"]),),
            texts=(Text(row["caption"], is_true, (row["scores"]["caption"],)),),
            number=number,
        )


def best_threshold(scores: np.ndarray, label: np.ndarray) -> float:
    """Return the threshold that is right most often if scores above it are called true.

    It is midway between two neighbouring scores, or beyond the lowest or the highest one; of
    equally good thresholds, the lowest is returned.

    Args:
        scores: float [M].
        label: bool [M].

    Raises:
        DataError: There are no rows.
    """
    if not len(scores):
        raise DataError("no rows are left to set the threshold; get the missing images")
    values = np.unique(scores.astype(np.float64))
    middles = [values[0] - 1.0, *((values[1:] + values[:-1]) / 2), values[-1] + 1.0]
    order = np.sort(scores[label].astype(np.float64)), np.sort(scores[~label].astype(np.float64))
    above = len(order[0]) - np.searchsorted(order[0], middles, side="right")
    below = np.searchsorted(order[1], middles, side="right")
    return float(middles[int(np.argmax(above + below))])


def _cosines(features: TableFeatures, image: np.ndarray, caption: np.ndarray) -> Tensor:
    return (features.of_images(image) * features.of_texts(caption)).sum(-1).double()
