"""BiVLC (arXiv 2406.09952): SugarCrepe's captions, each with an image of its own, in parquet."""

from __future__ import annotations

from pathlib import Path

from clic.errors import DataError
from clic.evaluation.benchmarks.reading import GridBuilder, text_field
from clic.evaluation.cases import Grids
from clic.evaluation.parquet import StoredImage, find_parts, read_texts

FOLDER = "bivlc/data"
PATTERN = "test-*.parquet"
CATEGORIES = (
    "add_att",
    "add_obj",
    "replace_att",
    "replace_obj",
    "replace_rel",
    "swap_att",
    "swap_obj",
)
COLUMNS = ("caption", "negative_caption", "type", "subtype")


def load_bivlc(data_root: Path) -> Grids:
    """Return BiVLC by type and subtype; `all` is over all rows, as the paper reports it."""
    folder = data_root / FOLDER
    files = find_parts(folder, PATTERN)
    if not files:
        raise DataError(f"{folder} has no {PATTERN}; get it with clic-data fetch bivlc")
    rows = [
        (place, {name: text_field(row, name, place.path, place.row) for name in COLUMNS})
        for file in files
        for place, row in read_texts(file, COLUMNS)
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
