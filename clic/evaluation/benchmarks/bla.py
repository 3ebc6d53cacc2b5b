"""BLA, Basic Language Abilities (arXiv 2310.15061): two true and two false captions of one photo.

Every true caption is compared with every false one, so an item gives four rows. The numbers in the
files suggest pairing True1 with False1 and True2 with False2, but throughout coordination and
relative clauses such a pair differs in its words ("wears a yellow shirt" against "wears a white
top"), while the two true captions together have the same words as the two false ones. Only over all
four pairs do the words alone favour neither side. It also gives `both` a clear meaning: both true
captions beat both false ones.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.reading import GridBuilder, Record, read_rows
from clic.evaluation.files.file_sources import ByHand
from clic.evaluation.tables.grids import Grids

FOLDER = "bla"
IMAGES = "bla/images"
TASKS = ("active_passive", "coordination", "relative_clause")
TRUE = ("True1", "True2")
FALSE = ("False1", "False2")
BOTH = "both"
"""The metric that counts an item as right if all four of its pairs are."""


def load_bla(data_root: Path) -> Grids:
    """Return BLA: a row pairs a true caption with a false one, and an item's four rows are a set.

    Raises:
        DataError: A file is broken or has no rows.
    """
    builder = GridBuilder(data_root / FOLDER, TASKS)
    items: list[int] = []
    for task in TASKS:
        for row in read_rows(data_root / FOLDER / f"{task}_captions.json"):
            image = row.image(data_root / IMAGES, f"{_photo(row)}.jpg")
            groups = row.get("caption_group")
            if not isinstance(groups, list) or not groups:
                raise row.error("has no 'caption_group'")
            for value in groups:
                group = replace(row, value=value)
                true, false = ([group.text(key) for key in keys] for keys in (TRUE, FALSE))
                own = items[-1] + 1 if items else 0
                for right, wrong in product(true, false):
                    builder.add(task, [image], [right, wrong])
                    items.append(own)
    return builder.table("choice", groups={"mean": TASKS}, overall="all", sets={BOTH: items})


def _photo(row: Record) -> str:
    """Return a photo's number, a string in one of the files and a number in the others."""
    value = row.get("image_id")
    if not isinstance(value, int | str) or isinstance(value, bool) or value == "":
        raise row.error("has no 'image_id'")
    return str(value)


def _by_hand(gives: str) -> ByHand:
    return ByHand(
        gives,
        why="BLA is shared as a zip behind a link",
        steps="follow the link to BLA_benchmark.zip on https://github.com/shin-ee-chen/BLA and put "
        "its three *_captions.json files into {data}/bla and its photos into {data}/bla/images",
    )


BLA = Benchmark(
    name="bla",
    title="BLA",
    about="voice, coordination, relative clauses",
    load=of_files(load_bla),
    citation="Chen et al. 2023, arXiv 2310.15061",
    licence="MIT; photos of Visual Genome, CC BY 4.0",
    rule="each true caption beats each false one: by pair, and all four of an item",
    annotations=tuple(_by_hand(f"{FOLDER}/{task}_captions.json") for task in TASKS),
    images=(_by_hand(IMAGES),),
    differs="the paper asks models whether each caption alone is true; a cosine has no threshold, "
    "so true captions are compared with false ones here",
)
