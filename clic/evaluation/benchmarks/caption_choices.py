"""An image and its caption among false ones: VSR, CREPE, VL-CheckList and ConMe.

VSR (arXiv 2205.00363) asks whether a spatial relation holds, CREPE (arXiv 2212.07796) sets a
long caption against hard negatives of growing complexity, VL-CheckList (arXiv 2207.00221) changes
one object, attribute or relation, and ConMe (arXiv 2406.08164) has two answers to a question.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import COCO_2017
from clic.evaluation.benchmarks.reading import GridBuilder, Record, read_csv, read_lines, read_rows
from clic.evaluation.encode.image_sources import Crop, image_file
from clic.evaluation.files.file_sources import ByHand, File
from clic.evaluation.tables.grids import Grids
from clic.evaluation.tables.judgements import Judgements
from clic.evaluation.tables.table import Interner

VSR_ROWS = "vsr/test.jsonl"
VSR_DEV_ROWS = "vsr/dev.jsonl"
VSR_IMAGES = "vsr/images"


def load_vsr(data_root: Path) -> Grids:
    """Return VSR's zero-shot test split as pairs: a true and a false caption of the same image.

    Each true caption of an image is set against each false one. Images with only true or only
    false captions form no pair: a cosine alone does not show whether a single caption is true.

    Raises:
        DataError: The file is broken, or no image has captions of both kinds.
    """
    path = data_root / VSR_ROWS
    captions: dict[Path, tuple[list[str], list[str]]] = {}
    for image, caption, label in _vsr_rows(data_root, VSR_ROWS):
        captions.setdefault(image, ([], []))[1 - label].append(caption)
    builder = GridBuilder(path, ["pairs"])
    for image, (true, false) in captions.items():
        for caption in true:
            for other in false:
                builder.add("pairs", [image], [caption, other])
    return builder.table("choice")


def load_vsr_threshold(data_root: Path) -> Judgements:
    """Return all of VSR's zero-shot test split, judged by a threshold fitted on its dev split.

    Raises:
        DataError: A file is missing or broken.
    """
    images, texts = Interner(), Interner()
    columns = []
    for file in (VSR_ROWS, VSR_DEV_ROWS):
        rows = [(images.add(i), texts.add(c), label) for i, c, label in _vsr_rows(data_root, file)]
        if not rows:
            raise DataError(f"{data_root / file} holds no rows; download it again")
        columns.append(np.array(rows, dtype=np.int64))
    test, dev = columns
    return Judgements(
        images=tuple(images.items),
        texts=tuple(texts.items),
        categories=("all",),
        category=np.zeros(len(test), dtype=np.int64),
        image=test[:, 0],
        caption=test[:, 1],
        label=test[:, 2].astype(bool),
        fitted_image=dev[:, 0],
        fitted_caption=dev[:, 1],
        fitted_label=dev[:, 2].astype(bool),
    )


def _vsr_rows(data_root: Path, file: str) -> Iterator[tuple[Path, str, int]]:
    """Yield each row's image, caption and label, which is 1 if the caption is true."""
    for row in read_lines(data_root / file):
        label = row.number("label")
        if label not in (0, 1):
            raise row.error(f"has the label {label}, which is neither 0 nor 1")
        yield row.image(data_root / VSR_IMAGES, row.text("image")), row.text("caption"), label


CREPE_FOLDER = "crepe/prod_hard_negatives"
CREPE_IMAGES = ("crepe/VG_100K", "crepe/VG_100K_2")
CREPE_KINDS = ("atom", "negate", "swap")
CREPE_COMPLEXITIES = range(4, 13)
CREPE_COLUMNS = ("image_id", "caption", "hard_negs", "x", "y", "width", "height")


def load_crepe(data_root: Path) -> Grids:
    """Return CREPE's productivity test: a caption on its crop among its hard negatives.

    Each kind of negative and complexity has a category; `atom`, `negate`, `swap` and `mean` are
    over the complexities.

    Raises:
        DataError: A file is missing or broken.
    """
    groups = {
        kind: tuple(f"{kind}_{number}" for number in CREPE_COMPLEXITIES) for kind in CREPE_KINDS
    }
    names = tuple(name for of in groups.values() for name in of)
    builder = GridBuilder(data_root / CREPE_FOLDER, names)
    listed: dict[str, set[str]] = {}
    for kind in CREPE_KINDS:
        for number in CREPE_COMPLEXITIES:
            name = f"{kind}/prod_vg_hard_negs_{kind}_complexity_{number}.csv"
            for row in read_csv(data_root / CREPE_FOLDER / name, CREPE_COLUMNS, blank=False):
                builder.add(f"{kind}_{number}", [_crop(data_root, row, listed)], _options(row))
    return builder.table("choice", groups={**groups, "mean": names}, overall="all")


def _options(row: Record) -> list[str]:
    """Return the caption and its negatives, which the file stores as a Python list of texts."""
    try:
        negatives = ast.literal_eval(row.text("hard_negs"))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise row.error("has 'hard_negs' that are no list of texts") from error
    return [row.text("caption"), *row.texts(negatives, 1, "hard_negs")]


def _crop(data_root: Path, row: Record, listed: dict[str, set[str]]) -> Crop:
    """Return the part of a Visual Genome image, which is in one of two folders."""
    name = f"{row.text('image_id').strip()}.jpg"
    for folder in CREPE_IMAGES:
        if folder not in listed:
            found = data_root / folder
            listed[folder] = {file.name for file in found.iterdir()} if found.is_dir() else set()
    folder = next((one for one in CREPE_IMAGES if name in listed[one]), CREPE_IMAGES[0])
    left, top, width, height = (_pixels(row, key) for key in ("x", "y", "width", "height"))
    file = image_file(data_root / folder, name, row.path)
    return Crop(file, (left, top, left + width, top + height))


def _pixels(row: Record, key: str) -> int:
    try:
        return int(float(row.text(key)))
    except (ValueError, OverflowError):
        raise row.error(f"has {key} {row.text(key)!r}, which is no number") from None


CHECKLIST_ROWS = "vl_checklist/data"
CHECKLIST_IMAGES = "vl_checklist/images"
CHECKLIST_KINDS = ("Attribute", "Object", "Relation")
CHECKLIST_FOLDERS = ("hake", "swig", "vaw", "vg")
"""The folders of the images; a rows file uses the first one that its path names."""


def load_vl_checklist(data_root: Path) -> Grids:
    """Return VL-CheckList: the true text beats the false one, with a category for each rows file.

    `attribute`, `object`, `relation` and `mean` are over the files, `all` is over the rows.

    Raises:
        DataError: There are no files, or one is broken.
    """
    folder = data_root / CHECKLIST_ROWS
    files = sorted(folder.rglob("*.json"))
    kept = [file for file in files if file.relative_to(folder).parts[0] in CHECKLIST_KINDS]
    if not kept:
        raise DataError(f"{folder} has no JSON files in {', '.join(CHECKLIST_KINDS)}; get them")
    builder, groups = GridBuilder(folder), {kind: list[str]() for kind in CHECKLIST_KINDS}
    for file in kept:
        parts = file.relative_to(folder).with_suffix("").parts
        category = "_".join(parts).lower()
        groups[parts[0]].append(category)
        images = data_root / CHECKLIST_IMAGES / _checklist_folder(file, parts)
        for row, name, texts in _checklist_rows(file):
            builder.add(category, [row.image(images, name)], texts)
    means = {kind.lower(): names for kind, names in groups.items() if names}
    return builder.table("choice", groups={**means, "mean": list(builder.counts())}, overall="all")


def _checklist_folder(file: Path, parts: tuple[str, ...]) -> str:
    found = [name for part in parts for name in CHECKLIST_FOLDERS if part.startswith(name)]
    if not found:
        raise DataError(f"{file} names none of the image folders {', '.join(CHECKLIST_FOLDERS)}")
    return found[0]


def _checklist_rows(file: Path) -> Iterator[tuple[Record, str, list[str]]]:
    """Yield each row with its image's name and its true and false text."""
    for row in read_rows(file):
        pair = row.value if isinstance(row.value, list) else []
        if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], dict):
            raise row.error("should be an image and its texts, POS and NEG")
        texts = [row.texts(pair[1].get(key), 1, key)[0] for key in ("POS", "NEG")]
        yield row, pair[0], texts


CONME_IMAGES = "coco/val2017"
CONME_PARTS = {f"replace_{part}": f"conme/replace-{part}.csv" for part in ("att", "obj", "rel")}
CONME_COLUMNS = ("image", "base_question", "correct_option", "incorrect_option")


def load_conme(data_root: Path) -> Grids:
    """Return ConMe: a question with its right answer against the same question with a wrong one.

    The question precedes both answers, because an answer ("the left one") may mean nothing without
    it. Of the image paths in the file only the names are used, which are COCO's.

    Raises:
        DataError: A file is missing or broken.
    """
    builder = GridBuilder(data_root / "conme", tuple(CONME_PARTS))
    for part, file in CONME_PARTS.items():
        for row in read_csv(data_root / file, CONME_COLUMNS, blank=False):
            image = row.image(data_root / CONME_IMAGES, PurePosixPath(row.text("image")).name)
            question, *answers = (row.text(name).strip() for name in CONME_COLUMNS[1:])
            builder.add(part, [image], [f"{question} {answer}" for answer in answers])
    return builder.table("choice", groups={"mean": tuple(CONME_PARTS)}, overall="all")


_VSR_FILES = ByHand(
    VSR_IMAGES,
    why="VSR's images are of COCO's train2017 and val2017",
    steps="follow data/README.md of https://github.com/cambridgeltl/visual-spatial-reasoning and "
    "put its images into {data}/vsr/images",
)

VSR = Benchmark(
    name="vsr",
    title="VSR, zero-shot test split",
    about="a true and a false spatial statement of one image",
    load=of_files(load_vsr),
    citation="Liu et al. 2023, arXiv 2205.00363",
    licence="CC BY 4.0; photos of COCO",
    rule="the true caption beats the false one of the same image",
    annotations=(
        File(
            "https://huggingface.co/datasets/cambridgeltl/vsr_zeroshot/resolve/main/test.jsonl",
            VSR_ROWS,
        ),
    ),
    images=(_VSR_FILES,),
    differs="the paper asks of each caption alone whether it is true, which a cosine does not say; "
    "images with only true or only false captions make no pair and are left out (vsr-threshold has "
    "all rows)",
)

_VG_STEPS = "unpack Visual Genome's images (VG_100K and VG_100K_2) into {data}/crepe"

VSR_THRESHOLD = replace(
    VSR,
    name="vsr-threshold",
    title="VSR, zero-shot test split, by threshold",
    about="is a spatial statement true? by the dev split's threshold",
    load=of_files(load_vsr_threshold),
    rule="true captions lie above the threshold that is best on the dev split, false ones do not",
    annotations=(
        *VSR.annotations,
        File(
            "https://huggingface.co/datasets/cambridgeltl/vsr_zeroshot/resolve/main/dev.jsonl",
            VSR_DEV_ROWS,
        ),
    ),
    differs="the paper trains its models to judge; here only a threshold on the cosine is set",
)

CREPE = Benchmark(
    name="crepe",
    title="CREPE, productivity",
    about="a caption among hard negatives, by complexity",
    load=of_files(load_crepe),
    citation="Ma et al. 2023, arXiv 2212.07796",
    licence="not established; images of Visual Genome, CC BY 4.0",
    rule="the caption beats every hard negative, on its part of the image",
    annotations=(
        ByHand(
            CREPE_FOLDER,
            why="CREPE's files lie in its repository",
            steps="copy data/prod_hard_negatives of https://github.com/RAIVNLab/CREPE to {data}/"
            "crepe/prod_hard_negatives",
        ),
    ),
    images=(
        ByHand(
            CREPE_IMAGES[0],
            why="the images are Visual Genome's",
            steps=_VG_STEPS,
            instead=f"{CREPE_IMAGES[1]}/*.jpg",
        ),
    ),
    differs="of the paper's two tests productivity is read; systematicity needs to know what the "
    "model was trained on",
)

VL_CHECKLIST = Benchmark(
    name="vl-checklist",
    title="VL-CheckList",
    about="one object, attribute or relation changed",
    load=of_files(load_vl_checklist),
    citation="Zhao et al. 2022, arXiv 2207.00221",
    licence="not established; images of Visual Genome, SWiG and HAKE",
    rule="the true text beats the false one",
    annotations=(
        ByHand(
            CHECKLIST_ROWS,
            why="VL-CheckList's files lie in its repository",
            steps="copy the folder data of https://github.com/om-ai-lab/VL-CheckList to {data}/"
            "vl_checklist/data",
        ),
    ),
    images=(
        ByHand(
            CHECKLIST_IMAGES,
            why="VL-CheckList's images are of four sets",
            steps="follow DATASETS.md of https://github.com/om-ai-lab/VL-CheckList and put the "
            "folders hake, swig, vaw and vg into {data}/vl_checklist/images",
        ),
    ),
    differs="files are averaged alike; papers average the seven or eight kinds, or their groups, "
    "and leave out images that they lack",
)

CONME = Benchmark(
    name="conme",
    title="ConMe",
    about="a question with its right and a wrong answer",
    load=of_files(load_conme),
    citation="Huang et al. 2024, arXiv 2406.08164",
    licence="Apache 2.0; photos of COCO",
    rule="the question with its right answer beats it with the wrong one",
    annotations=tuple(
        File(f"https://huggingface.co/conme/ConMe/resolve/main/{Path(file).name}", file)
        for file in CONME_PARTS.values()
    ),
    images=(COCO_2017,),
    differs="the paper asks models that write answers, by the likelihood of each; here a cosine "
    "decides between the two texts",
)
