"""COCO retrieval from its real layout in miniature, with hand-worked recalls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clic import evaluation
from clic.errors import DataError
from clic.evaluation.benchmarks.caption_retrieval import load_coco2017


class AxisModel:
    """Images and captions are points of a plane, each on an axis or between two."""

    def encode_image(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([self._axis(int(np.asarray(i)[0, 0, 0])) for i in images])

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        return torch.stack([self._axis(int(caption.split()[-1])) for caption in captions])

    def _axis(self, number: int) -> Tensor:
        return torch.eye(3)[number]


def write_coco(root: Path, captions: dict[int, list[int]]) -> None:
    """Write a val2017 whose image i is of colour i and whose captions end in numbers."""
    folder = root / "coco" / "val2017"
    folder.mkdir(parents=True)
    (root / "coco" / "annotations").mkdir()
    images, notes = [], []
    for image in captions:
        name = f"{image:012d}.jpg"
        Image.new("RGB", (5, 4), (image, 0, 0)).save(folder / name, format="PNG")
        images.append({"id": 100 + image, "file_name": name, "height": 4, "width": 5})
    for image, numbers in captions.items():
        for position, number in enumerate(numbers):
            text = f"image {image} caption {position} shows {number}"
            # Ids are not in the order of the file; they say which five captions count.
            note = {"id": 10 * image + position, "image_id": 100 + image, "caption": text}
            notes.insert(0, note)
    content = {"info": {}, "images": images, "annotations": notes}
    (root / "coco" / "annotations" / "captions_val2017.json").write_text(json.dumps(content))


def test_hand_worked_recall(tmp_path: Path) -> None:
    # Image 0's captions are all right. One of image 1's five is, the others point at image 2.
    # All of image 2's point at image 0. A sixth caption does not count.
    write_coco(tmp_path, {0: [0] * 5 + [2], 1: [1, 2, 2, 2, 2], 2: [0] * 5})
    report = evaluation.evaluate(AxisModel(), ["coco2017_retrieval"], tmp_path, keep_rows=True)
    numbers = report.benchmarks["coco2017-retrieval"]
    # Image 0: five own captions tie with image 2's five at cosine 1, so the best match has five
    # rivals; image 1 wins with its one; image 2's own score 0, tied with or below all the rest.
    assert numbers["image_to_text@1"] == pytest.approx(100 / 3)
    assert numbers["image_to_text@5"] == pytest.approx(100 / 3)
    assert numbers["image_to_text@10"] == pytest.approx(200 / 3)
    # 5 of image 0's and 1 of image 1's captions find their image first. Of the nine others the
    # own image scores 0, tied with the third one: two rivals.
    assert numbers["text_to_image@1"] == pytest.approx(600 / 15)
    assert numbers["text_to_image@5"] == 100.0
    assert (numbers["n_images"], numbers["n_captions"]) == (3, 15)
    assert [row["rank"] for row in report.rows[:3]] == [6, 1, 11]
    captions = report.rows[3:]
    assert [row["rank"] for row in captions] == [1] * 5 + [1] + [3] * 4 + [3] * 5


def test_rows_and_numbers_agree(tmp_path: Path) -> None:
    write_coco(tmp_path, {0: [0, 1, 0, 2, 0], 1: [1, 1, 0, 2, 2], 2: [2, 0, 2, 1, 1]})
    report = evaluation.evaluate(AxisModel(), ["coco2017-retrieval"], tmp_path, keep_rows=True)
    numbers = report.benchmarks["coco2017-retrieval"]
    for way in ("image_to_text", "text_to_image"):
        ranks = [row["rank"] for row in report.rows if row["direction"] == way]
        for k in (1, 5, 10):
            right = sum(rank <= k for rank in ranks)
            assert numbers[f"{way}@{k}"] == pytest.approx(100 * right / len(ranks))


def test_a_missing_image_takes_its_captions_along(tmp_path: Path) -> None:
    write_coco(tmp_path, {0: [0] * 5, 1: [1] * 5, 2: [2] * 5})
    (tmp_path / "coco" / "val2017" / "000000000001.jpg").unlink()
    report = evaluation.evaluate(AxisModel(), ["coco2017-retrieval"], tmp_path, allow_missing=True)
    numbers = report.benchmarks["coco2017-retrieval"]
    assert (numbers["n_images"], numbers["n_captions"]) == (2, 10)
    assert numbers["image_to_text@1"] == numbers["text_to_image@1"] == 100.0


def test_broken_annotations_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path, {0: [0] * 5, 1: []})
    with pytest.raises(DataError, match=r"000000000001\.jpg has no caption"):
        load_coco2017(tmp_path)
    file = tmp_path / "coco" / "annotations" / "captions_val2017.json"
    file.write_text('{"images": []}')
    with pytest.raises(DataError, match=r"captions_val2017\.json is not COCO's"):
        load_coco2017(tmp_path)


@pytest.mark.parametrize("name", ["../000000000000.jpg", "/etc/passwd"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path, {0: [0] * 5})
    file = tmp_path / "coco" / "annotations" / "captions_val2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"captions_val2017\.json: .*is no image in"):
        load_coco2017(tmp_path)
