"""Retrieval: images find their captions in a gallery, and captions their image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clic import metrics
from clic.errors import DataError
from clic.evaluation.tables.failure_cards import Failure, Picture, Text
from clic.evaluation.tables.table import BenchmarkTable, Numbers, Observation, Row, TableFeatures

if TYPE_CHECKING:
    from torch import Tensor

KS = (1, 5, 10)
QUERIES = 256  # at a time, when only the highest score of each is needed


@dataclass(frozen=True, eq=False)
class Retrieval(BenchmarkTable):
    """A gallery of images and captions; any of an image's captions is a match.

    Attributes:
        gallery: int64 [G], index into `images` of each gallery image.
        caption: int64 [M], index into `texts` of each caption.
        owner: int64 [M], position in `gallery` of the image a caption belongs to.
    """

    gallery: np.ndarray
    caption: np.ndarray
    owner: np.ndarray

    ROW_KEY = "direction"
    EXPLAINED: ClassVar[Mapping[str, str]] = {
        "image_to_text": "image to text R@k: one of the image's captions is among the k nearest of "
        "all captions; chance about k / number of images",
        "text_to_image": "text to image R@k: the caption's image is among the k nearest of all "
        "images; chance k / number of images",
    }

    @property
    def row_images(self) -> np.ndarray:
        """int64 [G + M]: the query images, then the image of each query caption."""
        return np.concatenate([self.gallery, self.gallery[self.owner]])

    def without(self, lost: np.ndarray) -> Retrieval:
        """Return the gallery without lost images (bool [I]) and without their captions."""
        keep = ~lost[self.gallery]
        position = np.cumsum(keep) - 1
        kept = keep[self.owner]
        return replace(
            self,
            gallery=self.gallery[keep],
            caption=self.caption[kept],
            owner=position[self.owner[kept]],
        )

    def identity(self) -> Iterable[object]:
        return (self.gallery, self.caption, self.owner)

    def ranks(self, features: TableFeatures) -> dict[str, Tensor]:
        """Return the rank of each gallery image's and of each caption's best match."""
        import torch

        if not self.rows:
            raise DataError("the gallery has no images left; get the missing images")
        gallery, caption = features.of_images(self.gallery), torch.from_numpy(self.caption)

        def block(start: int, stop: int) -> Tensor:
            # One product per distinct text, so that equal captions have equal scores, bit for bit.
            return (gallery[start:stop] @ features.text.T)[:, caption]

        return metrics.ranks(block, len(gallery), torch.from_numpy(self.owner))

    def score(self, features: TableFeatures) -> Numbers:
        """Return recall at 1, 5 and 10, both ways."""
        counts = {"n_images": len(self.gallery), "n_captions": len(self.caption)}
        return {**metrics.recall_at(self.ranks(features), KS), **counts}

    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        """Yield each query with the rank of its best match and the highest-scoring candidate."""
        import torch

        ranks = {way: rank.tolist() for way, rank in self.ranks(features).items()}
        captions = [self.texts[i] for i in self.caption]
        names = [self.image_names[i] for i in self.gallery]
        of_images, of_captions = features.of_images(self.gallery), features.of_texts(self.caption)
        owner = torch.from_numpy(self.owner)
        own = (of_captions * of_images[owner]).sum(-1)
        best = own.new_full([len(of_images)], float("-inf"))
        best = best.scatter_reduce(0, owner, own, "amax")
        tops = _highest(of_images, of_captions)
        queries = zip(names, ranks["image_to_text"], tops, best.tolist(), strict=True)
        for name, rank, (top, score), match in queries:
            row = {"direction": "image_to_text", "image": name, "rank": rank, "top": captions[top]}
            yield {**row, "scores": {"match": match, "top": score}}
        tops = _highest(of_captions, of_images)
        asked = zip(captions, self.owner, ranks["text_to_image"], tops, own.tolist(), strict=True)
        for caption, image, rank, (top, score), match in asked:
            row = {"direction": "text_to_image", "caption": caption, "image": names[image]}
            scores = {"match": match, "top": score}
            yield {**row, "rank": rank, "top": names[top], "scores": scores}

    def illustrate(self, failure: Failure) -> Failure:
        """Return a failure with its image, and with its captions or the image that was found."""
        image = self.images[self.row_images[failure.number]]
        if failure.number < len(self.gallery):
            own = [self.texts[i] for i in self.caption[self.owner == failure.number]]
            texts = (*(Text(text, True) for text in own), *failure.texts)
            return replace(failure.with_images([image]), texts=texts)
        found = self.images[self.image_names.index(failure.pictures[1].name)]
        return failure.with_images([image, found])

    @staticmethod
    def margins(row: Row) -> dict[str, float]:
        return {"": 1.5 - row["rank"]}

    @staticmethod
    def true_texts(row: Row) -> list[str]:
        return [row["caption"]] if "caption" in row else []

    @staticmethod
    def failure(row: Row, number: int) -> Failure:
        scores = row["scores"]
        rank = f"rank {row['rank']:,}" if row["rank"] < metrics.NEVER else "no rank"
        if row["direction"] == "image_to_text":
            pictures = [Picture("", row["image"])]
            text = Text(row["top"], False, (scores["top"],))
        else:
            pictures = [
                Picture(f"right: {scores['match']:.3f}", row["image"]),
                Picture(f"found: {scores['top']:.3f}", row["top"]),
            ]
            text = Text(row["caption"], True)
        return Failure(
            category=row["direction"].replace("_", " "),
            verdict=f"the best match ({scores['match']:.3f}) is at {rank}",
            pictures=tuple(pictures),
            texts=(text,),
            number=number,
        )

    @staticmethod
    def observations(
        rows: Iterable[Row], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> Iterator[Observation]:
        """Yield each query's recall at each k; an image and its captions are one unit."""
        for row in rows:
            for name in form:
                direction, _, k = name.partition("@")
                if direction == row["direction"] and k.isdigit():
                    yield Observation((name, ""), row["image"], row["rank"] <= int(k))


def _highest(queries: Tensor, candidates: Tensor) -> list[tuple[int, float]]:
    """Return the index and the score of the highest-scoring candidate for each query."""
    found: list[tuple[int, float]] = []
    for part in queries.split(QUERIES):
        scores, tops = (part @ candidates.T).max(1)
        found += zip(tops.tolist(), scores.tolist(), strict=True)
    return found
