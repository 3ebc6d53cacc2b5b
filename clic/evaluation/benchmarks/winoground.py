"""Winoground (arXiv 2204.03162): two images and two captions of the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clic.download.content import refuse_pointer
from clic.errors import DataError
from clic.evaluation.benchmarks.reading import GridBuilder, text_field
from clic.evaluation.cases import Grids
from clic.evaluation.parquet import StoredImage, find_parts, read_texts
from clic.evaluation.refs import ImageRef, image_file

EXAMPLES = "winoground/examples.jsonl"
IMAGES = "winoground/images"
PARQUET = "winoground/data/test-*.parquet"
TAGS = ("Object", "Relation", "Both")
TEXTS = ("caption_0", "caption_1", "collapsed_tag")
PICTURES = ("image_0", "image_1")


def load_winoground(data_root: Path) -> Grids:
    """Return Winoground by its collapsed tags; `all` is over all rows, as papers report it.

    The hub has had it as JSON lines with a folder of images, and has it as parquet; where both are
    there, the former is read.
    """
    lines = (data_root / EXAMPLES).exists()
    rows = list(_from_lines(data_root) if lines else _from_parquet(data_root))
    seen = {tag for tag, _, _ in rows}
    source = data_root / (EXAMPLES if lines else PARQUET)
    builder = GridBuilder(source, [f"tag_{tag.lower()}" for tag in TAGS if tag in seen])
    for tag, images, captions in rows:
        builder.add(f"tag_{tag.lower()}", images, captions)
    return builder.table("winoground", overall="all")


def _from_lines(data_root: Path) -> Iterator[tuple[str, list[ImageRef], list[str]]]:
    """Yield tag, images and captions of each row; the file names images without their ending."""
    path = data_root / EXAMPLES
    for number, row in enumerate(read_lines(path)):
        names = [text_field(row, key, path, number).removesuffix(".png") for key in PICTURES]
        images: list[ImageRef] = [
            image_file(data_root / IMAGES, f"{name}.png", path) for name in names
        ]
        *captions, tag = (text_field(row, key, path, number) for key in TEXTS)
        yield tag, images, captions


def _from_parquet(data_root: Path) -> Iterator[tuple[str, list[ImageRef], list[str]]]:
    """Yield tag, images and captions of each row.

    Raises:
        DataError: A file is missing.
    """
    files = find_parts(data_root, PARQUET)
    if not files:
        raise DataError(f"neither {data_root / EXAMPLES} nor {data_root / PARQUET} is there")
    for file in files:
        for place, row in read_texts(file, TEXTS):
            images: list[ImageRef] = [StoredImage(*place, column) for column in PICTURES]
            *captions, tag = (text_field(row, key, file, place.row) for key in TEXTS)
            yield tag, images, captions


def read_lines(path: Path) -> list[Any]:
    """Return the objects of a file of JSON lines; raises `DataError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        refuse_pointer(path)
        raise DataError(f"{path} cannot be read as JSON lines ({error}); get it again") from error
