"""Retrieval on photos from all over the world: Crossmodal-3600 (arXiv 2205.12522), in English."""

from __future__ import annotations

from pathlib import Path

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import RECALL, make_gallery
from clic.evaluation.benchmarks.reading import Record, read_lines
from clic.evaluation.files.file_sources import Archive, ByHand
from clic.evaluation.tables.retrieval import Retrieval

ROWS = "xm3600/captions.jsonl"
IMAGES = "xm3600/images"
LANGUAGE = "en"


def load_xm3600(data_root: Path) -> Retrieval:
    """Return the 3,600 images, each with one or more English captions.

    Raises:
        DataError: The file is missing or broken.
    """
    path = data_root / ROWS
    gallery = []
    for row in read_lines(path):
        own = Record(row.get(LANGUAGE), path, row.place)
        captions = own.texts(own.get("caption"), 1, "English captions")
        gallery.append((row.image(data_root / IMAGES, f"{row.text('image/key')}.jpg"), captions))
    return make_gallery(path, gallery)


_SITE = "https://google.github.io/crossmodal-3600/web-data"

XM3600 = Benchmark(
    name="xm3600",
    title="Crossmodal-3600 retrieval, English",
    about="3,600 photos from all over the world",
    load=of_files(load_xm3600),
    citation="Thapliyal et al. 2022, arXiv 2205.12522",
    licence="CC BY 4.0",
    rule=RECALL,
    annotations=(
        Archive(f"{_SITE}/captions.zip", name="xm3600/captions.zip", into="xm3600", gives=ROWS),
    ),
    images=(
        ByHand(
            IMAGES,
            why="the images are an archive whose layout was not at hand",
            steps="unpack https://open-images-dataset.s3.amazonaws.com/crossmodal-3600/images.tgz "
            "so that the photos lie in {data}/xm3600/images",
        ),
    ),
    differs="of its 36 languages English is read",
)
