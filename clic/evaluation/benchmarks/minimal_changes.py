"""Pairs that differ in exactly one thing: SPEC, VisMin and EqBen.

SPEC (arXiv 2312.00081) varies size, position, existence and count in synthetic images, VisMin
(arXiv 2407.16772) edits one thing of a photo, and EqBen (arXiv 2303.14465) uses neighbouring video
frames and rendered scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.reading import (
    GridBuilder,
    Record,
    find_parts,
    read_parquet,
    read_rows,
)
from clic.evaluation.files.file_sources import ByHand, File, HubFolder
from clic.evaluation.tables.grids import Grids

SPEC_FOLDER = "spec"
SPEC_SUBSETS = (
    "absolute_size",
    "relative_size",
    "absolute_spatial",
    "relative_spatial",
    "existence",
    "count",
)
SPEC_FILES = {"i2t": "image2text.json", "t2i": "text2image.json"}


def load_spec(data_root: Path) -> Grids:
    """Return SPEC both ways: choose one of several captions, and one of several images.

    Each subset and direction has a category; `i2t`, `t2i` and `mean` are over the subsets.

    Raises:
        DataError: A file is missing or broken.
    """
    groups = {way: tuple(f"{way}_{name}" for name in SPEC_SUBSETS) for way in SPEC_FILES}
    names = tuple(name for of in groups.values() for name in of)
    builder = GridBuilder(data_root / SPEC_FOLDER, names)
    for way, file in SPEC_FILES.items():
        for subset in SPEC_SUBSETS:
            folder = data_root / SPEC_FOLDER / subset
            for row, options in _spec_rows(folder / file):
                query = row.text("query")
                if way == "i2t":
                    builder.add(f"i2t_{subset}", [row.image(folder, query)], options)
                else:
                    images = [row.image(folder, name) for name in options]
                    builder.add(f"t2i_{subset}", images, [query])
    return builder.table("choice", groups={**groups, "mean": names}, overall="all")


def _spec_rows(path: Path) -> Iterator[tuple[Record, list[str]]]:
    """Yield each row with its options, the right one first."""
    for row in read_rows(path):
        options, label = row.texts(row.get("keys"), 2, "keys"), row.number("label")
        if not 0 <= label < len(options):
            raise row.error(f"has the label {label}, which is none of its {len(options)} keys")
        yield row, [options[label], *options[:label], *options[label + 1 :]]


VISMIN_FOLDER = "vismin/data"
VISMIN_FILES = "test-*.parquet"
VISMIN_CAPTIONS = ("text_0", "text_1")
VISMIN_COLUMNS = (*VISMIN_CAPTIONS, "category")


def load_vismin(data_root: Path) -> Grids:
    """Return VisMin's benchmark with Winoground's rule, by the kind of change.

    `mean` is over the kinds, `all` over the rows.

    Raises:
        DataError: The files are missing or broken.
    """
    folder = data_root / VISMIN_FOLDER
    missing = f"{folder} has no {VISMIN_FILES}; get it with clic-data fetch vismin"
    files = find_parts(folder, VISMIN_FILES, missing)
    builder = GridBuilder(folder)
    for row, images in read_parquet(files, VISMIN_COLUMNS, ("image_0", "image_1")):
        captions = [row.text(key) for key in VISMIN_CAPTIONS]
        builder.add(row.text("category").strip().lower(), images, captions)
    return builder.table("winoground", groups={"mean": list(builder.counts())}, overall="all")


EQBEN_ROWS = "eqben/eqben_subset_10percent_final.json"
EQBEN_IMAGES = "eqben/image_subset"


def load_eqben(data_root: Path) -> Grids:
    """Return EqBen's public tenth with Winoground's rule, by source; `all` is over the rows.

    The source is the first folder of an image's path. YouCook2's frames are NumPy files in BGR.

    Raises:
        DataError: The file is missing or broken.
    """
    path = data_root / EQBEN_ROWS
    builder = GridBuilder(path)
    for row in read_rows(path):
        names = [row.text(key) for key in ("image0", "image1")]
        images = [row.image(data_root / EQBEN_IMAGES, name) for name in names]
        source = PurePosixPath(names[0]).parts[0]
        builder.add(source, images, [row.text(key) for key in ("caption0", "caption1")])
    return builder.table("winoground", groups={"mean": list(builder.counts())}, overall="all")


_SPEC_FILES = ByHand(
    SPEC_FOLDER,
    why="SPEC is an archive on the hub",
    steps="download https://huggingface.co/datasets/wjpoom/SPEC and put its six folders into "
    "{data}/spec",
)

SPEC = Benchmark(
    name="spec",
    title="SPEC",
    about="size, position, existence and count, both ways",
    load=of_files(load_spec),
    citation="Peng et al. 2024, arXiv 2312.00081",
    licence="not established",
    rule="the right caption (i2t) or image (t2i) beats every other one",
    annotations=(_SPEC_FILES,),
    images=(replace(_SPEC_FILES, gives=f"{SPEC_FOLDER}/{SPEC_SUBSETS[0]}"),),
)

VISMIN = Benchmark(
    name="vismin",
    title="VisMin",
    about="a photo and its edit that differ in one thing",
    load=of_files(load_vismin),
    citation="Awal et al. 2024, arXiv 2407.16772",
    licence="not established; photos of COCO and edits of them",
    rule="text, image and group score, as Winoground",
    annotations=(HubFolder("mair-lab/vismin-bench", "data", VISMIN_FILES, VISMIN_FOLDER),),
    rows=2084,
)

EQBEN = Benchmark(
    name="eqben",
    title="EqBen, public tenth",
    about="neighbouring frames and rendered scenes",
    load=of_files(load_eqben),
    citation="Wang et al. 2023, arXiv 2303.14465",
    licence="not established",
    rule="text, image and group score, as Winoground",
    annotations=(
        File(
            "https://storage.googleapis.com/eqben-data/eqben_subset/"
            "eqben_subset_10percent_final.json",
            EQBEN_ROWS,
        ),
    ),
    images=(
        ByHand(
            EQBEN_IMAGES,
            why="EqBen's images are an archive whose layout was not at hand",
            steps="unpack https://storage.googleapis.com/eqben-data/eqben_subset/"
            "subset_image.tar.gz so that its folders lie in {data}/eqben/image_subset",
        ),
    ),
    differs="the labels of the whole benchmark are kept on its server; this is the tenth whose "
    "labels are public",
)
