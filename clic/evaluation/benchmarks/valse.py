"""VALSE (arXiv 2112.07566): captions and foils of six linguistic phenomena in eleven files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import COCO_2014, COCO_2014_TRAIN, COCO_2017
from clic.evaluation.benchmarks.reading import GridBuilder, Record, read_rows
from clic.evaluation.files.file_sources import Archive, github
from clic.evaluation.tables.grids import Grids

FOLDER = "valse"
PIECES = (
    "existence",
    "plurals",
    "counting-hard",
    "counting-small-quant",
    "counting-adversarial",
    "relations",
    "action-replacement",
    "actant-swap",
    "coreference-standard",
    "coreference-hard",
    "foil-it",
)
FOLDERS = {
    "visual7w": f"{FOLDER}/visual7w",
    "SWiG": f"{FOLDER}/SWiG",
    "VisDial_v1.0": f"{FOLDER}/VisDial_v1.0",
    "FOIL dataset": "coco/val2014",
    "coco_2017": "coco/val2017",
}
"""The image folder of each `dataset` in the files; the splits below have their own folders."""
COCO_2014_SPLITS = ("train2014", "val2014")
"""COCO's splits, which the names of their images contain. VisDial's training images are COCO's."""
LEAST_VOTES = 2
"""How many of the three annotators must have chosen the caption over the foil."""


def load_valse(data_root: Path) -> Grids:
    """Return VALSE's valid rows with the paper's pairwise accuracy; `mean` is over files."""
    names = [f"piece_{piece.replace('-', '_')}" for piece in PIECES]
    builder = GridBuilder(data_root / FOLDER, names)
    for piece, category in zip(PIECES, names, strict=True):
        for row in read_rows(data_root / FOLDER / f"{piece}.json", "object"):
            if _votes(row) >= LEAST_VOTES:
                captions = [_text(row, name) for name in ("caption", "foil")]
                builder.add(category, [_image(data_root, row)], captions)
    return builder.table("choice", groups={"mean": names}, overall="all")


def _votes(row: Record) -> int:
    votes = row.get("mturk")
    count = votes.get("caption") if isinstance(votes, dict) else None
    if not isinstance(count, int):
        raise row.error("has no votes (mturk.caption)")
    return count


def _text(row: Record, name: str) -> str:
    """Return a text, which some files wrap in a list."""
    value = row.get(name)
    first = value[0] if isinstance(value, list) and value else value
    return replace(row, value={name: first}).text(name)


def _image(data_root: Path, row: Record) -> Path:
    dataset, name = row.text("dataset"), row.text("image_file")
    if dataset not in FOLDERS:
        raise row.error(f"is of {dataset!r} (known: {', '.join(FOLDERS)})")
    named = [split for split in COCO_2014_SPLITS if name.startswith(f"COCO_{split}_")]
    return row.image(data_root / (f"coco/{named[0]}" if named else FOLDERS[dataset]), name)


def _archive(url: str, dataset: str, top: str) -> Archive:
    folder = FOLDERS[dataset]
    return Archive(
        url,
        name=f"{folder}.zip",
        into=FOLDER,
        gives=folder,
        rename=(top, folder.removeprefix(f"{FOLDER}/")),
    )


_IMAGES = (
    _archive("http://vision.stanford.edu/yukezhu/visual7w_images.zip", "visual7w", "images"),
    _archive(
        "https://swig-data-weights.s3.us-east-2.amazonaws.com/images_512.zip", "SWiG", "images_512"
    ),
    _archive(
        "https://www.dropbox.com/s/twmtutniktom7tu/VisualDialog_val2018.zip?dl=1",
        "VisDial_v1.0",
        "VisualDialog_val2018",
    ),
    COCO_2014_TRAIN,
    COCO_2014,
    COCO_2017,
)

VALSE = Benchmark(
    name="valse",
    title="VALSE",
    about="captions and foils of six phenomena",
    load=of_files(load_valse),
    citation="Parcalabescu et al. 2022, arXiv 2112.07566",
    licence="MIT; images of their sources",
    rule="the caption beats the foil (the paper's pairwise accuracy)",
    annotations=github("Heidelberg-NLP/VALSE", PIECES, FOLDER),
    images=_IMAGES,
    differs="only rows that two of three annotators confirmed, as the authors ask; some "
    "public code scores all rows",
)
