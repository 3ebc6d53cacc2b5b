"""SugarCrepe++ (arXiv 2406.11171) and SugarCrepe (arXiv 2306.14610), over COCO's val2017 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import COCO_2017
from clic.evaluation.benchmarks.reading import Record, read_rows
from clic.evaluation.files.file_sources import github
from clic.evaluation.tables.table import Interner
from clic.evaluation.tables.triplets import Triplets

IMAGES = "coco/val2017"
PLUS_CATEGORIES = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
CATEGORIES = ("add_att", "add_obj", *PLUS_CATEGORIES)


def groups_of(categories: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the macro means to report: one per kind of change (its first word), and `mean`."""
    kinds = dict.fromkeys(name.split("_")[0] for name in categories)
    groups = {k: tuple(c for c in categories if c.split("_")[0] == k) for k in kinds}
    return {**groups, "mean": categories}


def _load(data_root: Path, folder: str, categories: tuple[str, ...], two: bool) -> Triplets:
    images, texts = Interner(), Interner()
    columns: list[tuple[int, int, int, int, int]] = []
    for category, name in enumerate(categories):
        for row in _rows(data_root / folder / f"{name}.json"):
            image = images.add(row.image(data_root / IMAGES, row.text("filename")))
            first = texts.add(row.text("caption"))
            second = texts.add(row.text("caption2")) if two else first
            negative = texts.add(row.text("negative_caption"))
            columns.append((category, image, first, second, negative))
    table = np.array(columns, dtype=np.int64)
    return Triplets(
        images=tuple(images.items),
        texts=tuple(texts.items),
        categories=categories,
        category=table[:, 0],
        image=table[:, 1],
        positive1=table[:, 2],
        positive2=table[:, 3] if two else None,
        negative=table[:, 4],
        groups=groups_of(categories),
        overall="all",
    )


def _rows(path: Path) -> list[Record]:
    """Return the rows of one file: a JSON list, or an object keyed by numbers.

    Numbers may be missing (SugarCrepe's swap_obj has no 108); rows come in the numbers' order.
    """
    try:
        return sorted(read_rows(path, "list", "object"), key=lambda row: int(row.place))
    except ValueError:
        raise DataError(
            f"{path}: the keys of its object should be numbers; download it again"
        ) from None


def load_sugarcrepe_pp(data_root: Path) -> Triplets:
    """Return SugarCrepe++: two true captions and a false one for each row."""
    return _load(data_root, "sugarcrepe_pp", PLUS_CATEGORIES, two=True)


def load_sugarcrepe(data_root: Path) -> Triplets:
    """Return SugarCrepe: one true caption and a false one for each row."""
    return _load(data_root, "sugarcrepe", CATEGORIES, two=False)


TRIPLET_RULE = "ITT: the image prefers both true captions; TOT: the captions alone"

SUGARCREPE_PP = Benchmark(
    name="sugarcrepe++",
    title="SugarCrepe++",
    about="two true captions, a false one",
    load=of_files(load_sugarcrepe_pp),
    citation="Dumpala et al. 2024, arXiv 2406.11171",
    licence="CC BY 4.0",
    rule=TRIPLET_RULE,
    annotations=github("Sri-Harsha/scpp", PLUS_CATEGORIES, "sugarcrepe_pp"),
    images=(COCO_2017,),
    rows=4757,
    text_metrics=True,
)

SUGARCREPE = Benchmark(
    name="sugarcrepe",
    title="SugarCrepe",
    about="a true caption, a false one",
    load=of_files(load_sugarcrepe),
    citation="Hsieh et al. 2023, arXiv 2306.14610",
    licence="MIT",
    rule="the true caption beats the false one",
    annotations=github("RAIVNLab/sugar-crepe", CATEGORIES, "sugarcrepe"),
    images=(COCO_2017,),
    rows=7511,
    differs="`mean` is over the seven categories and `all` over the rows; papers have either, or "
    "the mean of the three kinds",
)
