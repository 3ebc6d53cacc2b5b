"""Benchmarks with two similar images: Winoground, Cola, BiVLC and SVO-Probes.

Winoground (arXiv 2204.03162) has two captions with the same words, Cola's multi-object setting
(arXiv 2305.03689) swaps attributes, BiVLC (arXiv 2406.09952) gives each caption of SugarCrepe its
own image, and SVO-Probes (arXiv 2106.09141) has one sentence for two images that differ in a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.reading import (
    GridBuilder,
    Record,
    find_parts,
    read_csv,
    read_lines,
    read_parquet,
    read_rows,
)
from clic.evaluation.benchmarks.sugarcrepe import CATEGORIES, groups_of
from clic.evaluation.encode.image_sources import ImageSource
from clic.evaluation.files.file_sources import ByHand, File, HubFolder, ImageList
from clic.evaluation.tables.grids import Grids

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
    source = data_root / WINOGROUND_LINES
    rows: list[tuple[list[ImageSource], list[str]]] = []
    if source.exists():
        for row in read_lines(source):
            # The file names images without their suffix.
            names = [f"{row.text(key).removesuffix('.png')}.png" for key in IMAGE_COLUMNS]
            images: list[ImageSource] = [
                row.image(data_root / WINOGROUND_IMAGES, name) for name in names
            ]
            rows.append((images, [row.text(key) for key in TEXT_COLUMNS]))
    else:
        missing = f"neither {source} nor {data_root / WINOGROUND_PARQUET} exists"
        files = find_parts(data_root, WINOGROUND_PARQUET, missing)
        source = data_root / WINOGROUND_PARQUET
        for row, images in read_parquet(files, TEXT_COLUMNS, IMAGE_COLUMNS):
            rows.append((images, [row.text(key) for key in TEXT_COLUMNS]))
    seen = {texts[-1] for _, texts in rows}
    builder = GridBuilder(source, [f"tag_{tag.lower()}" for tag in WINOGROUND_TAGS if tag in seen])
    for images, (*captions, tag) in rows:
        builder.add(f"tag_{tag.lower()}", images, captions)
    return builder.table("winoground", overall="all")


COLA_ROWS = "cola/COLA_multiobjects_matching_benchmark.json"
COLA_IMAGES = "cola/images"


def load_cola(data_root: Path) -> Grids:
    """Return Cola: a row is right if each caption prefers its own image."""
    builder = GridBuilder(data_root / COLA_ROWS, ["multi_object"])
    for row, urls, captions in _cola_rows(data_root):
        files = [row.image(data_root / COLA_IMAGES, _file_name(url)) for url in urls]
        builder.add("multi_object", files, captions)
    return builder.table("cola")


def cola_urls(data_root: Path) -> dict[str, str]:
    """Return the URL of each image by its path below the data root."""
    urls = [url for _, both, _ in _cola_rows(data_root) for url in both]
    return {f"{COLA_IMAGES}/{_file_name(url)}": url for url in urls}


def _cola_rows(data_root: Path) -> Iterator[tuple[Record, list[str], list[str]]]:
    """Yield each row with its images' URLs and its captions."""
    for row in read_rows(data_root / COLA_ROWS):
        texts = row.texts(row.value, 4, "image, caption, image, caption")
        yield row, texts[0:4:2], texts[1:4:2]


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name


BIVLC_FOLDER = "bivlc/data"
BIVLC_FILES = "test-*.parquet"
BIVLC_CAPTIONS = ("caption", "negative_caption")
BIVLC_COLUMNS = (*BIVLC_CAPTIONS, "type", "subtype")


def load_bivlc(data_root: Path) -> Grids:
    """Return BiVLC by type and subtype; `all` is over all rows, as the paper reports it."""
    folder = data_root / BIVLC_FOLDER
    missing = f"{folder} has no {BIVLC_FILES}; get it with clic-data fetch bivlc"
    files = find_parts(folder, BIVLC_FILES, missing)
    rows = [
        (f"{row.text('type')}_{row.text('subtype')}", images, [row.text(c) for c in BIVLC_CAPTIONS])
        for row, images in read_parquet(files, BIVLC_COLUMNS, ("image", "negative_image"))
    ]
    present = {category for category, _, _ in rows}
    builder = GridBuilder(folder, [name for name in CATEGORIES if name in present])
    for category, images, captions in rows:
        builder.add(category, images, captions)
    groups = groups_of(tuple(builder.counts()))
    del groups["mean"]
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
    for row in read_csv(data_root / SVO_ROWS, SVO_COLUMNS):
        kinds = [
            kind for name, kind in SVO_KINDS.items() if row.text(name).strip().lower() == "true"
        ]
        if len(kinds) == 1:
            files = [data_root / _svo_image(row, side) for side in ("pos", "neg")]
            builder.add(kinds[0], files, [row.text("sentence")])
    return builder.table("choice", groups={"mean": list(SVO_KINDS.values())}, overall="all")


def svo_urls(data_root: Path) -> dict[str, str]:
    """Return the URL of each image by its path below the data root."""
    return {
        _svo_image(row, side): row.text(f"{side}_url")
        for row in read_csv(data_root / SVO_ROWS, SVO_COLUMNS)
        for side in ("pos", "neg")
    }


def _svo_image(row: Record, side: str) -> str:
    text = row.text(f"{side}_image_id")
    try:
        return f"{SVO_IMAGES}/{int(text)}.jpg"
    except ValueError:
        raise row.error(f"has the image id {text!r}, which is not a number") from None


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
