"""Retrieval on COCO (captions arXiv 1504.00325) and Flickr30k (10.1162/tacl_a_00166).

Most papers use Karpathy's splits (arXiv 1412.2306); CLIC's paper uses COCO val2017.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files, on_validation
from clic.evaluation.benchmarks.reading import read_json
from clic.evaluation.encode.image_sources import ImageSource, image_file
from clic.evaluation.files.file_sources import Archive, ByHand
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

    A few images have six or seven captions; the papers use five.

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


def load_karpathy(file: str, images: str, data_root: Path, split: str = "test") -> Retrieval:
    """Return the test or val split of a Karpathy file; both paths are relative to the data root.

    COCO has 5,000 images of val2014 and 25,010 captions in each split, Flickr30k 1,000 images in
    test and 1,014 in val, with five captions each.
    """
    path = data_root / file
    return make_gallery(path, read_karpathy(path, data_root / images, split), split)


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


load_coco = partial(load_karpathy, KARPATHY_COCO, KARPATHY_COCO_IMAGES)
load_flickr30k = partial(load_karpathy, KARPATHY_FLICKR, FLICKR_IMAGES)

_COCO_HOST = "http://images.cocodataset.org"
RECALL = "recall at 1, 5 and 10, both ways; any caption of an image is a match"
_PRE_CAPTION = (
    "captions are as the file has them; CLIC's and ARO's code lower-cases them, drops most "
    "punctuation and cuts them after 30 words"
)


def _coco_images(name: str, checksum: str, size: int | None = None) -> Archive:
    """Return the archive of one of COCO's folders of images."""
    zipped = f"coco/{name}.zip"
    url = f"{_COCO_HOST}/zips/{name}.zip"
    return Archive(url, zipped, "coco", f"coco/{name}", checksum=checksum, size=size)


COCO_2017 = _coco_images(
    "val2017",
    "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    size=815_585_330,
)
COCO_2014 = _coco_images("val2014", "md5:a3d79f5ed8d289b7a7554ce06a5782b3")
COCO_2014_TRAIN = _coco_images("train2014", "md5:0da8c0bd3d6becc4dcb32757491aca88")


def karpathy(path: str) -> Archive:
    """Return the archive of Karpathy's splits, from which one file is unpacked."""
    folder, name = path.split("/")
    return Archive(
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        name=f"{folder}/caption_datasets.zip",
        into=folder,
        gives=path,
        only=name,
    )


FLICKR_PHOTOS = ByHand(
    FLICKR_IMAGES,
    why="Flickr30k's images need a sign-up",
    steps="sign up at https://shannon.cs.illinois.edu/DenotationGraph/ and unpack "
    "flickr30k-images into {data}/flickr30k",
)

COCO = on_validation(
    Benchmark(
        name="coco-retrieval",
        title="COCO retrieval, Karpathy test",
        about="5,000 images of val2014, 25,010 captions",
        load=of_files(load_coco),
        citation="Karpathy and Fei-Fei 2015, arXiv 1412.2306",
        licence="CC BY 4.0",
        rule=RECALL,
        annotations=(karpathy(KARPATHY_COCO),),
        images=(COCO_2014,),
        rows=5000 + 25_010,
        differs=_PRE_CAPTION,
    ),
    load=partial(load_coco, split="val"),
    title="COCO retrieval, Karpathy validation",
    about="5,000 other images of val2014, 25,010 captions",
    rows=5000 + 25_010,
)

COCO2017 = Benchmark(
    name="coco2017-retrieval",
    title="COCO retrieval, val2017",
    about="5,000 images, the first five captions of each",
    load=of_files(load_coco2017),
    citation="Chen et al. 2015, arXiv 1504.00325",
    licence="CC BY 4.0",
    rule=RECALL,
    annotations=(
        Archive(
            f"{_COCO_HOST}/annotations/annotations_trainval2017.zip",
            name="coco/annotations_trainval2017.zip",
            into="coco",
            gives=CAPTIONS,
            checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            size=252_907_541,
            only=CAPTIONS.removeprefix("coco/"),
        ),
    ),
    images=(COCO_2017,),
    rows=5000 + 25_000,
    differs=f"{_PRE_CAPTION}; and CLIC's code reads a list of its own that is not published",
)

FLICKR30K = on_validation(
    Benchmark(
        name="flickr30k-retrieval",
        title="Flickr30k retrieval, Karpathy test",
        about="1,000 images, 5,000 captions",
        load=of_files(load_flickr30k),
        citation="Young et al. 2014, 10.1162/tacl_a_00166",
        licence="research only, after a sign-up",
        rule=RECALL,
        annotations=(karpathy(KARPATHY_FLICKR),),
        images=(FLICKR_PHOTOS,),
        rows=1000 + 5000,
        differs=_PRE_CAPTION,
    ),
    load=partial(load_flickr30k, split="val"),
    title="Flickr30k retrieval, Karpathy validation",
    about="1,014 images, 5,070 captions",
    rows=1014 + 5070,
)
