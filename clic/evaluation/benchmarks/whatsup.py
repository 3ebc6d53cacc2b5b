"""What's Up (arXiv 2310.19785): spatial prepositions, on photographs of its own and on others."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import COCO_2017
from clic.evaluation.benchmarks.reading import GridBuilder, read_list, text_field, texts_of
from clic.evaluation.encode.image_sources import image_file
from clic.evaluation.files.file_sources import (
    Archive,
    File,
    drive,
)
from clic.evaluation.tables.grids import Grids

FOLDER = "whatsup"
CONTROLLED = {
    "controlled_images": "controlled_images_dataset.json",
    "controlled_clevr": "controlled_clevr_dataset.json",
}
"""Four options a row, in sets of four images of the same two things."""
PAIRED = {
    "coco_one": ("coco_qa_one_obj.json", "coco/val2017"),
    "coco_two": ("coco_qa_two_obj.json", "coco/val2017"),
    "vg_one": ("vg_qa_one_obj.json", f"{FOLDER}/vg_images"),
    "vg_two": ("vg_qa_two_obj.json", f"{FOLDER}/vg_images"),
}
"""Two options a row: the file, and the folder of its images."""
_OPPOSITE = (("left", "right"), ("on", "under"), ("in-front", "behind"))


def load_whatsup(data_root: Path) -> Grids:
    """Return all six parts; `pairs` and `sets` are counted on the controlled ones.

    A pair is left and right (or on and under, in front and behind) of the same two things, a set
    all four; each is right if all its rows are.
    """
    builder = GridBuilder(data_root / FOLDER, [*CONTROLLED, *PAIRED])
    pairs: dict[tuple[str, ...], int] = defaultdict(lambda: len(pairs))
    sets: dict[tuple[str, ...], int] = defaultdict(lambda: len(sets))
    pair_of: list[int] = []
    set_of: list[int] = []
    for part, file in CONTROLLED.items():
        path = data_root / FOLDER / file
        for number, row in enumerate(read_list(path)):
            name = text_field(row, "image_path", path, number)
            options = texts_of(row.get("caption_options"), 2, "caption_options", path, number)
            builder.add(part, [_controlled(data_root, part, name, path)], options)
            first, preposition, second = _parts(name, path, number)
            direction = _direction(preposition, path, number)
            pair_of.append(pairs[part, first, second, direction])
            set_of.append(sets[part, first, second])
    for part, (file, folder) in PAIRED.items():
        path = data_root / FOLDER / file
        for number, row in enumerate(read_list(path)):
            if not isinstance(row, list) or len(row) < 3:
                raise DataError(f"{path}: row {number} should be an image and two captions")
            name = str(row[0]).zfill(12) if folder.startswith("coco") else str(row[0])
            options = texts_of(row[1:3], 2, "two captions", path, number)
            builder.add(part, [image_file(data_root / folder, f"{name}.jpg", path)], options)
            pair_of.append(-1)
            set_of.append(-1)
    return builder.table(
        "choice",
        groups={"controlled": tuple(CONTROLLED), "mean": (*CONTROLLED, *PAIRED)},
        sets={"pairs": pair_of, "sets": set_of},
    )


def _controlled(data_root: Path, part: str, name: str, path: Path) -> Path:
    """Return the file of an image that the annotation names as ``data/<part>/<file>``."""
    return image_file(data_root / FOLDER / part, PurePosixPath(name).name, path)


def _parts(name: str, path: Path, number: int) -> tuple[str, str, str]:
    """Return first thing, preposition and second thing of e.g. ``mug_left_of_plate.jpeg``."""
    words = PurePosixPath(name).stem.split("_")
    if len(words) < 3:
        raise DataError(f"{path}: row {number} names the image {name!r}, which names no relation")
    return words[0], words[1], words[-1]


def _direction(preposition: str, path: Path, number: int) -> str:
    for both in _OPPOSITE:
        if preposition in both:
            return both[0]
    raise DataError(f"{path}: row {number} has the preposition {preposition!r}, which is unknown")


_FILES = {
    "controlled_images_dataset.json": (
        "1ap8mmmpQjLIjPGuplkpBgc1hoEHCj4hm",
        "sha256:77ee94ae35552ed643ecd47f700daa178e10051458baae99d5c4c5d5922590d3",
    ),
    "controlled_clevr_dataset.json": (
        "1unNNosLbdy9NDjgj4l8fsQP3WiAAGA6z",
        "sha256:2c0df1ab59d13d71442752b4b3c7353114d712a785b0850ec22e11c2b0c474c9",
    ),
    "coco_qa_one_obj.json": ("1RsMdpE9mmwnK4zzMPpC1-wTU_hNis-dq", None),
    "coco_qa_two_obj.json": ("1TCEoM0mgFmz8T4cF7PQ3XJmO6JjtiQ-s", None),
    "vg_qa_one_obj.json": ("1ARMRzRdohs9QTr1gpIfzyUzvW20wYp_p", None),
    "vg_qa_two_obj.json": ("1sjVG5O3QMY8s118k7kQM8zzDZH12i_95", None),
}


def _images(name: str, identifier: str, checksum: str | None) -> Archive:
    return Archive(
        drive(identifier),
        name=f"{FOLDER}/{name}.tar.gz",
        into=FOLDER,
        gives=f"{FOLDER}/{name}",
        checksum=checksum,
    )


_IMAGES = (
    _images(
        "controlled_images",
        "19KGYVQjrV3syb00GgcavB2nZTW5NXX0H",
        "sha256:4fc005e7ab1e2ac5e5836d2456dd9ae930239c44953b0b2d3e9523f6ad5b1a69",
    ),
    _images(
        "controlled_clevr",
        "13jdBpg8t3NqW3jrL6FK8HO93vwsUjDxG",
        "sha256:df8b23af7dc73c4bf98937777b7a5d85aab42598eace82fa7adad5802df2c493",
    ),
    _images("vg_images", "1idW7Buoz7fQm4-670n-oERw9U-2JLJvE", None),
    COCO_2017,
)

WHATSUP = Benchmark(
    name="whatsup",
    title="What's Up",
    about="spatial prepositions, four options or two",
    load=of_files(load_whatsup),
    citation="Kamath et al. 2023, arXiv 2310.19785",
    licence="MIT",
    rule="the right option beats every other one; pairs and sets: all of their rows do",
    annotations=tuple(
        File(drive(identifier), f"{FOLDER}/{name}", checksum)
        for name, (identifier, checksum) in _FILES.items()
    ),
    images=_IMAGES,
    rows=4958,
)
