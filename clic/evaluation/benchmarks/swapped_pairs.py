"""Pairs of images that differ by word order or by a visual pattern: ColorSwap and MMVP-VLM.

ColorSwap (arXiv 2402.04492) has two captions with the same words but swapped colours. MMVP-VLM
(arXiv 2401.06209) has pairs of images in nine visual patterns that CLIP can hardly distinguish,
with a statement about each image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.reading import (
    GridBuilder,
    Record,
    find_parts,
    read_csv,
    read_parquet,
    read_rows,
)
from clic.evaluation.files.file_sources import ByHand
from clic.evaluation.tables.grids import Grids

COLORSWAP_ROWS = "colorswap/test.json"
COLORSWAP_PARQUET = "colorswap/data/test-*.parquet"
CAPTIONS = ("caption_1", "caption_2")
IMAGES = ("image_1", "image_2")

MMVP_ROWS = "mmvp_vlm/Questions.csv"
MMVP_IMAGES = "mmvp_vlm/MLLM_VLM Images"
MMVP_COLUMNS = ("Question ID", "Type", "Statement")
MMVP_PROMPT = "a photo of {}"
"""The authors' evaluation puts this in front of each statement."""


def load_colorswap(data_root: Path) -> Grids:
    """Return ColorSwap's test split, from the authors' JSON file or else from the hub's parquet.

    Raises:
        DataError: Neither exists, or it is broken.
    """
    source = data_root / COLORSWAP_ROWS
    builder = GridBuilder(source, ["all"])
    if source.exists():
        for row in read_rows(source):
            images = [row.image(source.parent, row.text(key)) for key in IMAGES]
            builder.add("all", images, [row.text(key) for key in CAPTIONS])
        return builder.table("winoground")
    missing = f"neither {source} nor {data_root / COLORSWAP_PARQUET} exists; get one"
    files = find_parts(data_root, COLORSWAP_PARQUET, missing)
    for row, stored in read_parquet(files, CAPTIONS, IMAGES):
        builder.add("all", stored, [row.text(key) for key in CAPTIONS])
    return builder.table("winoground")


def load_mmvp_vlm(data_root: Path) -> Grids:
    """Return MMVP-VLM: a pair is right if both statements prefer their own image.

    Statements 1 and 2 are a pair, as are 3 and 4, and so on. `mean` is over the nine patterns.

    Raises:
        DataError: The file is broken, or a statement has no partner of the same pattern.
    """
    path = data_root / MMVP_ROWS
    builder = GridBuilder(path)
    statements = {_question(row): row for row in read_csv(path, MMVP_COLUMNS, blank=False)}
    for number in sorted(statements):
        row, other = statements[number], statements.get(number + 1 if number % 2 else number - 1)
        if other is None or other.text("Type") != row.text("Type"):
            raise row.error(f"is statement {number}, whose pair has no other statement")
        if number % 2:
            pair = (row, other)
            images = [
                one.image(data_root / MMVP_IMAGES, f"{one.text('Type')}/{_question(one)}.jpg")
                for one in pair
            ]
            captions = [MMVP_PROMPT.replace("{}", one.text("Statement")) for one in pair]
            builder.add(row.text("Type").strip().lower().replace(" ", "_"), images, captions)
    return builder.table("cola", groups={"mean": list(builder.counts())}, overall="all")


def _question(row: Record) -> int:
    text = row.text("Question ID")
    try:
        return int(text)
    except ValueError:
        raise row.error(f"has the question id {text!r}, which is not a number") from None


_COLORSWAP_FILES = ByHand(
    COLORSWAP_ROWS,
    why="ColorSwap is shared behind a link or a sign-up",
    steps="follow the link on https://github.com/Top34051/colorswap and put test.json and the "
    "folder images into {data}/colorswap, or accept the terms of "
    "https://huggingface.co/datasets/stanfordnlp/colorswap and put its data folder there",
    instead=COLORSWAP_PARQUET,
)

COLORSWAP = Benchmark(
    name="colorswap",
    title="ColorSwap",
    about="two captions whose colours changed places",
    load=of_files(load_colorswap),
    citation="Burapacheep et al. 2024, arXiv 2402.04492",
    licence="MIT",
    rule="text, image and group score, as Winoground",
    annotations=(_COLORSWAP_FILES,),
    images=(replace(_COLORSWAP_FILES, gives="colorswap/images"),),
    rows=300,
)

_MMVP_FILES = ByHand(
    MMVP_ROWS,
    why="MMVP-VLM's images lie in nine folders on the hub",
    steps="hf download MMVP/MMVP_VLM --repo-type dataset --local-dir {data}/mmvp_vlm",
)

MMVP_VLM = Benchmark(
    name="mmvp-vlm",
    title="MMVP-VLM",
    about="pairs of images that CLIP hardly tells apart",
    load=of_files(load_mmvp_vlm),
    citation="Tong et al. 2024, arXiv 2401.06209",
    licence="not established",
    rule="each of the two statements prefers its own image",
    annotations=(_MMVP_FILES,),
    images=(replace(_MMVP_FILES, gives=MMVP_IMAGES),),
    rows=135,
)
