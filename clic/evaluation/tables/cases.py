"""The one form that every benchmark takes: a table of cases over unique images and unique texts.

A table holds indices, never features, so that several benchmarks can share one pass over their
images and texts. Letters: I images, T texts, N rows, M captions, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clic.evaluation.encode.image_refs import ImageRef, image_key, image_name, image_path


class Interner:
    """Gives each distinct text or image the number of its first appearance."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def add(self, item: str | ImageRef, key: Hashable | None = None) -> int:
        """Return the number of `item`, a new one where its key was not seen before."""
        if key is None:
            key = item if isinstance(item, str) else image_key(item)
        number = self._numbers.setdefault(key, len(self.items))
        if number == len(self.items):
            self.items.append(item)
        return number

    def add_all(self, items: Iterable[str | ImageRef]) -> np.ndarray:
        """Return the numbers of several items, int64 [N]."""
        return np.array([self.add(item) for item in items], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Triplets:
    """Rows of one image, one or two true captions and a false one, in categories.

    Attributes:
        images: The I unique images.
        texts: The T unique texts, exactly as the benchmark's file has them.
        categories: Names, in the order they are reported in.
        category: int64 [N], index into `categories`.
        image: int64 [N], index into `images`.
        positive1: int64 [N], index into `texts`.
        positive2: int64 [N], or None where rows have one true caption (SugarCrepe).
        negative: int64 [N].
        groups: Macro means to report by name, each over some of the categories.
    """

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    category: np.ndarray
    image: np.ndarray
    positive1: np.ndarray
    positive2: np.ndarray | None
    negative: np.ndarray
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return len(self.category)

    def without(self, lost: np.ndarray) -> Triplets:
        """Return the table without the rows of lost images (bool [I]); indices stay valid."""
        keep = ~lost[self.image]
        return replace(
            self,
            category=self.category[keep],
            image=self.image[keep],
            positive1=self.positive1[keep],
            positive2=None if self.positive2 is None else self.positive2[keep],
            negative=self.negative[keep],
        )


@dataclass(frozen=True, eq=False)
class Retrieval:
    """A gallery of images and captions; any of an image's captions is a match.

    Attributes:
        images: The I unique images.
        texts: The T unique texts.
        gallery: int64 [G], index into `images` of each gallery image.
        caption: int64 [M], index into `texts` of each caption.
        owner: int64 [M], position in `gallery` of the image a caption belongs to.
    """

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    gallery: np.ndarray
    caption: np.ndarray
    owner: np.ndarray

    @property
    def rows(self) -> int:
        """Number of queries in both directions."""
        return len(self.gallery) + len(self.caption)

    def without(self, lost: np.ndarray) -> Retrieval:
        """Return the gallery without lost images (bool [I]) and without their captions."""
        keep = ~lost[self.gallery]
        position = np.cumsum(keep) - 1
        mine = keep[self.owner]
        return replace(
            self,
            gallery=self.gallery[keep],
            caption=self.caption[mine],
            owner=position[self.owner[mine]],
        )


@dataclass(frozen=True, eq=False)
class ClassificationTask:
    """One question asked of images: which of C classes.

    Attributes:
        image: int64 [N], index into the benchmark's images.
        target: int64 [N], the right class.
        classes: The C class names.
        prompts: For each class the indices of its prompts in the benchmark's texts.
    """

    image: np.ndarray
    target: np.ndarray
    classes: tuple[str, ...]
    prompts: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Classification:
    """Zero-shot classification: tasks by name over shared images and prompts.

    Attributes:
        images: The I unique images.
        texts: The T unique prompts.
        tasks: By name.
        per_class: Whether the mean of the classes' accuracies is reported beside the accuracy.
    """

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    tasks: Mapping[str, ClassificationTask]
    per_class: bool = False

    @property
    def rows(self) -> int:
        """Number of (task, image) pairs."""
        return sum(len(task.image) for task in self.tasks.values())

    def without(self, lost: np.ndarray) -> Classification:
        """Return the tasks without lost images (bool [I])."""
        tasks = {}
        for name, task in self.tasks.items():
            keep = ~lost[task.image]
            tasks[name] = replace(task, image=task.image[keep], target=task.target[keep])
        return replace(self, tasks=tasks)


@dataclass(frozen=True, eq=False)
class Grids:
    """Rows of A images and B captions, scored all against all by a rule of the module `rules`.

    A = 1: which of B captions is the image's. B = 1: which of A images is the caption's. In both
    the first is the right one. A = B = 2: two images, each with the caption of its own number.

    Attributes:
        images: The I unique images.
        texts: The T unique texts.
        rule: Name in `clic.evaluation.tables.rules.RULES`.
        categories: Names, in the order they are reported in.
        category: int64 [N], index into `categories`.
        image: int64 [N, A], index into `images`.
        caption: int64 [N, B], index into `texts`; -1 where a row has fewer options than others.
        groups: Macro means to report by name, each over some of the categories.
        overall: Name under which all rows are reported as one, or None.
        sets: Further metrics: for each name int64 [N], the number of the set that a row belongs
            to, -1 for none; a set is right if all its rows are.
    """

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    rule: str
    categories: tuple[str, ...]
    category: np.ndarray
    image: np.ndarray
    caption: np.ndarray
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overall: str | None = None
    sets: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return len(self.category)

    def without(self, lost: np.ndarray) -> Grids:
        """Return the table without the rows of lost images (bool [I]), nor sets that lost rows."""
        keep = ~lost[self.image].any(axis=1)
        return replace(
            self,
            category=self.category[keep],
            image=self.image[keep],
            caption=self.caption[keep],
            sets={k: np.where(np.isin(v, v[~keep]), -1, v)[keep] for k, v in self.sets.items()},
        )


Table = Triplets | Retrieval | Classification | Grids


def used_images(table: Table) -> np.ndarray:
    """Return bool [I]: the images that some row of the table looks at."""
    used = np.zeros(len(table.images), dtype=bool)
    if isinstance(table, Triplets | Grids):
        used[table.image] = True
    elif isinstance(table, Retrieval):
        used[table.gallery] = True
    else:
        for task in table.tasks.values():
            used[task.image] = True
    return used


def digest(table: Table) -> str:
    """Return the SHA-256 of everything a table scores: texts, indices, image names or pixels.

    It does not depend on the folder that the images lie in, nor on the bytes of image files.
    """
    hashed = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            if isinstance(part, np.ndarray):
                hashed.update(f"{part.dtype.str}{part.shape}".encode())
                hashed.update(part.tobytes())
            else:
                hashed.update(f"{part!r}\n".encode())

    add(type(table).__name__, *table.texts)
    add(*(ref if image_path(ref) is None else image_name(ref, 0) for ref in table.images))
    if isinstance(table, Triplets):
        add(*table.categories, table.category, table.image)
        add(table.positive1, table.positive2, table.negative)
    elif isinstance(table, Retrieval):
        add(table.gallery, table.caption, table.owner)
    elif isinstance(table, Grids):
        add(table.rule, *table.categories, table.category, table.image, table.caption)
        add(*table.sets, *table.sets.values())
    else:
        for name, task in table.tasks.items():
            add(name, *task.classes, task.image, task.target, *task.prompts)
    return hashed.hexdigest()
