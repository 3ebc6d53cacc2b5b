"""Grids: each row scores some images against some captions and is right by one of several rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clic import metrics
from clic.errors import pick
from clic.evaluation.tables.failure_cards import Failure, Picture, Text, lost_by
from clic.evaluation.tables.table import CategoryTable, Outcomes, Row, TableFeatures

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 2048  # at a time, which keeps the gathered features to some tens of megabytes


def choice(scores: Tensor) -> Outcomes:
    """Return `accuracy`: the first of B captions of one image, or of A images, beats the others."""
    options = scores.flatten(1)
    return {"accuracy": metrics.beats(options[:, :1], options[:, 1:]).all(1)}


def cola(scores: Tensor) -> Outcomes:
    """Return `accuracy`: each caption's own image beats the other one (arXiv 2305.03689).

    Also returns `group_match`, see `clic.metrics.group_match`.
    """
    return {
        "accuracy": metrics.winoground(scores)["image"],
        "group_match": metrics.group_match(scores),
    }


def winoground(scores: Tensor) -> Outcomes:
    """Return `text`, `image` and `group` (arXiv 2204.03162), and also `group_match`."""
    return {**metrics.winoground(scores), "group_match": metrics.group_match(scores)}


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


def half_truth(scores: Tensor) -> Outcomes:
    """Return both metrics of Half-Truths (arXiv 2602.23906) from [N, 1, 3 captions].

    accuracy: the short caption beats the half-truth. ordering: the full truth also beats the
    short caption.
    """
    anchor, false, whole = scores[:, 0].unbind(1)
    right = metrics.beats(anchor, false)
    return {"accuracy": right, "ordering": right & metrics.beats(whole, anchor)}


RULES: dict[str, Callable[[Tensor], Outcomes]] = {
    "choice": choice,
    "winoground": winoground,
    "cola": cola,
    "bivlc": bivlc,
    "half_truth": half_truth,
}
"""Scores [N, A images, B captions] -> bool [N] by metric."""


@dataclass(frozen=True, eq=False)
class Grids(CategoryTable):
    """Rows of A images and B captions, scored all against all.

    A = 1: which of B captions belongs to the image. B = 1: which of A images belongs to the
    caption. In both cases the first is right. A = B = 2: each image belongs to the caption with its
    number.

    Attributes:
        image: int64 [N, A], index into `images`; -1 if a row has fewer images than others.
        caption: int64 [N, B], index into `texts`; -1 if a row has fewer options than others.
        rule: Name in `RULES`.
        sets: Further metrics by name: int64 [N], the set that each row belongs to, -1 for none; a
            set is right if all its rows are.
    """

    caption: np.ndarray
    rule: str
    sets: Mapping[str, np.ndarray] = field(default_factory=dict)

    ROW_KEY = "images"
    EXPLAINED: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy: the right answer beats every other one; chance 1 / number of "
        "answers",
        "ordering": "ordering: the caption with a true detail beats the short one, and that beats "
        "the one with a wrong detail; chance 17 %",
        "both": "both: both true captions beat both false ones; chance 17 %",
        "text": "text: each of the two images is nearer to its own caption; chance 25 %",
        "image": "image: each of the two captions is nearer to its own image; chance 25 %",
        "group": "group: both images and both captions are nearer to their own; chance 17 %",
        "group_match": "group match: the right one of the two matchings of images and captions "
        "has the higher sum (arXiv 2510.07632), which asks less than group; chance 50 %",
        "i2t": "I2T: each of the two images is nearer to its own caption; chance 25 %",
        "t2i": "T2I: each of the two captions is nearer to its own image; chance 25 %",
        "i_pos": "i pos: the true image is nearer to its own caption; chance 50 %",
        "i_neg": "i neg: the other image is nearer to its own caption; chance 50 %",
        "t_pos": "t pos: the true caption is nearer to its own image; chance 50 %",
        "t_neg": "t neg: the other caption is nearer to its own image; chance 50 %",
    }

    def without(self, lost: np.ndarray) -> Grids:
        """Return the table without rows of lost images (bool [I]) or sets that lost rows."""
        keep = self.keeps(lost)
        sets = {k: np.where(np.isin(v, v[~keep]), -1, v)[keep] for k, v in self.sets.items()}
        return replace(super().without(lost), sets=sets)

    def identity(self) -> Iterable[object]:
        rows = (self.category, self.image, self.caption)
        return (self.rule, *self.categories, *rows, *self.sets, *self.sets.values())

    def right(self, features: TableFeatures) -> Outcomes:
        return pick(RULES, self.rule, "rule")(self.cosines(features))

    def percentages(self, right: Outcomes, mine: np.ndarray) -> dict[str, float]:
        """Return the percentage of right rows by metric, and of right sets."""
        entry = super().percentages(right, mine)
        for name, members in self.sets.items():
            belongs = mine & (members >= 0)
            if belongs.any():
                wrong = np.unique(members[belongs & ~right["accuracy"].numpy()])
                total = len(np.unique(members[belongs]))
                entry[name] = 100 * (total - len(wrong)) / total
        return entry

    def cosines(self, features: TableFeatures) -> Tensor:
        """Return cosines [N, A, B]; -inf if a row has no such image or caption.

        Each is computed from its own two features alone, so equal features give equal bits.
        """
        import torch

        parts = []
        for start in range(0, max(self.rows, 1), ROWS):
            caption = self.caption[start : start + ROWS]
            image = self.image[start : start + ROWS]
            left = features.of_images(image.clip(min=0)).unsqueeze(2)
            right = features.of_texts(caption.clip(min=0)).unsqueeze(1)
            scores = [(left[:, a] * right[:, 0]).sum(-1) for a in range(left.shape[1])]
            absent = torch.from_numpy((caption < 0)[:, None] | (image < 0)[:, :, None])
            parts.append(torch.stack(scores, 1).masked_fill(absent, float("-inf")))
        return torch.cat(parts)

    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        """Yield each row's outcome with its images, captions and scores [A][B]."""
        scores = self.cosines(features)
        right = {name: bits.tolist() for name, bits in RULES[self.rule](scores).items()}
        for n in range(self.rows):
            options = [int(i) for i in self.caption[n] if i >= 0]
            own = [int(i) for i in self.image[n] if i >= 0]
            sets = {name: int(of[n]) for name, of in self.sets.items() if of[n] >= 0}
            yield {
                "row": n,
                "category": self.categories[self.category[n]],
                "images": [self.image_names[i] for i in own],
                "captions": [self.texts[i] for i in options],
                **({"sets": sets} if sets else {}),
                **{name: values[n] for name, values in right.items()},
                "scores": scores[n, : len(own), : len(options)].tolist(),
            }

    @staticmethod
    def margins(row: Row) -> dict[str, float]:
        """Return the lead of the first option, or of each caption's and each image's own match."""
        scores = np.array(row["scores"])
        if "ordering" in row:  # the full truth is not a rival
            return {"": float(scores[0, 0] - scores[0, 1])}
        if min(scores.shape) == 1:
            options = scores.ravel()
            return {"": float(options[0] - options[1:].max())}
        s = scores
        won = {"caption 1": s[0, 0] - s[1, 0], "caption 2": s[1, 1] - s[0, 1]}
        if "accuracy" not in row:  # in Cola, images do not choose
            won |= {"image 1": s[0, 0] - s[0, 1], "image 2": s[1, 1] - s[1, 0]}
        return {name: float(margin) for name, margin in won.items()}

    @staticmethod
    def true_texts(row: Row) -> list[str]:
        return row["captions"] if len(row["images"]) > 1 else row["captions"][:1]

    @staticmethod
    def failure(row: Row, number: int) -> Failure:
        scores = np.array(row["scores"])
        images, captions = scores.shape
        lost = {name: margin for name, margin in Grids.margins(row).items() if margin <= 0}
        by = lost_by(min(lost.values()))
        if captions == 1 < images:
            labels = ["right", *["wrong"] * (images - 1)]
            verdict = f"another image is nearer to the caption{by}"
        elif images == 1:
            rival = "the wrong detail" if "ordering" in row else "a false caption"
            labels, verdict = [""], f"{rival} beats the true one{by}"
        else:
            labels = [f"image {i + 1}" for i in range(images)]
            verdict = f"wrong for {', '.join(lost)}{by}"
        true = (0, 2) if "ordering" in row else (0,)
        return Failure(
            category=row["category"],
            verdict=verdict,
            pictures=tuple(map(Picture, labels, row["images"])),
            texts=tuple(
                Text(text, images > 1 or j in true, tuple(scores[:, j].tolist()))
                for j, text in enumerate(row["captions"])
            ),
            outcomes={name: value for name, value in row.items() if isinstance(value, bool)},
            number=number,
        )
