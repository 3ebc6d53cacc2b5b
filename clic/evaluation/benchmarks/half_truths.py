"""Half-Truths (arXiv 2602.23906): a short true caption against itself with one wrong detail added.

A model that counts the words that match the picture prefers the longer text, although it is false.
The authors' three files contain each row's image, the short caption (`anchor`), the half-truth, and
the caption with a true detail instead (`full_truth`).
"""

from __future__ import annotations

from pathlib import Path

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.reading import GridBuilder, read_parquet
from clic.evaluation.files.file_sources import File
from clic.evaluation.tables.grids import Grids

FOLDER = "half_truths"
SUBSETS = ("coco_qwen", "coco_mistral", "cc3m_qwen")
CAPTIONS = ("anchor", "half_truth", "full_truth")
RULE = "half_truth"
"""The rule in `grids.RULES`, which expects the captions in the order of `CAPTIONS`."""
_HUB = "https://huggingface.co/datasets/kbora/Half-Truths/resolve/main/data"


def load_half_truths(data_root: Path) -> Grids:
    """Return Half-Truths: a category for each of the three files, and their macro mean.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: A file is not parquet, lacks a column, or has no rows.
    """
    builder = GridBuilder(data_root / FOLDER, SUBSETS)
    for subset in SUBSETS:
        file = data_root / FOLDER / f"{subset}.parquet"
        for row, images in read_parquet([file], CAPTIONS, ["image"]):
            builder.add(subset, images, [row.text(name) for name in CAPTIONS])
    return builder.table(RULE, groups={"mean": SUBSETS}, overall="all")


HALF_TRUTHS = Benchmark(
    name="half-truths",
    title="Half-Truths",
    about="a true caption against one with a wrong detail",
    load=of_files(load_half_truths),
    citation="Kargi et al. 2026, arXiv 2602.23906",
    licence="CC BY 4.0; captions and images of COCO and CC3M keep their own",
    rule="accuracy: the short caption beats its half-truth; ordering: and the full truth beats it",
    annotations=tuple(
        File(f"{_HUB}/{subset}.parquet", f"{FOLDER}/{subset}.parquet") for subset in SUBSETS
    ),
    rows=509 + 454 + 474,
)
