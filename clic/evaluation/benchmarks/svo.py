"""SVO-Probes (arXiv 2106.09141): a sentence, an image of it, and one that differs in a word."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from clic.errors import DataError
from clic.evaluation.benchmarks.reading import GridBuilder
from clic.evaluation.cases import Grids

PROBES = "svo_probes/svo_probes.csv"
IMAGES = "svo_probes/images"
KINDS = {"subj_neg": "negative_subject", "verb_neg": "negative_verb", "obj_neg": "negative_object"}
COLUMNS = ("sentence", "pos_image_id", "neg_image_id", "pos_url", "neg_url", *KINDS)


def load_svo(data_root: Path) -> Grids:
    """Return SVO-Probes: of two images, the sentence's own must beat the other.

    Rows whose images differ in more than one part are left out, as in the published analysis.
    """
    builder = GridBuilder(data_root / PROBES, list(KINDS.values()))
    for number, row in enumerate(read_probes(data_root)):
        kinds = [name for column, name in KINDS.items() if row[column].strip().lower() == "true"]
        if len(kinds) != 1:
            continue
        ids = [_number(row[f"{side}_image_id"], data_root, number) for side in ("pos", "neg")]
        files = [data_root / IMAGES / f"{index}.jpg" for index in ids]
        builder.add(kinds[0], files, [row["sentence"]])
    return builder.table("choice", groups={"mean": list(KINDS.values())}, overall="all")


def svo_urls(data_root: Path) -> dict[str, str]:
    """Return where each image comes from, by its path below the data root."""
    urls = {}
    for number, row in enumerate(read_probes(data_root)):
        for side in ("pos", "neg"):
            index = _number(row[f"{side}_image_id"], data_root, number)
            urls[f"{IMAGES}/{index}.jpg"] = row[f"{side}_url"]
    return urls


def read_probes(data_root: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of the published file.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    path = data_root / PROBES
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; download it again")
            for row in reader:
                if any(row[name] is None for name in COLUMNS):
                    raise DataError(f"{path}: line {reader.line_num} is cut off; download it again")
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); download it again") from error


def _number(text: str, data_root: Path, number: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"{data_root / PROBES}: row {number} has the image id {text!r}, which is no number; "
            "download it again"
        ) from None
