"""Retrieval on COCO (captions arXiv 1504.00325) and Flickr30k (10.1162/tacl_a_00166).

Karpathy's splits (arXiv 1412.2306) are what most papers use; val2017 is what CLIC's paper names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from clic.errors import DataError
from clic.evaluation.benchmarks.reading import read_json
from clic.evaluation.encode.image_sources import ImageSource, image_file
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import Interner

CAPTIONS = "coco/annotations/captions_val2017.json"
IMAGES = "coco/val2017"
CAPTIONS_PER_IMAGE = 5
KARPATHY_COCO = "coco/dataset_coco.json"
KARPATHY_COCO_IMAGES = "coco/val2014"
KARPATHY_FLICKR = "flickr30k/dataset_flickr30k.json"
FLICKR_IMAGES = "flickr30k/flickr30k-images"
Gallery = list[tuple[Path, list[str]]]


def load_coco2017(data_root: Path) -> Retrieval:
    """Return val2017's images, each with its first five captions in the order of their ids.

    A few images have six or seven captions; five is what the papers count.

    Raises:
        DataError: The annotation file is broken, or an image has no caption.
    """
    path = data_root / CAPTIONS
    content = read_json(path)
    try:
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        notes = sorted((a["id"], a["image_id"], str(a["caption"])) for a in content["annotations"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not COCO's caption file ({error!r}); download it") from error
    captions: dict[int, list[str]] = {number: [] for number in files}
    for _, image, caption in notes:
        if image not in captions:
            raise DataError(f"{path}: a caption names image {image}, which the file does not list")
        captions[image].append(caption)
    return make_gallery(
        path,
        [
            (image_file(data_root / IMAGES, files[number], path), own[:CAPTIONS_PER_IMAGE])
            for number, own in captions.items()
        ],
    )


def read_karpathy(path: Path, folder: Path, split: str = "test") -> Gallery:
    """Return the images of a Karpathy file's split, test or val, each with all its raw sentences.

    Raises:
        DataError: The file is broken.
    """
    content = read_json(path)
    try:
        return [
            (
                image_file(folder, str(entry["filename"]), path),
                [str(sentence["raw"]) for sentence in entry["sentences"]],
            )
            for entry in content["images"]
            if entry["split"] == split
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not a Karpathy split ({error!r}); download it") from error


def load_coco(data_root: Path, split: str = "test") -> Retrieval:
    """Return COCO's Karpathy test or val split: 5,000 images of val2014, 25,010 captions each."""
    path = data_root / KARPATHY_COCO
    gallery = read_karpathy(path, data_root / KARPATHY_COCO_IMAGES, split)
    return make_gallery(path, gallery, split)


def load_flickr30k(data_root: Path, split: str = "test") -> Retrieval:
    """Return a Karpathy split of Flickr30k: 1,000 images (test) or 1,014 (val), 5 captions each."""
    path = data_root / KARPATHY_FLICKR
    return make_gallery(path, read_karpathy(path, data_root / FLICKR_IMAGES, split), split)


def make_gallery(
    path: Path, entries: Iterable[tuple[ImageSource, list[str]]], split: str = "test"
) -> Retrieval:
    """Return a gallery of images with their captions; an image without any is an error.

    Raises:
        DataError: An image has no caption, or there is no image.
    """
    texts = Interner()
    images: list[ImageSource] = []
    caption: list[int] = []
    owner: list[int] = []
    for position, (image, own) in enumerate(entries):
        if not own:
            name = getattr(image, "name", position)
            raise DataError(f"{path}: image {name} has no caption; download it again")
        images.append(image)
        caption += [texts.add(text) for text in own]
        owner += [position] * len(own)
    if not images:
        raise DataError(f"{path} has no image of the {split} split; download it again")
    return Retrieval(
        images=tuple(images),
        texts=tuple(texts.items),
        gallery=np.arange(len(images)),
        caption=np.array(caption, dtype=np.int64),
        owner=np.array(owner, dtype=np.int64),
    )
