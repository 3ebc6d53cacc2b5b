"""Retrieval with captions of a hundred words and more: Urban1k (Long-CLIP, arXiv 2403.15378).

Most models read 77 tokens, so they never see the end of such a caption; what is compared is then
its beginning.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clic.errors import DataError
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import RECALL, Gallery, make_gallery
from clic.evaluation.files.file_sources import ByHand
from clic.evaluation.tables.retrieval import Retrieval

URBAN1K_CAPTIONS = "urban1k/caption"
URBAN1K_IMAGES = "urban1k/image"


def load_urban1k(data_root: Path) -> Retrieval:
    """Return Urban1k: a text file for each image, with the image's name, in the names' order.

    Raises:
        DataError: There is no caption, or one is empty or no text.
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
