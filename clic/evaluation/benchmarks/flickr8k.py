"""Retrieval on Flickr8k (Hodosh et al. 2013, 10.1613/jair.3994), on the authors' own splits.

Three layouts are supported and tried in this order: CSV files with a path and five captions per
row, Karpathy's dataset_flickr8k.json, and the authors' text files. Photos are sorted by name, so
all three give the same table.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files, on_validation
from clic.evaluation.benchmarks.caption_retrieval import (
    CAPTIONS_PER_IMAGE,
    RECALL,
    Gallery,
    make_gallery,
    read_karpathy,
)
from clic.evaluation.benchmarks.reading import read_csv
from clic.evaluation.encode.image_sources import image_file
from clic.evaluation.files.file_sources import ByHand
from clic.evaluation.tables.retrieval import Retrieval

FOLDER = "flickr8k"
CSV = "captions_{}.csv"
KARPATHY = "dataset_flickr8k.json"
TOKENS = "Flickr8k.token.txt"
LISTS = "Flickr_8k.{}Images.txt"
IMAGES = "images"
PUBLISHED_IMAGES = "Flicker8k_Dataset"  # spelt like this in the authors' archive
CSV_SPLITS = {"test": "test", "val": "dev", "train": "train"}
"""The authors' names of the splits; Karpathy's are the keys."""


def load_flickr8k(data_root: Path, split: str = "test") -> Retrieval:
    """Return Flickr8k's test or val split: 1,000 photos, five captions each.

    Raises:
        DataError: No layout exists, its files are broken, or a photo does not have five captions.
    """
    folder = data_root / FOLDER
    return make_gallery(folder, read_split(folder, split), split)


def read_split(folder: Path, split: str) -> Gallery:
    """Return the photos of a split, test, val or train, each with its five captions.

    Args:
        folder: Folder of Flickr8k, in any of its layouts.
        split: Name of the split.

    Raises:
        DataError: No layout exists, its files are broken, or a photo does not have five captions.
    """
    table = folder / CSV.format(CSV_SPLITS[split])
    if table.exists():
        source, gallery = table, read_table(table)
    elif (folder / KARPATHY).exists():
        source = folder / KARPATHY
        gallery = read_karpathy(source, photo_folder(folder), split)
    elif not (folder / TOKENS).exists():
        raise DataError(
            f"{folder} has none of {table.name}, {KARPATHY} and {TOKENS}; get one of them"
        )
    else:
        source = folder / TOKENS
        gallery = read_tokens(source, folder / LISTS.format(CSV_SPLITS[split]))
    for photo, captions in gallery:
        if len(captions) != CAPTIONS_PER_IMAGE:
            raise DataError(
                f"{source}: photo {photo.name} has {len(captions)} captions, not "
                f"{CAPTIONS_PER_IMAGE}; get the file again"
            )
    gallery.sort(key=lambda entry: entry[0].name)
    return gallery


def photo_folder(folder: Path) -> Path:
    """Return the photo folder: `images` if it exists, otherwise the authors' name for it."""
    return folder / (IMAGES if (folder / IMAGES).is_dir() else PUBLISHED_IMAGES)


def read_table(path: Path) -> Gallery:
    """Return the photos of a CSV file with the columns path, caption1, ..., caption5.

    Raises:
        DataError: The file cannot be read, lacks a column, or a row is cut off.
    """
    columns = [f"caption{n + 1}" for n in range(CAPTIONS_PER_IMAGE)]
    return [
        (_photo(path, row.text("path")), [row.text(name) for name in columns])
        for row in read_csv(path, ["path", *columns], blank=False)
    ]


def _photo(path: Path, name: str) -> Path:
    """Return the photo of a row; its folder may also have the authors' name."""
    photo = image_file(path.parent, name, path)
    if photo.parent == path.parent / IMAGES:
        return photo_folder(path.parent) / PurePosixPath(name).name
    return photo


def read_tokens(tokens: Path, listed: Path) -> Gallery:
    """Return the photos that a split's list names, with their captions from the token file.

    Raises:
        DataError: A file cannot be read, a line is not a caption, or a photo has none.
    """
    captions: dict[str, list[tuple[str, str]]] = {}
    for number, line in enumerate(_lines(tokens), start=1):
        label, tab, caption = line.partition("\t")
        name, mark, place = label.rpartition("#")
        if not tab or not mark or not caption.strip():
            raise DataError(
                f"{tokens}: line {number} should be NAME.jpg#N, a tab and a caption; get the file "
                "again"
            )
        captions.setdefault(name, []).append((place, caption))
    folder = photo_folder(tokens.parent)
    gallery: Gallery = []
    for number, name in enumerate(_lines(listed), start=1):
        if name.strip() not in captions:
            raise DataError(
                f"{listed}: line {number} names {name.strip()!r}, of which {tokens} has no "
                "caption; get both files again"
            )
        own = [caption for _, caption in sorted(captions[name.strip()])]
        gallery.append((image_file(folder, name.strip(), listed), own))
    return gallery


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); get the file again") from error
    return [line for line in text.split("\n") if line.strip()]


_HOW = (
    "ask for Flickr8k at https://hockenmaier.cs.illinois.edu/Framing_Image_Description/KCCA.html "
    "and unpack Flickr8k_text.zip and Flickr8k_Dataset.zip into {data}/flickr8k"
)

FLICKR8K = on_validation(
    Benchmark(
        name="flickr8k-retrieval",
        title="Flickr8k retrieval, test",
        about="1,000 photos, 5,000 captions",
        load=of_files(load_flickr8k),
        citation="Hodosh et al. 2013, 10.1613/jair.3994",
        licence="non-commercial research and education only, after a request",
        rule=RECALL,
        annotations=(
            ByHand(
                f"{FOLDER}/{TOKENS}",
                why="Flickr8k is given on request",
                steps=_HOW,
                instead=f"{FOLDER}/[cd]a*s*_*",  # captions_*.csv and dataset_flickr8k.json
            ),
        ),
        images=(
            ByHand(
                f"{FOLDER}/{PUBLISHED_IMAGES}",
                why="Flickr8k is given on request",
                steps=_HOW,
                instead=f"{FOLDER}/{IMAGES}",
            ),
        ),
        rows=1000 + 5000,
        differs="captions are as the file has them; some code lower-cases them or drops their "
        "punctuation",
    ),
    load=partial(load_flickr8k, split="val"),
    title="Flickr8k retrieval, development",
    about="1,000 other photos, 5,000 captions",
    rows=1000 + 5000,
)
