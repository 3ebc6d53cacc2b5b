"""Winoground (arXiv 2204.03162): two images and two captions of the same words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clic.errors import DataError
from clic.evaluation.benchmarks.reading import GridBuilder, text_field
from clic.evaluation.cases import Grids
from clic.evaluation.refs import image_file

EXAMPLES = "winoground/examples.jsonl"
IMAGES = "winoground/images"
TAGS = ("Object", "Relation", "Both")


def read_lines(path: Path) -> list[Any]:
    """Return the objects of a file of JSON lines; raises `DataError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON lines ({error}); get it again") from error


def load_winoground(data_root: Path) -> Grids:
    """Return Winoground by its collapsed tags; `all` is over all rows, as papers report it."""
    path = data_root / EXAMPLES
    rows = read_lines(path)
    seen = [text_field(row, "collapsed_tag", path, n) for n, row in enumerate(rows)]
    names = [f"tag_{tag.lower()}" for tag in TAGS if tag in seen]
    builder = GridBuilder(names)
    for number, (row, tag) in enumerate(zip(rows, seen, strict=True)):
        images = [
            image_file(data_root / IMAGES, _png(text_field(row, key, path, number)), path)
            for key in ("image_0", "image_1")
        ]
        captions = [text_field(row, key, path, number) for key in ("caption_0", "caption_1")]
        builder.add(f"tag_{tag.lower()}", images, captions)
    return builder.table("winoground", overall="all")


def _png(name: str) -> str:
    """Return an image's file name; the examples name it without its ending."""
    return name if name.endswith(".png") else f"{name}.png"
