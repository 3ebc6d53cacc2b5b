"""Cola's multi-object setting (arXiv 2305.03689): two images whose attributes are swapped."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from clic.evaluation.benchmarks.reading import GridBuilder, read_list, texts_of
from clic.evaluation.cases import Grids
from clic.evaluation.refs import image_file

PAIRS = "cola/COLA_multiobjects_matching_benchmark.json"
IMAGES = "cola/images"


def load_cola(data_root: Path) -> Grids:
    """Return Cola: a row is right if each caption prefers its own image."""
    builder = GridBuilder(data_root / PAIRS, ["multi_object"])
    for urls, captions in _rows(data_root):
        files = [image_file(data_root / IMAGES, _name(url), data_root / PAIRS) for url in urls]
        builder.add("multi_object", files, captions)
    return builder.table("cola")


def cola_urls(data_root: Path) -> dict[str, str]:
    """Return where each image comes from, by its path below the data root."""
    urls = [url for both, _ in _rows(data_root) for url in both]
    return {f"{IMAGES}/{_name(url)}": url for url in urls}


def _rows(data_root: Path) -> list[tuple[list[str], list[str]]]:
    """Return the images' addresses and the captions of each row."""
    path = data_root / PAIRS
    rows = [
        texts_of(row, 4, "image, caption, image, caption", path, n)
        for n, row in enumerate(read_list(path))
    ]
    return [([row[0], row[2]], [row[1], row[3]]) for row in rows]


def _name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name
