"""What all benchmark tables have in common: their items, their scores and their rows.

A table contains indices into unique images and unique texts, never features, so that several
benchmarks share one pass over images and texts. Scoring is pure and the same for every model:
numbers are unrounded percentages, and `clic.metrics` defines each comparison. torch is imported
only where it is used, so that listing the benchmarks does not load it.

Letters: I images, T texts, N rows, M captions, C classes, D embedding width.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np

from clic.errors import DataError
from clic.evaluation.encode.image_sources import (
    ImageSource,
    image_key,
    image_name,
    image_names,
    image_path,
)
from clic.evaluation.tables.failure_cards import Failure

if TYPE_CHECKING:
    from torch import Tensor

Numbers = dict[str, Any]
Row = Mapping[str, Any]
Outcomes: TypeAlias = "dict[str, Tensor]"
CategoryRows = TypeVar("CategoryRows", bound="CategoryTable")
NumberPath = tuple[str, str]
"""A number's place in a report: (category, metric), or (name, "") without categories."""


class Interner:
    """Numbers distinct texts or images in the order of their first appearance."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def add(self, item: str | ImageSource, key: Hashable | None = None) -> int:
        """Return the number of `item`, a new number if its key is new."""
        if key is None:
            key = item if isinstance(item, str) else image_key(item)
        number = self._numbers.setdefault(key, len(self.items))
        if number == len(self.items):
            self.items.append(item)
        return number

    def add_all(self, items: Iterable[str | ImageSource]) -> np.ndarray:
        """Return the numbers of several items, int64 [N]."""
        return np.array([self.add(item) for item in items], dtype=np.int64)


@dataclass(frozen=True)
class TableFeatures:
    """One model's features of one table's items.

    Attributes:
        image: float32 [I, D], unit norm, None for a model without images.
        text: float32 [T, D], unit norm.
    """

    image: Tensor | None
    text: Tensor

    def of_images(self, index: np.ndarray) -> Tensor:
        """Return the features of some images; raises `ValueError` for a model without images."""
        import torch

        if self.image is None:
            raise ValueError("this table needs image features")
        return self.image[torch.from_numpy(index)]

    def of_texts(self, index: np.ndarray) -> Tensor:
        """Return the features of some texts."""
        import torch

        return self.text[torch.from_numpy(index)]


class Observation(NamedTuple):
    """One right or wrong answer that counts towards a number.

    Attributes:
        path: The number.
        unit: What a bootstrap resamples as a whole: a row, or the rows of one image or set.
        right: Whether the answer is right.
    """

    path: NumberPath
    unit: Hashable
    right: bool


@dataclass(frozen=True, eq=False)
class BenchmarkTable(ABC):
    """The rows of a benchmark. A subclass is one kind of question, see `clic.evaluation.tables`.

    The static methods need only rows, because rows may be read from a file without their table.

    Attributes:
        images: The I unique images.
        texts: The T unique texts, exactly as in the benchmark's file.
    """

    images: tuple[ImageSource, ...]
    texts: tuple[str, ...]

    ROW_KEY: ClassVar[str]
    """A key that rows of this kind have and rows of later kinds in `KINDS` do not have."""
    EXPLAINED: ClassVar[Mapping[str, str]] = {}
    """The meaning and the chance level of each metric, in one line."""

    @property
    @abstractmethod
    def row_images(self) -> np.ndarray:
        """int64 [N], or [N, A] if a row has several images, index into `images`."""

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return len(self.row_images)

    def used_images(self) -> np.ndarray:
        """Return bool [I]: the images that some row uses."""
        return np.isin(np.arange(len(self.images)), self.row_images)

    @abstractmethod
    def without(self, lost: np.ndarray) -> BenchmarkTable:
        """Return the table without the rows of lost images (bool [I]); indices stay valid."""

    @abstractmethod
    def identity(self) -> Iterable[object]:
        """Return the names and arrays that the digest covers besides the images and texts."""

    @abstractmethod
    def score(self, features: TableFeatures) -> Numbers:
        """Return the numbers in the form of the report.

        Raises:
            DataError: No row is left to score.
        """

    @abstractmethod
    def outcomes(self, features: TableFeatures) -> Iterator[dict[str, Any]]:
        """Yield the outcome of each row, with its scores and captions."""

    def illustrate(self, failure: Failure) -> Failure:
        """Return a failure of one of this table's rows with its images."""
        own = np.atleast_1d(self.row_images[failure.number])
        return failure.with_images([self.images[i] for i in own if i >= 0])

    @staticmethod
    @abstractmethod
    def margins(row: Row) -> dict[str, float]:
        """Return the margin of each comparison by its name; 0 or less is wrong."""

    @staticmethod
    @abstractmethod
    def failure(row: Row, number: int) -> Failure:
        """Return the card of a wrong row, without images."""

    @staticmethod
    @abstractmethod
    def true_texts(row: Row) -> list[str]:
        """Return a row's true captions, or its class."""

    @staticmethod
    @abstractmethod
    def observations(
        rows: Iterable[Row], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> Iterator[Observation]:
        """Yield every answer that counts towards a number of the report.

        Args:
            rows: The rows, as `outcomes` yields them.
            form: The benchmark's numbers.
            source: The benchmark's entry in the report's provenance.
        """

    @staticmethod
    def means(
        paths: Collection[NumberPath], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> dict[NumberPath, tuple[NumberPath, ...]]:
        """Return the numbers that are unweighted means of others.

        Args:
            paths: The numbers that have observations.
            form: The benchmark's numbers.
            source: The benchmark's entry in the report's provenance.
        """
        return {}

    @cached_property
    def image_names(self) -> list[str]:
        """A name of each image for listings, which no other image of the table has."""
        return image_names(self.images)

    def digest(self) -> str:
        """Return the SHA-256 of everything that is scored: texts, indices, image names or pixels.

        It depends neither on the images' folder nor on the content of image files.
        """
        hashed = hashlib.sha256()
        images = (i if image_path(i) is None else image_name(i, 0) for i in self.images)
        for part in (type(self).__name__, *self.texts, *images, *self.identity()):
            if isinstance(part, np.ndarray):
                hashed.update(f"{part.dtype.str}{part.shape}".encode())
                hashed.update(part.tobytes())
            else:
                hashed.update(f"{part!r}\n".encode())
        return hashed.hexdigest()


@dataclass(frozen=True, eq=False)
class CategoryTable(BenchmarkTable):
    """A table whose rows belong to categories, each of which has its own numbers.

    Attributes:
        categories: Names, in the order in which they are reported.
        category: int64 [N], index into `categories`.
        image: int64 [N], or [N, A] if a row has several images, index into `images`.
        groups: Macro means to report by name, each over some of the categories.
        overall: Name under which all rows are reported as one category, or None.
    """

    categories: tuple[str, ...]
    category: np.ndarray
    image: np.ndarray
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, kw_only=True)
    overall: str | None = field(default=None, kw_only=True)

    @property
    def row_images(self) -> np.ndarray:
        return self.image

    def keeps(self, lost: np.ndarray) -> np.ndarray:
        """Return bool [N]: the rows that use none of the lost images."""
        used = np.zeros(self.image.shape, dtype=bool)
        used[self.image >= 0] = lost[self.image[self.image >= 0]]
        return np.asarray(~used.any(axis=tuple(range(1, self.image.ndim))))

    def without(self: CategoryRows, lost: np.ndarray) -> CategoryRows:
        keep = self.keeps(lost)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: c[keep] for name, c in columns.items() if isinstance(c, np.ndarray)}
        return replace(self, **kept)

    @abstractmethod
    def right(self, features: TableFeatures) -> Outcomes:
        """Return bool [N] for each metric."""

    def score(self, features: TableFeatures) -> Numbers:
        """Return the numbers of each category, of the macro means and of all rows together."""
        right = self.right(features)

        def entry(mine: np.ndarray) -> dict[str, float]:
            return {**self.percentages(right, mine), "n": int(mine.sum())}

        numbers: Numbers = {}
        for index, name in enumerate(self.categories):
            mine = self.category == index
            if not mine.any():
                raise DataError(f"category {name!r} has no rows left; get the missing images")
            numbers[name] = entry(mine)
        numbers |= {name: macro_mean([numbers[c] for c in of]) for name, of in self.groups.items()}
        if self.overall is not None:
            numbers[self.overall] = entry(np.ones(self.rows, dtype=bool))
        return numbers

    def percentages(self, right: Outcomes, mine: np.ndarray) -> dict[str, float]:
        """Return the percentage of right rows by metric, among the rows of bool [N]."""
        import torch

        chosen = torch.from_numpy(mine)
        return {metric: percentage(outcome[chosen]) for metric, outcome in right.items()}

    @staticmethod
    def observations(
        rows: Iterable[Row], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> Iterator[Observation]:
        """Yield each row's metrics in its category, then each set; the rows of a set are a unit."""
        overall = source.get("overall")
        sets: dict[NumberPath, dict[int, bool]] = {}
        for number, row in enumerate(rows):
            names = [name for name in (row["category"], overall) if name is not None]
            members: dict[str, int] = row.get("sets", {})
            unit = ("set", next(iter(members.values()))) if members else number
            for metric, right in row.items():
                if isinstance(right, bool):
                    for name in names:
                        yield Observation((name, metric), unit, right)
            for metric, member in members.items():
                for name in names:
                    whole = sets.setdefault((name, metric), {})
                    whole[member] = whole.get(member, True) and row["accuracy"]
        for path, found in sets.items():
            for member, right in found.items():
                yield Observation(path, ("set", member), right)

    @staticmethod
    def means(
        paths: Collection[NumberPath], form: Mapping[str, Any], source: Mapping[str, Any]
    ) -> dict[NumberPath, tuple[NumberPath, ...]]:
        """Return the macro means over categories of the metrics that all of them have."""
        return {
            (name, metric): tuple((category, metric) for category in of)
            for name, of in (source.get("groups") or {}).items()
            for first, metric in paths
            if of and first == of[0] and all((category, metric) in paths for category in of)
        }


def percentage(right: Tensor) -> float:
    """Return the percentage of True in bool [N], unrounded."""
    return 100 * int(right.sum()) / len(right)


def macro_mean(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the unweighted mean of each metric that all categories have; `n` is summed."""
    shared = [m for m in entries[0] if m != "n" and all(m in entry for entry in entries)]
    mean = {metric: sum(entry[metric] for entry in entries) / len(entries) for metric in shared}
    return {**mean, "n": sum(entry["n"] for entry in entries)}
