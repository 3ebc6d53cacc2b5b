"""What's Up (arXiv 2310.19785): spatial prepositions, on its own and on existing photographs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import COCO_2017
from clic.evaluation.benchmarks.reading import GridBuilder, Record, read_rows
from clic.evaluation.files.file_sources import Archive, File, drive
from clic.evaluation.tables.grids import Grids

FOLDER = "whatsup"
CONTROLLED = {
    "controlled_images": "controlled_images_dataset.json",
    "controlled_clevr": "controlled_clevr_dataset.json",
}
"""Four options per row, in sets of four images of the same two things."""
PAIRED = {
    "coco_one": ("coco_qa_one_obj.json", "coco/val2017"),
    "coco_two": ("coco_qa_two_obj.json", "coco/val2017"),
    "vg_one": ("vg_qa_one_obj.json", f"{FOLDER}/vg_images"),
    "vg_two": ("vg_qa_two_obj.json", f"{FOLDER}/vg_images"),
}
"""Two options per row: the file, and the folder of its images."""
_OPPOSITE = (("left", "right"), ("on", "under"), ("in-front", "behind"))


def load_whatsup(data_root: Path) -> Grids:
    """Return all six parts, the controlled ones with the metrics `pairs` and `sets`.

    A pair is left and right (or on and under, in front and behind) of the same two things, a set
    is all four; each counts as right if all its rows are.
    """
    builder = GridBuilder(data_root / FOLDER, [*CONTROLLED, *PAIRED])
    pairs: dict[tuple[str, ...], int] = defaultdict(lambda: len(pairs))
    sets: dict[tuple[str, ...], int] = defaultdict(lambda: len(sets))
    pair_of: list[int] = []
    set_of: list[int] = []
    for part, file in CONTROLLED.items():
        for row in read_rows(data_root / FOLDER / file):
            name = row.text("image_path")  # data/<part>/<file>
            options = row.texts(row.get("caption_options"), 2, "caption_options")
            image = row.image(data_root / FOLDER / part, PurePosixPath(name).name)
            builder.add(part, [image], options)
            first, direction, second = _parts(row, name)
            pair_of.append(pairs[part, first, second, direction])
            set_of.append(sets[part, first, second])
    for part, (file, folder) in PAIRED.items():
        for row in read_rows(data_root / FOLDER / file):
            if not isinstance(row.value, list) or len(row.value) < 3:
                raise row.error("should be an image and two captions")
            name = str(row.value[0]).zfill(12) if folder.startswith("coco") else str(row.value[0])
            options = row.texts(row.value[1:3], 2, "two captions")
            builder.add(part, [row.image(data_root / folder, f"{name}.jpg")], options)
            pair_of.append(-1)
            set_of.append(-1)
    return builder.table(
        "choice",
        groups={"controlled": tuple(CONTROLLED), "mean": (*CONTROLLED, *PAIRED)},
        overall="all",
        sets={"pairs": pair_of, "sets": set_of},
    )


def _parts(row: Record, name: str) -> tuple[str, str, str]:
    """Return the first thing, the direction and the second thing of ``mug_left_of_plate.jpeg``."""
    words = PurePosixPath(name).stem.split("_")
    if len(words) < 3:
        raise row.error(f"names the image {name!r}, which names no relation")
    for both in _OPPOSITE:
        if words[1] in both:
            return words[0], both[0], words[-1]
    raise row.error(f"has the preposition {words[1]!r}, which is unknown")


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
