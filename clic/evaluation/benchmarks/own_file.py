"""A user's own benchmark, `--bench my.jsonl`: triplets, labels, or captions for retrieval.

It is a file, or a folder with a card and a file (`own_card`), which can be shared.

The keys of the first row determine which of the three it is, and all other rows must match it, so
that no number covers fewer rows than the file has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clic.errors import ConfigError, DataError, did_you_mean
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import RECALL, make_gallery
from clic.evaluation.benchmarks.own_card import BenchmarkCard, card_of, is_carded, rows_of
from clic.evaluation.benchmarks.own_rows import (
    ENDINGS,
    own_image,
    own_text,
    own_texts,
    read_own_rows,
)
from clic.evaluation.benchmarks.reading import Record
from clic.evaluation.benchmarks.sugarcrepe import TRIPLET_RULE
from clic.evaluation.benchmarks.zero_shot import RULE
from clic.evaluation.encode.image_sources import TarImage
from clic.evaluation.files.file_sources import ByHand
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import BenchmarkTable, Interner
from clic.evaluation.tables.triplets import Triplets

ALL = "all"
MEAN = "mean"
TEMPLATE = "a photo of a {}."
"""The prompt for labels without prompts (arXiv 2103.00020, section 3.1.4)."""


def is_own_file(name: str) -> bool:
    """Return whether a name is a file's, with or without a split, or a folder's with a card."""
    if is_carded(Path(name).expanduser()):
        return True
    return name.lower().endswith(ENDINGS) or name.rpartition("@")[0].lower().endswith(ENDINGS)


def own_benchmark(name: str, listed: Collection[str]) -> Benchmark:
    """Return the benchmark in a file or folder, reported under its card's name or the file's stem.

    Args:
        name: The path.
        listed: The names that are already taken.

    Raises:
        ConfigError: There is no such file, a split is named, or its stem is taken.
        DataError: Its first row cannot be read, or does not determine the kind of benchmark.
    """
    named = Path(name).expanduser()
    card = card_of(named)
    path = _file_of_rows(name, card)
    own_name = path.stem if card is None else card.name
    if own_name in listed:
        remedy = f"rename the file, e.g. my-{path.name}" if card is None else "change its card"
        raise ConfigError(
            f"bench={name} would be reported as {own_name}, which is the name of a known "
            f"benchmark; {remedy}"
        )
    first = next(read_own_rows(path))
    kind = _kind(first)
    texts_alone = kind == "triplets" and first.get("image") is None
    two = kind == "triplets" and len(own_texts(first, "positives")) > 1
    if texts_alone and not two:
        raise first.error(
            "has one true caption and no image, so there is nothing to compare: name its image, "
            "or give two true captions"
        )
    shown = _SHOWN[kind] if kind != "triplets" else _triplet_kind(two, texts_alone)
    return Benchmark(
        name=own_name,
        title=path.name,
        about=shown.about,
        load=of_files(lambda _: _LOADERS[kind](path)),
        citation=f"one's own file, {path.resolve()}"
        if card is None
        else f"{card.citation}; from {card.source}",
        licence="as its author says" if card is None else card.licence,
        rule=shown.rule,
        annotations=(
            ByHand(
                str(path.absolute()),
                why="it is one's own file",
                steps=f"put the images where the rows of {path} name them",
            ),
        ),
        text_metrics=two,
        own_file=named,
    )


def _file_of_rows(name: str, card: BenchmarkCard | None) -> Path:
    """Return the file that contains the rows of a benchmark.

    Raises:
        ConfigError: There is no such file, or a split is named.
        DataError: A folder with a card contains no file of rows, or several.
    """
    named = Path(name).expanduser()
    path = rows_of(named, card, ENDINGS) if card is not None and named.is_dir() else named
    if path.is_file():
        return path
    file, at, split = name.rpartition("@")
    if at and is_own_file(file):
        raise ConfigError(
            f"bench={name}: one's own file has no splits; name {file}, or write the rows of "
            f"the split {split} into a file of their own"
        )
    raise ConfigError(f"bench={name}: there is no such file; name one that exists")


class _Shown(NamedTuple):
    """How a kind of file is described."""

    about: str
    rule: str


_SHOWN = {
    "labels": _Shown("images with labels (zero-shot accuracy over the file's labels)", RULE),
    "captions": _Shown("images with captions (retrieval, both ways)", RECALL),
}


def _triplet_kind(two: bool, texts_alone: bool) -> _Shown:
    if texts_alone:
        return _Shown(
            "triplets without images: two true captions and false ones (TOT alone)", TRIPLET_RULE
        )
    if two:
        return _Shown("triplets: two true captions and false ones (ITT, TOT, P1)", TRIPLET_RULE)
    return _Shown(
        "triplets: one true caption and false ones (accuracy)",
        "the true caption beats every false one",
    )


_KEYS = {
    "triplets": ("positives", "negatives", "image", "category"),
    "labels": ("label", "image", "prompts"),
    "captions": ("captions", "image"),
}
"""The keys of each kind of file; the first one determines the kind."""


def _kind(row: Record) -> str:
    """Return the kind of a file from its first row.

    Raises:
        DataError: The row has the keys of no kind, or of several, or a misspelt key.
    """
    found = [kind for kind, keys in _KEYS.items() if keys[0] in row.value]
    if len(found) != 1:
        raise row.error(
            f"has the keys {', '.join(map(repr, row.value)) or '(none)'}, which tell "
            f"{'several kinds' if found else 'no kind'} of benchmark; write 'positives' with "
            "'negatives', or 'label', or 'captions', each with 'image'"
        )
    known = _KEYS[found[0]]
    absent = [key for key in known if key not in row.value]
    for key in row.value:
        if key not in known and (hint := did_you_mean(key, absent)):
            raise row.error(f"has the key {key!r}, which is not known{hint}")
    return found[0]


def load_own_triplets(path: Path) -> Triplets:
    """Return triplets of one or two true captions and one or more false ones.

    `mean` is over the categories, `all` over the rows.

    Raises:
        DataError: A row is broken, or has other fields than the first.
    """
    images, texts = Interner(), Interner()
    categories: dict[str, int] = {}
    own, number, true, false = [], [], [], []
    first: Record | None = None
    for row in read_own_rows(path):
        first = first or row
        _check_same(row, first)
        positives = own_texts(row, "positives")
        if len(positives) > 2:
            raise row.error(f"has {len(positives)} true captions; give one or two")
        category = ALL if row.get("category") is None else own_text(row, "category")
        if category == MEAN or (category == ALL and row.get("category") is not None):
            raise row.error(f"has the category {category!r}, which stands for several; rename it")
        number.append(categories.setdefault(category, len(categories)))
        own.append([] if row.get("image") is None else [images.add(own_image(row))])
        true.append([texts.add(text) for text in positives])
        false.append([texts.add(text) for text in own_texts(row, "negatives")])
    width = max(map(len, false))
    negative = np.array([row + [-1] * (width - len(row)) for row in false], dtype=np.int64)
    captions, image = np.array(true, dtype=np.int64), np.array(own, dtype=np.int64)
    return Triplets(
        images=tuple(images.items),
        texts=tuple(texts.items),
        categories=tuple(categories),
        category=np.array(number, dtype=np.int64),
        image=image[:, 0] if image.shape[1] else image,
        positive1=captions[:, 0],
        positive2=captions[:, 1] if captions.shape[1] == 2 else None,
        negative=negative[:, 0] if width == 1 else negative,
        groups={MEAN: tuple(categories)},
        overall=ALL if len(categories) > 1 else None,
    )


def _check_same(row: Record, first: Record) -> None:
    """Refuse a row with other fields than the first, which would not count towards all numbers."""
    for key in ("image", "category"):
        if (row.get(key) is None) != (first.get(key) is None):
            has, lacks = (row, first) if row.get(key) is not None else (first, row)
            raise row.error(
                f"cannot be read with the first: row {has.place} has {key!r} and row "
                f"{lacks.place} none; give it to all rows or to none"
            )
    counts = [len(own_texts(one, "positives")) for one in (row, first)]
    if counts[0] != counts[1]:
        raise row.error(
            f"has {counts[0]} true captions and row {first.place} has {counts[1]}; put rows of "
            "one and of two true captions into two files"
        )


def load_own_labels(path: Path) -> Classification:
    """Return images with labels; a label's class is the mean of its prompts.

    Raises:
        DataError: A row is broken, there is only one label, or prompts contradict each other.
    """
    images, texts = Interner(), Interner()
    classes: dict[str, int] = {}
    prompts: dict[str, list[str]] = {}
    own, target = [], []
    for row in read_own_rows(path):
        label = own_text(row, "label")
        own.append(images.add(own_image(row)))
        target.append(classes.setdefault(label, len(classes)))
        if row.get("prompts") is not None:
            given = own_texts(row, "prompts")
            if prompts.setdefault(label, given) != given:
                raise row.error(f"has other prompts for {label!r} than a row before it")
    if len(classes) < 2:
        raise DataError(f"{path} has the one label {next(iter(classes))!r}; give two or more")
    lacking = [label for label in classes if prompts and label not in prompts]
    if lacking:
        raise DataError(
            f"{path}: label {lacking[0]!r} has no prompts and others have; give every label its "
            "prompts in one of its rows, or none"
        )
    filled = ([t.replace("{}", name) for t in prompts.get(name, [TEMPLATE])] for name in classes)
    task = ClassificationTask(
        image=np.array(own, dtype=np.int64),
        target=np.array(target, dtype=np.int64),
        classes=tuple(classes),
        prompts=tuple(texts.add_all(one) for one in filled),
    )
    return Classification(tuple(images.items), tuple(texts.items), {"accuracy": task}, True)


def load_own_captions(path: Path) -> Retrieval:
    """Return images with their captions; rows of the same image are merged.

    Raises:
        DataError: A row is broken.
    """
    gallery: dict[Path | TarImage, list[str]] = {}
    for row in read_own_rows(path):
        gallery.setdefault(own_image(row), []).extend(own_texts(row, "captions"))
    return make_gallery(path, gallery.items())


_LOADERS: dict[str, Callable[[Path], BenchmarkTable]] = {
    "triplets": load_own_triplets,
    "labels": load_own_labels,
    "captions": load_own_captions,
}


def check_stems(chosen: Sequence[Benchmark], found: Benchmark) -> None:
    """Refuse a second file whose numbers would be reported under the same name.

    Raises:
        ConfigError: One of the chosen benchmarks is another file with the same stem.
    """
    for other in chosen:
        files = [one.own_file.resolve() for one in (other, found) if one.own_file is not None]
        if other.name == found.name and len(set(files)) == 2:
            raise ConfigError(
                f"bench={other.own_file},{found.own_file}: both files would be reported as "
                f"{found.name}; rename one of them"
            )
