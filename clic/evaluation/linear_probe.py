"""Linear probes show what the image tower encodes, before the text tower is blamed for missing it.

A question has labels for some images, e.g. the colour of the circle. A multinomial logistic
regression on the image features that captions are compared with answers it for images that it was
not fitted on (Alain and Bengio, "Understanding intermediate layers using linear classifier probes",
arXiv 1610.01644).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from clic.errors import DataError
from clic.evaluation.encode.image_sources import ImageSource
from clic.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 5
L2 = 1e-3
"""Weight of the squared coefficients, on features of mean 0 and variance 1."""
STEPS = 200
LEAST = 2 * FOLDS  # images of a question


@dataclass(frozen=True)
class ProbeQuestion:
    """A question about some of the images.

    Attributes:
        name: Name of the question.
        family: Questions of one family are also reported together.
        labels: The answer for each image that has one, by the image's number.
        unbound: The chance level, in percent, of a tower that encodes the things but not which
            belongs to which, or None.
    """

    name: str
    family: str
    labels: Mapping[int, str]
    unbound: float | None = None


@dataclass(frozen=True)
class ProbeData:
    """Images and questions about them.

    Attributes:
        name: Name of the data.
        images: The images.
        questions: The questions.
        test: Numbers of the test images; None for cross-validation.
    """

    name: str
    images: Sequence[ImageSource]
    questions: tuple[ProbeQuestion, ...]
    test: frozenset[int] | None = None


@dataclass(frozen=True)
class ProbeResult:
    """How well a question, or a family of them, is answered.

    Attributes:
        name: Name of the question or family.
        right: Percent of the answers.
        low: Lower end of the 95 % interval (Wilson's, over images), in percent.
        high: Upper end.
        chance: Percent that the commonest answer gets.
        unbound: See `ProbeQuestion`.
        n: Number of answers.
        images: Number of distinct images that were asked about.
        is_family: Whether it covers several questions.
    """

    name: str
    right: float
    low: float
    high: float
    chance: float
    unbound: float | None
    n: int
    images: int
    is_family: bool = False


@dataclass
class _Answers:
    """The outcomes of a question: right answers, the count of the commonest one, the images."""

    right: list[bool] = field(default_factory=list)
    commonest: int = 0
    image: list[int] = field(default_factory=list)


def run_probes(features: Tensor, data: ProbeData, seed: int = 0) -> list[ProbeResult]:
    """Return each question's result, followed by those of families of several questions.

    Args:
        features: float32 [I, D], of the data's images.
        data: The images' questions.
        seed: Seed of the folds.

    Raises:
        DataError: A question has too few images, or only one answer.
    """
    families: dict[str, list[tuple[ProbeQuestion, _Answers]]] = {}
    results = []
    for question in data.questions:
        answers = _ask(features, question, data.test, seed)
        families.setdefault(question.family, []).append((question, answers))
        results.append(_result(question.name, [answers], question.unbound))
    for name, members in families.items():
        if len(members) > 1:
            unbound = members[0][0].unbound
            own = [answers for _, answers in members]
            results.append(_result(name, own, unbound, is_family=True))
    return results


def _ask(
    features: Tensor, question: ProbeQuestion, test: frozenset[int] | None, seed: int
) -> _Answers:
    """Return the answers for images that the probe was not fitted on."""
    import torch

    images = np.array(sorted(question.labels), dtype=np.int64)
    classes = {name: i for i, name in enumerate(sorted(set(question.labels.values())))}
    target = torch.tensor([classes[question.labels[i]] for i in images.tolist()])
    if len(images) < LEAST or len(classes) < 2:
        raise DataError(
            f"{question.name!r} has {len(images)} images and {len(classes)} answers; give {LEAST} "
            "images or more, and two answers or more"
        )
    own, answers = features[torch.from_numpy(images)].double(), _Answers()
    for fitted, asked in _parts(images, test, question.name, seed):
        scores = _Probe(own[fitted], target[fitted], len(classes))(own[asked])
        answers.right += (scores.argmax(1) == target[asked]).tolist()
        answers.image += images[asked].tolist()
    given = [question.labels[image] for image in answers.image]
    answers.commonest = max(map(given.count, set(given)))
    return answers


def _parts(
    images: np.ndarray, test: frozenset[int] | None, name: str, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions to fit on and to test on: the given split, or `FOLDS` seeded folds."""
    if test is not None:
        is_test = np.isin(images, sorted(test))
        if is_test.all() or not is_test.any():
            raise DataError(f"{name!r} has no images in one of the splits train and test")
        return [(np.flatnonzero(~is_test), np.flatnonzero(is_test))]
    order = generator(seed, f"probe/{name}").permutation(len(images))
    folds = np.array_split(order, FOLDS)
    return [(np.sort(np.setdiff1d(order, fold)), np.sort(fold)) for fold in folds]


class _Probe:
    """A multinomial logistic regression with an L2 penalty, fitted by LBFGS.

    Minimises mean cross-entropy + L2 / 2 * sum of squared coefficients.

    Args:
        features: float64 [N, D].
        target: int64 [N].
        classes: C.
    """

    def __init__(self, features: Tensor, target: Tensor, classes: int) -> None:
        import torch

        self.mean, spread = features.mean(0), features.std(0)
        self.scale = 1 / torch.where(spread > 0, spread, torch.ones_like(spread))
        inputs = (features - self.mean) * self.scale
        self.weight = features.new_zeros(features.shape[1], classes, requires_grad=True)
        self.bias = features.new_zeros(classes, requires_grad=True)
        parameters = [self.weight, self.bias]
        optimiser = torch.optim.LBFGS(parameters, max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            logits = inputs @ self.weight + self.bias
            value = torch.nn.functional.cross_entropy(logits, target)
            value = value + L2 / 2 * self.weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores [N, C]."""
        return ((features - self.mean) * self.scale) @ self.weight.detach() + self.bias.detach()


def _result(
    name: str, members: Sequence[_Answers], unbound: float | None, is_family: bool = False
) -> ProbeResult:
    right = [one for answers in members for one in answers.right]
    images = len({image for answers in members for image in answers.image})
    share = sum(right) / len(right)
    # Answers about one image are not independent, so the interval counts images.
    low, high = wilson(share, images)
    chance = 100 * sum(answers.commonest for answers in members) / len(right)
    return ProbeResult(
        name, 100 * share, 100 * low, 100 * high, chance, unbound, len(right), images, is_family
    )


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the ends of Wilson's interval for a share of n.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) (Wilson 1927, JASA 22).
    """
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def answers_of(labels: Sequence[Mapping[str, str]]) -> tuple[ProbeQuestion, ...]:
    """Return a question for each key of the images' labels, in order of appearance."""
    names = dict.fromkeys(key for own in labels for key in own)
    return tuple(
        ProbeQuestion(name, name, {i: own[name] for i, own in enumerate(labels) if name in own})
        for name in names
    )
