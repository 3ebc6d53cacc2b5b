"""Flickr8k in miniature, in the three layouts that people have, and for real where it is there."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import evaluation
from clic.errors import DataError
from clic.evaluation.benchmarks import catalogue, flickr8k

Paint = Callable[..., None]
DATA = os.environ.get("CLIC_TEST_DATA")
# A photo is named by its red; a caption's last word is its angle.
TEST = {80: ["a 79", "b 78", "c 81", "d 80", "e 11"], 10: ["f 10", "g 9", "h 12", "i 13", "j 70"]}
DEV = {20: ["k 20", "l 21", "m 22", "n 23", "o 24"], 60: ["p 61", "q 62", "r 63", "s 64", "t 65"]}
SPLITS = {"test": TEST, "dev": DEV, "train": {30: ["no 1"] * 5}}


def write_csv(folder: Path) -> str:
    for split, photos in SPLITS.items():
        with (folder / f"captions_{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", *(f"caption{n}" for n in range(1, 6))])
            writer.writerows([f"images/{red}.jpg", *own] for red, own in photos.items())
    return "images"


def write_karpathy(folder: Path) -> str:
    images = [
        {
            "filename": f"{red}.jpg",
            "split": split.replace("dev", "val"),
            "sentences": [{"raw": text, "tokens": text.split()} for text in own],
        }
        for split, photos in SPLITS.items()
        for red, own in photos.items()
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    return "Flicker8k_Dataset"


def write_tokens(folder: Path) -> str:
    lines = []
    for split, photos in SPLITS.items():
        names = "".join(f"{red}.jpg\n" for red in photos)
        (folder / f"Flickr_8k.{split}Images.txt").write_text(names)
        lines += [f"{red}.jpg#{n}\t{t}\n" for red, own in photos.items() for n, t in enumerate(own)]
    # The authors' file has captions of a photo that does not exist.
    lines.append("2258277193_586949ec62.jpg.1#0\tSome people walking\n")
    (folder / "Flickr8k.token.txt").write_text("".join(lines))
    return "Flicker8k_Dataset"


LAYOUTS = (write_csv, write_karpathy, write_tokens)


def write(root: Path, paint: Paint, layout: Callable[[Path], str]) -> None:
    (root / "flickr8k").mkdir(parents=True)
    folder = layout(root / "flickr8k")
    for red in (*TEST, *DEV):
        paint(root / "flickr8k" / folder / f"{red}.jpg", red)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recall_worked_out_by_hand(
    tmp_path: Path, angle_model: Any, paint: Paint, layout: Callable[[Path], str]
) -> None:
    write(tmp_path, paint, layout)
    numbers = evaluation.evaluate(angle_model, ["flickr8k-retrieval"], tmp_path).benchmarks
    found = numbers["flickr8k-retrieval"]
    assert (found["n_images"], found["n_captions"]) == (2, 10)
    # Both photos have a caption of their very angle; "e 11" and "j 70" are nearer to the other.
    assert found["image_to_text@1"] == 100.0
    assert found["text_to_image@1"] == 80.0
    assert found["text_to_image@5"] == 100.0


def test_all_layouts_give_the_same_table(tmp_path: Path, paint: Paint) -> None:
    for split in ("test", "val"):
        tables = set()
        for layout in LAYOUTS:
            root = tmp_path / split / layout.__name__
            write(root, paint, layout)
            tables.add(flickr8k.load_flickr8k(root, split).digest())
        assert len(tables) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_development_split_is_val(
    tmp_path: Path, angle_model: Any, paint: Paint, layout: Callable[[Path], str]
) -> None:
    write(tmp_path, paint, layout)
    report = evaluation.evaluate(angle_model, ["flickr8k-retrieval@val"], tmp_path)
    assert report.benchmarks["flickr8k-retrieval@val"]["text_to_image@1"] == 100.0
    assert report.provenance["benchmarks"]["flickr8k-retrieval@val"]["split"] == "validation"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_counts_as_there(
    tmp_path: Path, paint: Paint, layout: Callable[[Path], str]
) -> None:
    benchmark = catalogue.BENCHMARKS["flickr8k-retrieval"]
    assert len(catalogue.missing(benchmark, tmp_path)) == 2
    write(tmp_path, paint, layout)
    assert not catalogue.missing(benchmark, tmp_path)


@pytest.mark.parametrize(
    ("layout", "name", "old", "new", "parts"),
    [
        (write_csv, "captions_test.csv", ",b 78", "", ["line 2", "no caption5"]),
        (write_csv, "captions_test.csv", "caption5", "x", ["no column 'caption5'"]),
        (write_csv, "captions_test.csv", "images/80", "../80", ["'../80.jpg' is no image"]),
        (write_karpathy, "dataset_flickr8k.json", '"raw": "a 79"', '"x": 1', ["Karpathy"]),
        (write_tokens, "Flickr8k.token.txt", "80.jpg#0\t", "80.jpg#0 ", ["line 1", "NAME.jpg#N"]),
        (write_tokens, "Flickr8k.token.txt", "80.jpg#0", "81.jpg#0", ["80.jpg has 4 captions"]),
        (write_tokens, "Flickr_8k.testImages.txt", "10.jpg", "9.jpg", ["line 2", "'9.jpg'"]),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, paint: Paint, layout: Any, name: str, old: str, new: str, parts: list[str]
) -> None:
    write(tmp_path, paint, layout)
    path = tmp_path / "flickr8k" / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError) as error:
        flickr8k.load_flickr8k(tmp_path)
    for part in (name, *parts):
        assert part in str(error.value)


@pytest.mark.skipif(DATA is None, reason="CLIC_TEST_DATA is not set: no real annotations")
@pytest.mark.parametrize("split", ["test", "val"])
def test_the_real_splits(split: str) -> None:
    root = Path(str(DATA))
    if not (root / "flickr8k").is_dir():
        pytest.skip("CLIC_TEST_DATA has no flickr8k")
    table = flickr8k.load_flickr8k(root, split)
    assert (len(table.gallery), len(table.caption)) == (1000, 5000)
