"""Zero-shot classification: the class whose mean prompt is nearest to an image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clic import metrics
from clic.errors import DataError
from clic.evaluation.tables.failure_cards import Failure, Picture, Text, lost_by
from clic.evaluation.tables.table import (
    BenchmarkTable,
    NumberPath,
    Numbers,
    Observation,
    Row,
    TableFeatures,
    percentage,
)

if TYPE_CHECKING:
    from torch import Tensor

PER_CLASS = "mean_per_class"


@dataclass(frozen=True, eq=False)
class ClassificationTask:
    """One question about images: which of C classes they show.

    Attributes:
        image: int64 [N], index into the table's images.
        target: int64 [N], the right class.
        classes: The C class names.
        prompts: For each class, the indices of its prompts in the table's texts.
    """

    image: np.ndarray
    target: np.ndarray
    classes: tuple[str, ...]
    prompts: tuple[np.ndarray, ...]

    def scores(self, features: TableFeatures) -> Tensor:
        """Return [N, C]: cosine to the normalised mean of each class's prompt embeddings."""
        import torch

        means = torch.stack([features.of_texts(prompts).mean(0) for prompts in self.prompts])
        return features.of_images(self.image) @ torch.nn.functional.normalize(means, dim=1).T


@dataclass(frozen=True, eq=False)
class Classification(BenchmarkTable):
    """Tasks by name over shared images and prompts.

    Attributes:
        tasks: The tasks by name.
        per_class: Whether the mean of the classes' accuracies is reported as well as the accuracy.
    """

    tasks: Mapping[str, ClassificationTask]
    per_class: bool = False

    ROW_KEY = "task"

    @property
    def row_images(self) -> np.ndarray:
        """int64 [N]: the images of the tasks, one task after the other."""
        return np.concatenate([task.image for task in self.tasks.values()])

    def without(self, lost: np.ndarray) -> Classification:
        tasks = {}
        for name, task in self.tasks.items():
            keep = ~lost[task.image]
            tasks[name] = replace(task, image=task.image[keep], target=task.target[keep])
        return replace(self, tasks=tasks)

    def identity(self) -> Iterable[object]:
        for name, task in self.tasks.items():
            yield from (name, *task.classes, task.image, task.target, *task.prompts)

    def score(self, features: TableFeatures) -> Numbers:
        """Return each task's accuracy and, if asked for, the mean of the classes' accuracies."""
        import torch

        numbers: Numbers = {}
        for name, task in self.tasks.items():
            if not len(task.image):
                raise DataError(f"task {name!r} has no images left; get the missing images")
            scores = task.scores(features)
            right = metrics.classification(scores, torch.from_numpy(task.target))
            numbers[name] = percentage(right)
            if self.per_class:
                key = PER_CLASS if len(self.tasks) == 1 else f"{name}_{PER_CLASS}"
                total = np.bincount(task.target)
                hits = np.bincount(task.target, weights=right.numpy(), minlength=len(total))
                numbers[key] = 100 * float((hits[total > 0] / total[total > 0]).mean())
        return {**numbers, "n_images": int(self.used_images().sum())}

    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        """Yield each image with its class and the highest-scoring class."""
        import torch

        for name, task in self.tasks.items():
            scores, target = task.scores(features), torch.from_numpy(task.target)
            right = metrics.classification(scores, target).tolist()
            of_target = scores.gather(1, target.long()[:, None])[:, 0].tolist()
            for n, index in enumerate(task.image):
                predicted = int(scores[n].argmax())
                yield {
                    "task": name,
                    "image": self.image_names[index],
                    "target": task.classes[task.target[n]],
                    "predicted": task.classes[predicted],
                    "right": right[n],
                    "scores": {"target": of_target[n], "predicted": scores[n, predicted].item()},
                }

    @staticmethod
    def margins(row: Row) -> dict[str, float]:
        """Return how far the right class is behind the winner; 1 if it is the winner."""
        scores = row["scores"]
        return {"": 1.0 if row["right"] else scores["target"] - scores["predicted"]}

    @staticmethod
    def true_texts(row: Row) -> list[str]:
        return [row["target"]]

    @staticmethod
    def failure(row: Row, number: int) -> Failure:
        scores = row["scores"]
        (margin,) = Classification.margins(row).values()
        return Failure(
            category=row["task"],
            verdict=f"taken for {row['predicted']}{lost_by(margin)}",
            pictures=(Picture("", row["image"]),),
            texts=(
                Text(row["target"], True, (scores["target"],)),
                Text(row["predicted"], False, (scores["predicted"],)),
            ),
            number=number,
        )

    @staticmethod
    def observations(
        rows: Iterable[Row], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> Iterator[Observation]:
        """Yield each image's answer, and again for its class if a mean over classes is reported."""
        for number, row in enumerate(rows):
            task, right = row["task"], bool(row["right"])
            yield Observation((task, ""), number, right)
            if PER_CLASS in form or f"{task}_{PER_CLASS}" in form:
                yield Observation((f"{task}: {row['target']}", "class"), number, right)

    @staticmethod
    def means(
        paths: Collection[NumberPath], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> dict[NumberPath, tuple[NumberPath, ...]]:
        """Return the means over classes, which have their own observations."""
        found = {}
        for name in form:
            if name.endswith(PER_CLASS):
                task = name.removesuffix(PER_CLASS).removesuffix("_")
                start = f"{task}: " if task else ""  # a lone task's mean does not name it
                classes = [p for p in paths if p[1] == "class" and p[0].startswith(start)]
                if classes:
                    found[name, ""] = tuple(classes)
        return found
