"""What's Up (arXiv 2310.19785): spatial prepositions, on photographs taken for it and on others."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from clic.errors import DataError
from clic.evaluation.benchmarks.reading import GridBuilder, read_list, text_field, texts_of
from clic.evaluation.encode.image_sources import image_file
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
"""Two options a row; the file, and the folder of its images."""
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
        raise DataError(f"{path}: row {number} names the image {name!r}, which tells no relation")
    return words[0], words[1], words[-1]


def _direction(preposition: str, path: Path, number: int) -> str:
    for both in _OPPOSITE:
        if preposition in both:
            return both[0]
    raise DataError(f"{path}: row {number} has the preposition {preposition!r}, which is not known")
