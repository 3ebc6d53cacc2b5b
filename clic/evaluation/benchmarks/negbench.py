"""NegBench (arXiv 2501.09425): one of four captions, some of which say what a photo does not show.

Only its multiple-choice questions on COCO are read. Most false captions deny what is there, or
affirm what is not, so a model that ignores "no" and "without" cannot tell them from the true one.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import COCO_2017
from clic.evaluation.benchmarks.reading import GridBuilder, Record, read_csv
from clic.evaluation.files.file_sources import ByHand
from clic.evaluation.tables.grids import Grids

QUESTIONS = "negbench/COCO_val_mcq_llama3.1_rephrased.csv"
IMAGES = "coco/val2017"
OPTIONS = tuple(f"caption_{n}" for n in range(4))
COLUMNS = ("image_path", "correct_answer", *OPTIONS, "correct_answer_template")


def load_negbench(data_root: Path) -> Grids:
    """Return the questions, grouped by the kind of their right caption; `all` is over the rows.

    The file contains the authors' own paths, of which only the file names are used.

    Raises:
        DataError: The file is broken, or an answer is none of the options.
    """
    path = data_root / QUESTIONS
    builder = GridBuilder(path)
    for row in read_csv(path, COLUMNS, blank=False):
        image = row.image(data_root / IMAGES, PurePosixPath(row.text("image_path")).name)
        options = [row.text(name) for name in OPTIONS]
        right = options.pop(_answer(row))
        kind = row.text("correct_answer_template").strip().lower().replace(" ", "_")
        builder.add(kind, [image], [right, *options])
    return builder.table("choice", groups={"mean": list(builder.counts())}, overall="all")


def _answer(row: Record) -> int:
    text = row.text("correct_answer").strip()
    if text not in ("0", "1", "2", "3"):
        raise row.error(f"has the answer {text!r}, which is none of its options 0 to 3")
    return int(text)


NEGBENCH = Benchmark(
    name="negbench",
    title="NegBench, questions on COCO",
    about="one of four captions, with and without negation",
    load=of_files(load_negbench),
    citation="Alhamoud et al. 2025, arXiv 2501.09425",
    licence="not established; photos of COCO",
    rule="the right caption beats the three others",
    annotations=(
        ByHand(
            QUESTIONS,
            why="NegBench's files lie in a folder of Google Drive",
            steps="follow the link on https://github.com/m1k2zoo/negbench (datasets.md) and put "
            "COCO_val_mcq_llama3.1_rephrased.csv into {data}/negbench",
        ),
    ),
    images=(COCO_2017,),
    differs="of the authors' files only the questions on COCO are read",
)
