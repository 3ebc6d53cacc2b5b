"""Benchmarks of two images that differ in little: Winoground, Cola, BiVLC and SVO-Probes.

Winoground (arXiv 2204.03162) has two captions of the same words, Cola's multi-object setting (arXiv
2305.03689) swaps attributes, BiVLC (arXiv 2406.09952) gives each caption of SugarCrepe an image of
its own, and SVO-Probes (arXiv 2106.09141) has one sentence whose two images differ in a word.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.parquet_rows import StoredImage, find_parts, read_texts
from clic.evaluation.benchmarks.reading import GridBuilder, read_list, text_field, texts_of
from clic.evaluation.benchmarks.sugarcrepe import CATEGORIES
from clic.evaluation.encode.image_sources import ImageSource, image_file
from clic.evaluation.files.file_sources import (
    ByHand,
    File,
    HubFolder,
    ImageList,
)
from clic.evaluation.tables.grids import Grids
from clic.io.http_connection import refuse_pointer

WINOGROUND_LINES = "winoground/examples.jsonl"
WINOGROUND_IMAGES = "winoground/images"
WINOGROUND_PARQUET = "winoground/data/test-*.parquet"
WINOGROUND_TAGS = ("Object", "Relation", "Both")
TEXT_COLUMNS = ("caption_0", "caption_1", "collapsed_tag")
IMAGE_COLUMNS = ("image_0", "image_1")


def load_winoground(data_root: Path) -> Grids:
    """Return Winoground by its collapsed tags; `all` is over all rows, as papers report it.

    The hub used to have JSON lines with a folder of images and now has parquet files; if both
    exist, the JSON lines are read.
    """
    lines = (data_root / WINOGROUND_LINES).exists()
    rows = list(_from_lines(data_root) if lines else _from_parquet(data_root))
    seen = {tag for tag, _, _ in rows}
    source = data_root / (WINOGROUND_LINES if lines else WINOGROUND_PARQUET)
    builder = GridBuilder(source, [f"tag_{tag.lower()}" for tag in WINOGROUND_TAGS if tag in seen])
    for tag, images, captions in rows:
        builder.add(f"tag_{tag.lower()}", images, captions)
    return builder.table("winoground", overall="all")


def _from_lines(data_root: Path) -> Iterator[tuple[str, list[ImageSource], list[str]]]:
    """Yield tag, images and captions of each row; the file names images without their suffix."""
    path = data_root / WINOGROUND_LINES
    for number, row in enumerate(read_lines(path)):
        names = [text_field(row, key, path, number).removesuffix(".png") for key in IMAGE_COLUMNS]
        images: list[ImageSource] = [
            image_file(data_root / WINOGROUND_IMAGES, f"{name}.png", path) for name in names
        ]
        *captions, tag = (text_field(row, key, path, number) for key in TEXT_COLUMNS)
        yield tag, images, captions


def _from_parquet(data_root: Path) -> Iterator[tuple[str, list[ImageSource], list[str]]]:
    """Yield tag, images and captions of each row.

    Raises:
        DataError: A file is missing.
    """
    files = find_parts(data_root, WINOGROUND_PARQUET)
    if not files:
        raise DataError(
            f"neither {data_root / WINOGROUND_LINES} nor {data_root / WINOGROUND_PARQUET} exists"
        )
    for file in files:
        for place, row in read_texts(file, TEXT_COLUMNS):
            images: list[ImageSource] = [StoredImage(*place, column) for column in IMAGE_COLUMNS]
            *captions, tag = (text_field(row, key, file, place.row) for key in TEXT_COLUMNS)
            yield tag, images, captions


def read_lines(path: Path) -> list[Any]:
    """Return the objects of a file of JSON lines; raises `DataError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        refuse_pointer(path)
        raise DataError(f"{path} cannot be read as JSON lines ({error}); get it again") from error


COLA_ROWS = "cola/COLA_multiobjects_matching_benchmark.json"
COLA_IMAGES = "cola/images"


def load_cola(data_root: Path) -> Grids:
    """Return Cola: a row is right if each caption prefers its own image."""
    builder = GridBuilder(data_root / COLA_ROWS, ["multi_object"])
    for urls, captions in _cola_rows(data_root):
        files = [
            image_file(data_root / COLA_IMAGES, _file_name(url), data_root / COLA_ROWS)
            for url in urls
        ]
        builder.add("multi_object", files, captions)
    return builder.table("cola")


def cola_urls(data_root: Path) -> dict[str, str]:
    """Return the URL of each image by its path below the data root."""
    urls = [url for both, _ in _cola_rows(data_root) for url in both]
    return {f"{COLA_IMAGES}/{_file_name(url)}": url for url in urls}


def _cola_rows(data_root: Path) -> list[tuple[list[str], list[str]]]:
    """Return the images' URLs and the captions of each row."""
    path = data_root / COLA_ROWS
    rows = [
        texts_of(row, 4, "image, caption, image, caption", path, n)
        for n, row in enumerate(read_list(path))
    ]
    return [([row[0], row[2]], [row[1], row[3]]) for row in rows]


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name


BIVLC_FOLDER = "bivlc/data"
BIVLC_FILES = "test-*.parquet"
BIVLC_COLUMNS = ("caption", "negative_caption", "type", "subtype")


def load_bivlc(data_root: Path) -> Grids:
    """Return BiVLC by type and subtype; `all` is over all rows, as the paper reports it."""
    folder = data_root / BIVLC_FOLDER
    files = find_parts(folder, BIVLC_FILES)
    if not files:
        raise DataError(f"{folder} has no {BIVLC_FILES}; get it with clic-data fetch bivlc")
    rows = [
        (place, {name: text_field(row, name, place.path, place.row) for name in BIVLC_COLUMNS})
        for file in files
        for place, row in read_texts(file, BIVLC_COLUMNS)
    ]
    present = {f"{row['type']}_{row['subtype']}" for _, row in rows}
    builder = GridBuilder(folder, [name for name in CATEGORIES if name in present])
    for place, row in rows:
        images = [StoredImage(*place, column) for column in ("image", "negative_image")]
        builder.add(
            f"{row['type']}_{row['subtype']}", images, [row["caption"], row["negative_caption"]]
        )
    kinds = dict.fromkeys(name.split("_")[0] for name in builder.category_names)
    groups = {k: [n for n in builder.category_names if n.startswith(f"{k}_")] for k in kinds}
    return builder.table("bivlc", groups=groups, overall="all")


SVO_ROWS = "svo_probes/svo_probes.csv"
SVO_IMAGES = "svo_probes/images"
SVO_KINDS = {
    "subj_neg": "negative_subject",
    "verb_neg": "negative_verb",
    "obj_neg": "negative_object",
}
SVO_COLUMNS = ("sentence", "pos_image_id", "neg_image_id", "pos_url", "neg_url", *SVO_KINDS)


def load_svo(data_root: Path) -> Grids:
    """Return SVO-Probes: of two images, the sentence's own must beat the other.

    Rows whose images differ in more than one part are left out, as in the published analysis.
    """
    builder = GridBuilder(data_root / SVO_ROWS, list(SVO_KINDS.values()))
    for number, row in enumerate(read_probes(data_root)):
        kinds = [
            name for column, name in SVO_KINDS.items() if row[column].strip().lower() == "true"
        ]
        if len(kinds) != 1:
            continue
        ids = [_image_id(row[f"{side}_image_id"], data_root, number) for side in ("pos", "neg")]
        files = [data_root / SVO_IMAGES / f"{index}.jpg" for index in ids]
        builder.add(kinds[0], files, [row["sentence"]])
    return builder.table("choice", groups={"mean": list(SVO_KINDS.values())}, overall="all")


def svo_urls(data_root: Path) -> dict[str, str]:
    """Return the URL of each image by its path below the data root."""
    urls = {}
    for number, row in enumerate(read_probes(data_root)):
        for side in ("pos", "neg"):
            index = _image_id(row[f"{side}_image_id"], data_root, number)
            urls[f"{SVO_IMAGES}/{index}.jpg"] = row[f"{side}_url"]
    return urls


def read_probes(data_root: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of the published file.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    path = data_root / SVO_ROWS
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [name for name in SVO_COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; download it again")
            for row in reader:
                if any(row[name] is None for name in SVO_COLUMNS):
                    raise DataError(f"{path}: line {reader.line_num} is cut off; download it again")
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); download it again") from error


def _image_id(text: str, data_root: Path, number: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"{data_root / SVO_ROWS}: row {number} has the image id {text!r}, which is not a "
            "number; download it again"
        ) from None


_WINOGROUND_FILES = ByHand(
    WINOGROUND_LINES,
    why="Winoground needs a sign-up",
    steps="accept the terms at https://huggingface.co/datasets/facebook/winoground, then: "
    "hf download facebook/winoground --repo-type dataset --include 'data/test-*' "
    "--local-dir {data}/winoground",
    instead=WINOGROUND_PARQUET,
)

WINOGROUND = Benchmark(
    name="winoground",
    title="Winoground",
    about="two images, two captions of the same words",
    load=of_files(load_winoground),
    citation="Thrush et al. 2022, arXiv 2204.03162",
    licence="META WINOGROUND_IMAGES RESEARCH LICENSE, after a sign-up",
    rule="text, image and group score",
    annotations=(_WINOGROUND_FILES,),
    images=(replace(_WINOGROUND_FILES, gives=WINOGROUND_IMAGES),),
    rows=400,
)

SVO_PROBES = Benchmark(
    name="svo-probes",
    title="SVO-Probes",
    about="a sentence, its image, and one that differs",
    load=of_files(load_svo),
    citation="Hendricks and Nematzadeh 2021, arXiv 2106.09141",
    licence="CC BY 4.0; images from the web",
    rule="the sentence's own image beats the other one",
    annotations=(File("https://storage.googleapis.com/dm-mmt-models/svo_probes.csv", SVO_ROWS),),
    images=(ImageList(SVO_IMAGES, svo_urls),),
    differs="the paper classifies single pairs as matching or not, which a cosine alone does "
    "not; many images are gone from the web, so quote the row count",
)

COLA = Benchmark(
    name="cola",
    title="Cola (multi-object)",
    about="two images with swapped attributes",
    load=of_files(load_cola),
    citation="Ray et al. 2023, arXiv 2305.03689",
    licence="MIT; images of Visual Genome, CC BY 4.0",
    rule="each caption's own image beats the other one",
    annotations=(
        File(
            "https://raw.githubusercontent.com/arijitray1993/COLA/main/data/"
            "COLA_multiobjects_matching_benchmark.json",
            COLA_ROWS,
        ),
    ),
    images=(ImageList(COLA_IMAGES, cola_urls),),
    rows=210,
)

BIVLC = Benchmark(
    name="bivlc",
    title="BiVLC",
    about="SugarCrepe both ways, with images of its own",
    load=of_files(load_bivlc),
    citation="Miranda et al. 2024, arXiv 2406.09952",
    licence="MIT; images of COCO and generated ones",
    rule="i2t, t2i and group, and their four parts",
    annotations=(HubFolder("imirandam/BiVLC", "data", BIVLC_FILES, BIVLC_FOLDER),),
    rows=2933,
    differs="replace, swap and add are means over their subtypes; the published code averages "
    "their rows",
)
