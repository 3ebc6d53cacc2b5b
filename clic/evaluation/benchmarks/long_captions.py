"""Retrieval with captions of a hundred words and more: Urban1k, DCI, DOCCI and ShareGPT4V.

Urban1k and the use of ShareGPT4V's first 1,000 rows come from Long-CLIP (arXiv 2403.15378). The
captions of ShareGPT4V (arXiv 2311.12793) were written by a model, those of DCI (arXiv 2312.08578)
and DOCCI (arXiv 2404.19753) by people. Most models read 77 tokens, so only the beginning of such a
caption is compared.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import RECALL, Gallery, make_gallery
from clic.evaluation.benchmarks.reading import Record, read_json, read_lines, read_rows
from clic.evaluation.encode.image_sources import image_file
from clic.evaluation.files.file_sources import Archive, ByHand, File
from clic.evaluation.tables.retrieval import Retrieval

URBAN1K_CAPTIONS = "urban1k/caption"
URBAN1K_IMAGES = "urban1k/image"


def load_urban1k(data_root: Path) -> Retrieval:
    """Return Urban1k: one text file per image, named after the image, in the order of the names.

    Raises:
        DataError: There are no captions, or one is empty or not text.
    """
    folder, gallery = data_root / URBAN1K_CAPTIONS, Gallery()
    for file in sorted(folder.glob("*.txt")):
        try:
            caption = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read ({error}); get the file again") from error
        if not caption:
            raise DataError(f"{file} holds no caption; get the file again")
        gallery.append((data_root / URBAN1K_IMAGES / f"{file.stem}.jpg", [caption]))
    if not gallery:
        raise DataError(f"{folder} holds no text files; unpack the captions into it")
    return make_gallery(folder, gallery)


DCI_FOLDER = "dci/densely_captioned_images"


def load_dci(data_root: Path) -> Retrieval:
    """Return all images of DCI, each with its short and its long caption as one text.

    Raises:
        DataError: A file is missing or broken.
    """
    folder, gallery = data_root / DCI_FOLDER, Gallery()
    splits = read_json(folder / "splits.json")
    if not isinstance(splits, dict) or not all(isinstance(of, list) for of in splits.values()):
        raise DataError(f"{folder / 'splits.json'} should hold lists of files; get it again")
    for name in (name for of in splits.values() for name in of):
        path = image_file(folder / "annotations", str(name), folder / "splits.json")
        row = Record(read_json(path), path, 1)
        caption = f"{row.text('short_caption')}\n{row.text('extra_caption')}"
        gallery.append((row.image(folder / "photos", row.text("image")), [caption]))
    return make_gallery(folder, gallery)


DOCCI_ROWS = "docci/docci_descriptions.jsonlines"
DOCCI_IMAGES = "docci/images"


def load_docci(data_root: Path) -> Retrieval:
    """Return DOCCI's test split: 5,000 images with one description each.

    Raises:
        DataError: The file is missing or broken.
    """
    path = data_root / DOCCI_ROWS
    gallery = [
        (row.image(data_root / DOCCI_IMAGES, row.text("image_file")), [row.text("description")])
        for row in read_lines(path)
        if row.text("split") == "test"
    ]
    return make_gallery(path, gallery)


SHARE_FOLDER = "sharegpt4v"
SHARE_ROWS = f"{SHARE_FOLDER}/share-captioner_coco_lcs_sam_1246k_1107.json"
SHARE_COUNT = 1000


def load_sharegpt4v(data_root: Path) -> Retrieval:
    """Return the first 1,000 rows of ShareGPT4V's captions, which training leaves out.

    Raises:
        DataError: The file is missing or broken.
    """
    path, gallery = data_root / SHARE_ROWS, Gallery()
    for row in read_rows(path)[:SHARE_COUNT]:
        turns = row.get("conversations")
        answer = turns[1] if isinstance(turns, list) and len(turns) > 1 else None
        caption = Record(answer, path, row.place).text("value").replace("\n", " ")
        gallery.append((row.image(data_root / SHARE_FOLDER, row.text("image")), [caption]))
    return make_gallery(path, gallery)


_FILES = ByHand(
    URBAN1K_CAPTIONS,
    why="Urban1k is an archive on the hub",
    steps="download https://huggingface.co/datasets/BeichenZhang/Urban1k, unpack it, and put its "
    "folders caption and image into {data}/urban1k",
)

URBAN1K = Benchmark(
    name="urban1k",
    title="Urban1k retrieval",
    about="1,000 street scenes, captions of about 100 words",
    load=of_files(load_urban1k),
    citation="Zhang et al. 2024, arXiv 2403.15378",
    licence="not established; images of Visual Genome, CC BY 4.0",
    rule=RECALL,
    annotations=(_FILES,),
    images=(replace(_FILES, gives=URBAN1K_IMAGES),),
    rows=1000 + 1000,
    differs="a model of 77 tokens is compared by the beginnings of the captions",
)

_SHORT_CONTEXT = "a model of 77 tokens is compared by the beginnings of the captions"

DCI = Benchmark(
    name="dci",
    title="DCI retrieval",
    about="7,805 photos with long human captions",
    load=of_files(load_dci),
    citation="Urbanek et al. 2024, arXiv 2312.08578",
    licence="CC BY-NC 4.0; photos of SA-1B, after a sign-up",
    rule=RECALL,
    annotations=(
        Archive(
            "https://dl.fbaipublicfiles.com/densely_captioned_images/dci.tar.gz",
            name="dci/dci.tar.gz",
            into="dci",
            gives=f"{DCI_FOLDER}/annotations",
            checksum="sha256:9caff10cb6324c801d9020638f49925f04de87d897ca8614c599f3c43bef3aeb",
        ),
    ),
    images=(
        ByHand(
            f"{DCI_FOLDER}/photos",
            why="DCI's photos are of SA-1B, which needs a sign-up",
            steps="follow https://github.com/facebookresearch/DCI and put the photos into {data}/"
            f"{DCI_FOLDER}/photos",
        ),
    ),
    rows=7805 + 7805,
    differs=f"{_SHORT_CONTEXT}; the caption is the short one and the long one together",
)

DOCCI = Benchmark(
    name="docci",
    title="DOCCI retrieval",
    about="5,000 photos with descriptions of about 136 words",
    load=of_files(load_docci),
    citation="Onoe et al. 2024, arXiv 2404.19753",
    licence="CC BY 4.0",
    rule=RECALL,
    annotations=(
        File("https://storage.googleapis.com/docci/data/docci_descriptions.jsonlines", DOCCI_ROWS),
    ),
    images=(
        Archive(
            "https://storage.googleapis.com/docci/data/docci_images.tar.gz",
            name="docci/docci_images.tar.gz",
            into="docci",
            gives=DOCCI_IMAGES,
            size=7_592_938_768,
        ),
    ),
    rows=5000 + 5000,
    differs=_SHORT_CONTEXT,
)

_SHARE_FILES = ByHand(
    SHARE_ROWS,
    why="ShareGPT4V's captions are a large file on the hub",
    steps="download share-captioner_coco_lcs_sam_1246k_1107.json of "
    "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V into {data}/sharegpt4v, and put the "
    "images of its first 1,000 rows where they name them, from there",
)

SHAREGPT4V = Benchmark(
    name="sharegpt4v",
    title="ShareGPT4V retrieval, first 1,000",
    about="1,000 images with a model's long captions",
    load=of_files(load_sharegpt4v),
    citation="Chen et al. 2023, arXiv 2311.12793, as arXiv 2403.15378 uses it",
    licence="CC BY-NC 4.0; images of their sources",
    rule=RECALL,
    annotations=(_SHARE_FILES,),
    images=(_SHARE_FILES,),
    rows=SHARE_COUNT + SHARE_COUNT,
    differs=_SHORT_CONTEXT,
)
